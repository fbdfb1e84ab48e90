"""The console over another machine's engine: what is local elsewhere is fetched, put or told there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.errors import NotFound
from engine.paths import find_paths
from engine.wire import Manifest
from turbotui import console as console_module
from turbotui.app import TurboApp
from turbotui.client import scenes
from turbotui.client.files import Fetched
from turbotui.console import run_console
from turbotui.remote.box import Box
from turbotui.remote.target import Target
from turbotui.screens.job import JobScreen
from turbotui.settings import load_console

from .conftest import NOW, SMALL, WIDE, live, panel_text, screen_text, scripted, until

Build = Callable[..., TurboApp]


class FarBox:
    """As `turbotui.remote.box.Box`, without a machine."""

    target = Target(host="me@far")
    name = "me@far"
    remark = "the way there is a slow one"

    def __init__(self) -> None:
        self.fetched: list[tuple[int, Path]] = []
        self.asked: list[int] = []

    def scp(self, path: str) -> str:
        return f"me@far:{path}"

    def copy_command(self, path: str, *, folder: bool = False) -> str:
        return f"scp me@far:{path} ."

    def fetch(self, job_id: int, folder: Path) -> Fetched:
        self.fetched.append((job_id, folder))
        return Fetched(path=folder / "video.mp4", bytes=2**20, sha256="0")

    def manifest(self, job_id: int) -> Manifest:
        self.asked.append(job_id)
        raise NotFound("gone")


def finished(app: TurboApp) -> int:
    return next(job.id for job in app.link.state.finished if job.output and job.status == "done")


@pytest.mark.parametrize("size", [SMALL, WIDE], ids=["80x24", "120x36"])
async def test_a_finished_video_is_fetched_into_this_folder(
    console: Build, size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    box = FarBox()
    app = console(scripted(scenes.busy(NOW)), box=box, where=box.name)
    async with app.run_test(size=size) as pilot:
        await live(pilot)
        assert box.remark in screen_text(app)
        assert "me@far" in panel_text(app, "header"), "the user too, however narrow"
        app.act("fetch", finished(app))
        await until(pilot, lambda: bool(box.fetched), "the fetch")
        assert box.fetched == [(finished(app), tmp_path)]
        await until(pilot, lambda: "✓ fetched" in screen_text(app), "its receipt")
        app.act("video", finished(app))
        await pilot.pause()
        assert "copied: scp me@far:/" in screen_text(app)
        assert app.clipboard.startswith("scp me@far:/")


async def test_a_path_is_copied_as_scp_takes_it_and_the_manifest_is_asked_there(console: Build) -> None:
    box, busy = FarBox(), scenes.busy(NOW)
    jobs = tuple(replace(job, manifest="/m.json" if job.output else None) for job in busy.jobs)
    app = console(scripted(replace(busy, jobs=jobs)), box=box, where=box.name)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        app.push_screen(JobScreen(finished(app)))
        await until(pilot, lambda: box.asked == [finished(app)], "the question")
        await pilot.press("y")
        assert app.clipboard.startswith("me@far:/")


async def test_here_a_video_is_here_already(console: Build) -> None:
    app = console(scripted(scenes.busy(NOW)))
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        app.act("fetch", finished(app))
        await pilot.pause()
        assert "on this machine" in screen_text(app)


@pytest.mark.parametrize("far", [True, False])
def test_a_lost_box_is_not_taken_for_this_machine(
    far: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process may have a namesake here, and its memory is not what a probe here reads."""
    given: dict[str, Any] = {}

    class Opened:
        return_code, leaving_line, mouse = 0, "", False

        def __init__(self, *_arguments: Any, **settings: Any) -> None:
            given.update(settings)

        def run(self, **_how: Any) -> None:
            pass

    monkeypatch.setattr(console_module, "TurboApp", Opened)
    monkeypatch.setenv("TURBOTUI_HOME", str(tmp_path))
    paths = find_paths()
    box = Box(Target(host="me@far")) if far else None
    assert run_console(paths, load_console(paths.config_file), demo=False, box=box) == 0
    assert given["look_alone"] is not far and (given["ended"] is None) is far
