"""How pictures look on the job's page and in the picker, pinned as SVG."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from engine.wire import PreviewMade, Snapshot
from turbotui.app import TurboApp
from turbotui.client import scenes
from turbotui.draft import Draft
from turbotui.picture import files
from turbotui.picture.raster import Picture
from turbotui.screens.image_picker import ImagePickerScreen

from . import job_scenes
from .conftest import NOW, SMALL, WIDE, Clock, live, screen_text, scripted, settled, until

LARGE = (200, 50)
SIZES = pytest.mark.parametrize("size", [SMALL, WIDE, LARGE], ids=["80x24", "120x36", "200x50"])


def hills(width: int, height: int, at: int) -> Picture:
    """A dawn over hills, the same on every machine."""
    rgb = bytearray()
    for y in range(height):
        for x in range(width):
            hill = height * 0.55 + height * 0.12 * ((x * 3 // width + x // 7 + at // 9) % 3)
            sun = (x - width * 0.65) ** 2 + (y - height * 0.4 + at / 3) ** 2 < (height * 0.12) ** 2
            if y > hill:
                rgb += bytes((30, 40 + y, 50))
            else:
                rgb += bytes((255, 230, 150) if sun else (60 + y * 2, 60 + y, 150 - y))
    return Picture(width=width, height=height, rgb=bytes(rgb))


@pytest.fixture
def pictures() -> Iterator[Path]:
    """A folder of the same name everywhere, since its name is in the picture."""
    place = Path(tempfile.gettempdir()) / "turbotui-snapshot" / "pictures"
    shutil.rmtree(place.parent, ignore_errors=True)
    (place / "旅行").mkdir(parents=True)
    for age, name in enumerate(("harbour at dawn.png", "square.png", "一只猫在雪地里跑.png")):
        picture = hills(96, 54 if age != 1 else 96, age * 9)
        Image.frombytes("RGB", (picture.width, picture.height), picture.rgb).save(place / name)
        os.utime(place / name, (NOW - age * 40000,) * 2)
    os.utime(place / "旅行", (NOW - 90000,) * 2)
    yield place
    shutil.rmtree(place.parent, ignore_errors=True)


@pytest.fixture
def look(
    snap_compare: Callable[..., bool], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(
        files, "read_frames", lambda path, most: tuple(hills(120, 68, at) for at in range(0, 81, 5))
    )

    def check(
        snapshot: Snapshot, size: tuple[int, int], wanted: str, *keys: str, draft: Draft | None = None,
        **settings: Any,
    ) -> None:  # fmt: skip
        app = TurboApp(
            lambda: scripted(
                snapshot,
                PreviewMade(job_id=41, step=3),
                preview=job_scenes.preview,
                course=lambda job_id: (
                    job_scenes.course(job_id) if job_id == 41 else job_scenes.course_at_end(job_id)
                ),
            ),
            where="me@gpubox01",
            wall=clock.wall,
            monotonic=clock.monotonic,
            **settings,
        )
        if draft is not None:
            app.drafts.own.keep(draft)

        async def before(pilot: Any) -> None:
            await live(pilot)
            for key in keys:
                await pilot.press(key)
                await pilot.pause()

            def drawn() -> bool:
                refresh = getattr(app.screen, "refresh_panel", None)
                if refresh is not None:
                    refresh()
                return wanted in screen_text(app)

            await until(pilot, drawn, wanted)
            if isinstance(app.screen, ImagePickerScreen):
                await until(pilot, lambda: app.screen.panel.image is not None)  # type: ignore[attr-defined]
            drawn()
            await settled(pilot)

        assert snap_compare(app, terminal_size=size, run_before=before)

    return check


@SIZES
def test_a_job_that_denoises(look: Callable[..., None], size: tuple[int, int]) -> None:
    look(scenes.busy(NOW), size, "step 3 of 4", "4", "enter")


@SIZES
def test_a_job_that_is_done(look: Callable[..., None], size: tuple[int, int]) -> None:
    look(job_scenes.done(Path("/videos/30.mp4")), size, "9/17", "4", "enter")


@pytest.mark.parametrize("theme", ["light", "high-contrast", "terminal16"])
def test_a_theme(look: Callable[..., None], theme: str) -> None:
    look(job_scenes.done(Path("/videos/30.mp4")), WIDE, "9/17", "4", "enter", theme=theme)


def test_a_frame_in_large_and_in_chinese(look: Callable[..., None]) -> None:
    done = job_scenes.done(Path("/videos/30.mp4"))
    look(done, SMALL, "9/17", "4", "enter", "z", language="zh_CN")


@SIZES
def test_the_picker(look: Callable[..., None], pictures: Path, size: tuple[int, int]) -> None:
    draft = Draft(model="wan2.2-a14b", image=str(pictures))
    look(scenes.busy(NOW), size, "96x54", "a", "ctrl+t", draft=draft)


def test_the_picker_in_chinese(look: Callable[..., None], pictures: Path) -> None:
    draft = Draft(model="wan2.2-a14b", image=str(pictures))
    look(scenes.busy(NOW), SMALL, "96x54", "a", "ctrl+t", draft=draft, language="zh_CN")
