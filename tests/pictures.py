"""Makes the README's pictures from the real console over a real demo engine: `make pictures`.

    python -m tests.pictures [FOLDER]

Draws what the console draws, cell by cell, with DejaVu Sans Mono and Noto Sans CJK where they are
installed. The engine runs in a folder of its own and is ended after.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw, ImageFont
from rich.cells import cell_len
from rich.color import ColorType

from engine.paths import find_paths
from engine.wire import JobSpec
from turbotui.app import TurboApp
from turbotui.bench.session import BenchEngine
from turbotui.client import launch

if TYPE_CHECKING:
    from rich.style import Style

CELL = (10, 21)
MARGIN = 8
FONTS = (
    Path("/usr/share/fonts/truetype/dejavu/DejaVuSansMono.ttf"),
    Path("/usr/share/fonts/truetype/dejavu/DejaVuSansMono-Bold.ttf"),
)
CJK = Path("/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc")
SIMPLIFIED = 2
"""Of the faces in the CJK collection."""
PROMPTS = (
    ("wan-demo-large", "harbour at dawn, drone shot"),
    ("wan-demo-small", "一只猫在雪地里跑，慢镜头"),
    ("wan-demo-large", "a lighthouse in a storm"),
    ("wan-demo-small", "steam over a tea cup"),
)
CJK_DROP = 4
"""How much lower that font sets its characters."""
LEFT = "▉▊▋▌▍▎▏"
LOWER = "▁▂▃▄▅▆▇"
DENSE = {"▓": 0.75, "▒": 0.5, "░": 0.25}
WAIT_S = 90.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """One file and how the console comes to look like it."""

    name: str
    size: tuple[int, int] = (120, 36)
    settings: dict[str, Any] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    typed: str = ""


PICTURES = (
    Picture(name="console.png"),
    Picture(name="console-80x24.png", size=(80, 24), keys=("3",)),
    Picture(name="console-200x50.png", size=(200, 50)),
    Picture(name="console-zh.png", settings={"language": "zh_CN"}),
    Picture(name="console-light.png", settings={"theme": "light"}),
    Picture(name="console-ascii.png", settings={"symbols": "ascii"}),
    Picture(name="new-job.png", keys=("a",), typed="a red fox in falling snow, slow pan"),
    Picture(name="switch.png", keys=("m",)),
    Picture(name="help.png", keys=("question_mark",)),
)


def main(arguments: list[str]) -> int:
    folder = Path(arguments[0]) if arguments else Path(__file__).parents[1] / "docs"
    wanted = arguments[1:]
    os.environ["COLORTERM"] = "truecolor"
    missing = [font for font in (*FONTS, CJK) if not font.exists()]
    if missing:
        print(f"install DejaVu Sans Mono and Noto Sans CJK: {missing[0]} is not there", file=sys.stderr)
        return 2
    folder.mkdir(parents=True, exist_ok=True)
    with BenchEngine(models=None) as bench, tempfile.TemporaryDirectory() as own:
        bench.client.make_demo_models()
        for picture in PICTURES:
            if not wanted or picture.name in wanted:
                _queue_again(bench)
                asyncio.run(_take(bench, picture, folder / picture.name, Path(own)))
                print(folder / picture.name)
    return 0


def _queue_again(bench: BenchEngine) -> None:
    """Enough work that one job runs and others wait while the picture is taken."""
    waiting = [job for job in bench.client.jobs() if job.status in ("queued", "running")]
    for model, prompt in PROMPTS if len(waiting) < len(PROMPTS) else ():
        bench.client.submit(JobSpec(model=model, prompt=prompt, frames=33 if "large" in model else 17))


async def _take(bench: BenchEngine, picture: Picture, path: Path, own: Path) -> None:
    paths = find_paths({**os.environ, "TURBOTUI_HOME": str(bench.home)})
    app = TurboApp(
        lambda: launch.connect(paths, start=False, timeout=5.0),
        draft_path=own / f"{picture.name}.json",
        recordings=paths.recordings,
        where="me@gpubox01",
        **picture.settings,
    )
    async with app.run_test(size=picture.size) as pilot:
        deadline = time.monotonic() + WAIT_S
        while not _worth_showing(app):
            if time.monotonic() > deadline:
                raise SystemExit(f"no job came to denoise within {WAIT_S:g} s")
            await asyncio.sleep(0.1)
        await asyncio.sleep(3.0)  # a piece of history
        await pilot.press(*picture.keys)
        if picture.typed:
            await pilot.press(*picture.typed)
        await asyncio.sleep(0.6)
        while not _worth_showing(app) and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        await pilot.pause()
        draw(app).save(path, optimize=True)


def _worth_showing(app: TurboApp) -> bool:
    running = app.link.state.running
    return bool(
        running and running.progress and running.progress.stage == "denoise" and app.link.state.finished
    )


# -------------------------------------------------------------------------------- cells


def draw(app: TurboApp) -> Image.Image:
    """The console's screen as its terminal would show it."""
    columns, rows = app.size
    width, height = CELL
    background = _rgb(app.paint.background)
    image = Image.new("RGB", (columns * width + 2 * MARGIN, rows * height + 2 * MARGIN), background)
    canvas = ImageDraw.Draw(image)
    for y, strip in enumerate(app.screen._compositor.render_strips()):
        x = 0
        for text, style, _control in strip:
            for character, shown in zip(text, app.symbols.written(text, 0), strict=True):
                cells = cell_len(character)
                if cells:
                    _cell(canvas, (MARGIN + x * width, MARGIN + y * height), shown, cells, style, background)
                x += cells
    return image


def _cell(
    canvas: ImageDraw.ImageDraw,
    at: tuple[int, int],
    character: str,
    cells: int,
    style: Style | None,
    background: tuple[int, int, int],
) -> None:
    (left, top), (width, height) = at, CELL
    right, bottom = left + cells * width - 1, top + height - 1
    fore = _rgb(style.color) if style is not None and style.color is not None else (220, 220, 220)
    back = _rgb(style.bgcolor) if style is not None and style.bgcolor is not None else background
    if style is not None and style.reverse:
        fore, back = back, fore
    if style is not None and style.dim:
        fore = _mixed(fore, back, 0.5)
    canvas.rectangle((left, top, right, bottom), fill=back)
    if character in LOWER:
        canvas.rectangle(
            (left, bottom - height * (LOWER.index(character) + 1) // 8, right, bottom), fill=fore
        )
    elif character == "█":
        canvas.rectangle((left, top, right, bottom), fill=fore)
    elif character == "▀":
        canvas.rectangle((left, top, right, top + height // 2), fill=fore)
    elif character in DENSE:
        _dots(canvas, (left, top, right, bottom), DENSE[character], fore)
    elif character != " ":
        bold = bool(style is not None and style.bold)
        canvas.text(
            (left, top - (CJK_DROP if cells == 2 else 0)),
            character,
            font=_font(bold=bold, wide=cells == 2),
            fill=fore,
        )


def _dots(
    canvas: ImageDraw.ImageDraw, box: tuple[int, int, int, int], share: float, fore: tuple[int, int, int]
) -> None:
    left, top, right, bottom = box
    for y in range(top, bottom + 1):
        for x in range(left, right + 1):
            even = (x + y) % 2 == 0
            if (
                (share == 0.5 and even)
                or (share == 0.75 and (even or y % 2))
                or (share == 0.25 and even and y % 2)
            ):
                canvas.point((x, y), fill=fore)


@lru_cache
def _font(*, bold: bool, wide: bool) -> ImageFont.FreeTypeFont:
    if wide:
        return ImageFont.truetype(str(CJK), 16, index=SIMPLIFIED)
    return ImageFont.truetype(str(FONTS[bold]), 16)


def _rgb(colour: Any) -> tuple[int, int, int]:
    if isinstance(colour, str):
        from rich.color import Color

        colour = Color.parse(colour)
    if colour.type == ColorType.DEFAULT:
        return 15, 17, 26
    red, green, blue = colour.get_truecolor()
    return red, green, blue


def _mixed(one: tuple[int, int, int], other: tuple[int, int, int], share: float) -> tuple[int, int, int]:
    red, green, blue = (round(a * share + b * (1 - share)) for a, b in zip(one, other, strict=True))
    return red, green, blue


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
