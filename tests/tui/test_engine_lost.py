"""An engine that is killed: the console says so and how, looks at the device by itself, and comes back."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import NotFound
from engine.paths import find_paths
from turbotui.app import TurboApp
from turbotui.client import scenes
from turbotui.client.launch import find_engine
from turbotui.state import DeviceWatched, LinkLost, LinkOpened

from .conftest import NOW, SMALL, WIDE, Clock, live, panel_text, screen_text, scripted
from .pty_console import CONSOLE, Shown


@pytest.fixture
def home(tmp_path: Path) -> Iterator[dict[str, str]]:
    environ = {"TURBOTUI_HOME": str(tmp_path), "TURBOTUI_ENGINE_DEVICE": "cpu"}
    yield environ
    command(environ, "engine", "stop")


def command(environ: dict[str, str], *arguments: str) -> None:
    subprocess.run([*CONSOLE, *arguments], env={**os.environ, **environ}, capture_output=True, check=False)


def engine_pid(environ: dict[str, str]) -> int:
    holder = find_engine(find_paths({**os.environ, **environ}))
    assert holder is not None
    return holder.pid


def bystanders(parent: int) -> list[int]:
    """Those that look while no engine does, below `parent`."""
    pids = [
        int(pid)
        for tasks in Path(f"/proc/{parent}/task").glob("*/children")
        for pid in tasks.read_text().split()
    ]
    return [pid for pid in pids if b"engine.daemon.bystander" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def wait_for(condition: Callable[[], bool], what: str, console: Shown | None = None) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, what
        if console is None:
            time.sleep(0.05)
        else:
            console.read(0.05)


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_killed_engine_leaves_the_bar_live_and_comes_back(home: dict[str, str]) -> None:
    with Shown(CONSOLE, environ=home) as console:
        console.until("● live", seconds=20)
        log = find_paths({**os.environ, **home}).logs / "engine.log"
        with log.open("a") as printed:
            print("Fatal Python error: Segmentation fault", file=printed)
        os.kill(engine_pid(home), signal.SIGKILL)
        shown = console.until("✗ lost", "exit -9", "own probe", "printed    Fatal Python error")
        assert re.search(r"✗ lost \d\d:\d\d:\d\d, exit -9 +trying again in \d s", shown), shown
        (first,) = bystanders(console.pid)
        wait_for(lambda: bool(children_of(first)), "its probe", console)
        (probe,) = children_of(first)
        command(home, "engine", "start")
        console.until("● live", seconds=20)
        console.until_gone("own probe")
        wait_for(lambda: is_gone(first) and is_gone(probe), "the end of who stood by", console)


def test_who_stands_by_ends_with_a_console_that_is_killed(home: dict[str, str]) -> None:
    with Shown(CONSOLE, environ=home) as console:
        console.until("● live", seconds=20)
        os.kill(engine_pid(home), signal.SIGKILL)
        console.until("own probe")
        (first,) = bystanders(console.pid)
        wait_for(lambda: bool(children_of(first)), "its probe", console)
        (probe,) = children_of(first)
        os.kill(console.pid, signal.SIGKILL)
        assert console.ended_within(5) is not None
        wait_for(lambda: is_gone(first) and is_gone(probe), "the end of who stood by")


AS_OF = {"en": "as of 14:13:30", "zh_CN": "截至 14:13:30"}


@pytest.mark.parametrize("language", ["en", "zh_CN"])
@pytest.mark.parametrize("size", [SMALL, WIDE], ids=["80x24", "120x36"])
async def test_what_the_engine_told_last_says_when_beside_what_is_seen_now(
    console: Callable[..., TurboApp], clock: Clock, size: tuple[int, int], language: str
) -> None:
    clock.passed = 10.0
    app = console(scripted(scenes.busy(NOW), preview=NotFound("none")), language=language)
    async with app.run_test(size=size) as pilot:
        await live(pilot)
        running = "running" if size == SMALL else "queue"
        assert "6.0 s" in panel_text(app, running) and AS_OF[language] not in screen_text(app)

        async def shown(panel: str) -> str:
            await pilot.press(str(("history", "models", "queue", "card").index(panel) + 2))
            app.dashboard.tick()
            await pilot.pause()
            return panel_text(app, panel)

        clock.passed = 75.0
        app.link._take(LinkLost(reason="gone", retry_at=2000.0))
        for panel in ("models", "queue", "card"):
            title = (await shown(panel)).splitlines()[0]
            assert AS_OF[language] in title, "nobody tells of the device either"
        assert "6.0 s" not in screen_text(app), "whether it still runs is not known"
        # Now the console looks at the device by itself: that is of now, and the queue is not.
        app.link._take(DeviceWatched(device=replace(scenes.gpu(NOW), processes=())))
        assert AS_OF[language] not in await shown("card")
        assert AS_OF[language] in (await shown("models")).splitlines()[0]
        await shown("history")
        assert AS_OF[language] in panel_text(app, running)
        await pilot.press("4", "enter")
        await pilot.pause()
        page = screen_text(app).splitlines()
        assert any("41" in row and AS_OF[language] in row for row in page), "the job's page, too"
        await pilot.press("escape")
        app.link._take(LinkOpened(hello=scripted().hello()))
        app.link._take(scenes.busy(NOW))
        app.dashboard.tick()
        await pilot.pause()
        assert AS_OF[language] not in screen_text(app)
