"""Themes: told apart by colour-blind eyes and by pattern, edited as they are used, broken ones named."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import pytest

from tests.tui.conftest import NOW, WIDE, live, panel_text, screen_text, scripted, until
from turbotui.app import TurboApp
from turbotui.client import scenes
from turbotui.screens.reader import ReaderScreen
from turbotui.theme import GLYPHS, PARTS, Paint, Palette, read_palette, theme_files, theme_folders
from turbotui.theme_folder import ThemeFolder
from turbotui.widgets.memory import BAR_ORDER

SHIPPED = theme_files(theme_folders())
Build = Callable[..., TurboApp]

# -------------------------------------------------------------------------------- colour-blind eyes

# Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB.
EYES = {
    "usual": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanopia": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}
Colour = tuple[float, float, float]
TERMINAL16 = {
    "black": "#000000", "red": "#cd0000", "green": "#00cd00", "yellow": "#cdcd00", "blue": "#0000ee",
    "magenta": "#cd00cd", "cyan": "#00cdcd", "white": "#e5e5e5", "bright_black": "#7f7f7f",
    "default": "#000000",
}  # fmt: skip
"""As xterm has them; a person may have set others."""


def linear(colour: str) -> Colour:
    colour = TERMINAL16.get(colour.removeprefix("ansi_"), colour)
    values = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values)
    return red, green, blue


def seen(colour: Colour, eyes: str) -> Colour:
    red, green, blue = (
        min(1.0, max(0.0, sum(weight * value for weight, value in zip(row, colour, strict=True))))
        for row in EYES[eyes]
    )
    return red, green, blue


def oklab(colour: Colour) -> Colour:
    red, green, blue = colour
    long = (0.4122214708 * red + 0.5363325363 * green + 0.0514459929 * blue) ** (1 / 3)
    middle = (0.2119034982 * red + 0.6806995451 * green + 0.1073969566 * blue) ** (1 / 3)
    short = (0.0883024619 * red + 0.2817188376 * green + 0.6299787005 * blue) ** (1 / 3)
    return (
        0.2104542553 * long + 0.7936177850 * middle - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * middle + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * middle - 0.8086757660 * short,
    )


def distance(one: str, other: str, eyes: str) -> float:
    """Between two colours as these eyes see them, in OKLab; 0.02 is about what can just be told apart."""
    pair = zip(oklab(seen(linear(one), eyes)), oklab(seen(linear(other), eyes)), strict=True)
    return sum((a - b) ** 2 for a, b in pair) ** 0.5


def neighbours() -> set[tuple[str, str]]:
    """Parts that lie side by side in the bar, also where those between them are not there."""
    optional = {"live", "fragmented", "cache", "context", "driver", "others"}
    found = set()
    for one, other in combinations(range(len(BAR_ORDER)), 2):
        if all(BAR_ORDER[between] in optional for between in range(one + 1, other)):
            found.add((BAR_ORDER[one], BAR_ORDER[other]))
    return found


NEAR = 0.065
"""A distance in OKLab that is seen at a glance between two fields that touch."""


@pytest.mark.parametrize("eyes", EYES)
@pytest.mark.parametrize("theme", ["dark", "light", "high-contrast"])
def test_parts_that_touch_are_told_apart(theme: str, eyes: str) -> None:
    parts = read_palette(SHIPPED[theme]).parts
    close = {
        f"{one} {other}": round(found, 3)
        for one, other in neighbours()
        if (found := distance(parts[one], parts[other], eyes)) < NEAR
    }
    assert close == {}


@pytest.mark.parametrize("eyes", EYES)
@pytest.mark.parametrize("theme", ["dark", "light", "high-contrast"])
def test_what_nobody_can_name_stands_out_from_everything(theme: str, eyes: str) -> None:
    palette = read_palette(SHIPPED[theme])
    others = [palette.parts[part] for part in PARTS if part != "unseen"] + [palette.colours["background"]]
    assert min(distance(palette.parts["unseen"], other, eyes) for other in others) >= NEAR


@pytest.mark.parametrize("theme", SHIPPED)
def test_a_pattern_is_seen_upon_its_part(theme: str) -> None:
    palette = read_palette(SHIPPED[theme])
    for part in PARTS:
        if part == "weights":
            continue  # a full block
        ink, fill = palette.inks[part], palette.parts[part]
        assert distance(ink, fill, "usual") >= 0.08, part


@pytest.mark.parametrize("theme", SHIPPED)
def test_a_part_ends_within_a_cell_in_the_colour_that_it_has_elsewhere(theme: str) -> None:
    paint = Paint(read_palette(SHIPPED[theme]))
    for part in PARTS:
        style = paint.part[part]
        own = style.color if GLYPHS[part] in "█▓▒" else style.bgcolor
        assert paint.edge(part, None).color == own == paint.edge("others", part).bgcolor, part


def test_every_part_has_a_pattern_of_its_own() -> None:
    assert len(set(GLYPHS.values())) == len(GLYPHS) and set(PARTS) < set(GLYPHS)


def test_the_simulation_is_right() -> None:
    # A red and a green of one lightness, which most who cannot tell them apart confuse.
    assert distance("#d05050", "#5a9a50", "usual") > 0.15
    assert distance("#b06a40", "#80803a", "deuteranopia") < 0.5 * distance("#b06a40", "#80803a", "usual")
    assert distance("#000000", "#ffffff", "protanopia") == pytest.approx(1.0, abs=0.01)


# -------------------------------------------------------------------------------- files

DARK = SHIPPED["dark"].read_text("utf-8")


def written(folder: Path, name: str, text: str, at: int) -> None:
    """A theme file of the person's own, with a time of its own however quick the disk is."""
    (folder / "themes").mkdir(exist_ok=True)
    path = folder / "themes" / f"{name}.toml"
    path.write_text(text, "utf-8")
    os.utime(path, ns=(at, at))


def mine(background: str, name: str = "mine") -> str:
    text = re.sub("^name = .*$", f'name = "{name}"', DARK, flags=re.M)
    return re.sub("^background = .*$", f'background = "{background}"', text, flags=re.M)


def shown(app: TurboApp) -> str:
    return app.paint.palette.colours["background"]


async def test_an_edited_theme_shows_and_a_broken_one_is_named_and_ignored(
    console: Build, tmp_path: Path
) -> None:
    written(tmp_path, "mine", mine("#101112"), 1)
    app = console(scripted(scenes.busy(NOW)), theme="mine", config_dir=tmp_path)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        assert shown(app) == "#101112"
        app._look_at_themes()
        written(tmp_path, "mine", mine("#202122"), 2)
        app._look_at_themes()
        await pilot.pause()
        assert shown(app) == "#202122"
        strip = app.screen._compositor.render_strips()[10]
        assert {segment.style.bgcolor.name for segment in strip if segment.style} >= {"#202122"}
        written(tmp_path, "mine", mine("green-ish"), 3)
        app._look_at_themes()
        await pilot.pause()
        assert shown(app) == "#202122"
        assert "mine.toml sets colours.background to" in panel_text(app, "receipt")
        written(tmp_path, "other", "name = [", 4)
        app._look_at_themes()
        assert "other.toml cannot be read" in panel_text(app, "receipt")
        assert "mine" not in app.themes.names() and "dark" in app.themes.names()
        written(tmp_path, "mine", mine("#303132"), 5)
        app._look_at_themes()
        assert shown(app) == "#303132" and "mine" in app.themes.names()


@pytest.mark.parametrize(
    ("name", "why"), [("broken", "broken.toml lacks"), ("nowhere", "no theme 'nowhere'")]
)
async def test_a_theme_that_cannot_be_read_at_the_start_falls_back_to_the_dark_one(
    console: Build, tmp_path: Path, name: str, why: str
) -> None:
    written(tmp_path, "broken", DARK.replace("wait = ", "weight = "), 1)
    written(tmp_path, "dark", "colours = 3", 1)
    app = console(scripted(scenes.busy(NOW)), theme=name, config_dir=tmp_path)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        assert shown(app) == read_palette(SHIPPED["dark"]).colours["background"]
        await until(pilot, lambda: "theme" in panel_text(app, "receipt"), "the notice")
        assert why in panel_text(app, "receipt") or "sets unknown colours.weight" in panel_text(
            app, "receipt"
        )
        # The last line is one row; all of it is where every other setting is that was left out.
        app._look_at_themes()
        titles = {command.title: command for command in app.get_system_commands(app.dashboard)}
        titles["Settings that were left out"].callback()
        await until(pilot, lambda: isinstance(app.screen, ReaderScreen))
        text = " ".join(screen_text(app).replace("│", " ").split())
        wanted = "nowhere" if name == "nowhere" else "lacks colours.wait"
        assert wanted in text and "dark.toml" in text


def test_a_file_that_was_not_written_again_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, "mine", mine("#101112"), 1)
    folder = ThemeFolder(theme_folders(tmp_path))
    read: list[Path] = []

    def counted(path: Path) -> Palette:
        read.append(path)
        return read_palette(path)

    monkeypatch.setattr("turbotui.theme_folder.read_palette", counted)
    assert folder.look() == (set(), [])
    assert [path.stem for path in read] == ["mine"]
    assert folder.look() == (set(), []) and len(read) == 1
    (tmp_path / "themes" / "mine.toml").unlink()
    assert folder.look() == ({"mine"}, []) and "mine" not in folder.names()


def test_a_row_of_the_terminals_own_colours_is_upside_down_where_it_is_selected() -> None:
    """Red on its bright black can hardly be read, and with some people's colours nothing can."""
    paint = Paint(read_palette(SHIPPED["terminal16"]))
    for style in (paint.alarm, paint.wait, paint.muted, paint.key, paint.text):
        upon = paint.upon_selection(style)
        assert upon.reverse and (upon.color, upon.bgcolor) == (paint.text.color, paint.text.bgcolor)
