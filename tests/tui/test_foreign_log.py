"""Another program's log in the log's pane: chosen by path, followed, filtered, searched and marked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from turbotui.app import TurboApp
from turbotui.client import scenes
from turbotui.foreign_log import recent_logs
from turbotui.screens import log_file
from turbotui.screens.log_file import LogFileScreen
from turbotui.widgets.log import LogPanel

from .conftest import NOW, SMALL, WIDE, burst, live, panel_text, screen_text, until

Build = Callable[..., TurboApp]
DATA = Path(__file__).parents[1] / "data" / "foreign"


async def test_a_gbk_log_is_followed_and_the_lines_that_matter_are_marked(
    console: Build, tmp_path: Path
) -> None:
    log = tmp_path / "logs" / "webui_startup_latest.log"
    log.parent.mkdir()
    log.write_bytes("随便一行\n".encode("gbk") * 30 + (DATA / "webui-zh-gbk.log").read_bytes())
    kept = tmp_path / "logs.json"
    app = console([scenes.busy(NOW)], logs_path=kept)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("6", "L")
        await until(pilot, lambda: isinstance(app.screen, LogFileScreen) and app.screen.painted)
        assert isinstance(app.screen, LogFileScreen)
        screen = app.screen
        await burst(pilot, *f"{log.parent}/web")
        await until(pilot, lambda: "webui_startup_latest.log" in screen_text(app), "the folder's files")
        await pilot.press("tab")
        assert screen.panel.typed == str(log)
        await pilot.press("enter")
        await until(pilot, lambda: "端口 7860 已被占用" in panel_text(app, "log"))
        text = panel_text(app, "log")
        assert "webui_startup_latest.log" in text and "01-15 14:05" in text and "port" in text
        assert "随便" not in text and recent_logs(kept) == (str(log),)
        await pilot.press("A", "g")
        assert "随便一行" in panel_text(app, "log") and "following" not in panel_text(app, "log")
        with log.open("ab") as file:
            file.write("[2026-01-15 14:06:00] 显存占用：23.9/24.0 GB\n".encode())
        await until(pilot, lambda: "1 new" in panel_text(app, "log"), "a new line")
        await pilot.press("F")
        assert "23.9/24.0 GB" in panel_text(app, "log")
        log.unlink()
        await until(pilot, lambda: "it is tried again" in panel_text(app, "log"), "the file is gone")
        await pilot.press("L")
        await until(pilot, lambda: isinstance(app.screen, LogFileScreen) and app.screen.painted)
        assert str(log)[-30:] in screen_text(app)
        await pilot.press("enter")
        assert app.foreign is None and "floor" in panel_text(app, "log")


async def test_at_80x24_the_frame_says_all_keys_of_a_log_with_a_long_name(
    console: Build, tmp_path: Path
) -> None:
    log = tmp_path / "webui_startup_latest.log"
    log.write_bytes((DATA / "webui-zh-gbk.log").read_bytes())
    app = console([scenes.busy(NOW)], log=log)
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        await pilot.press("6")
        await until(pilot, lambda: "following" in panel_text(app, "log"), "the whole word")
        await pilot.press("A", "g")
        text = panel_text(app, "log")
        assert "F follow" in text and "0 new" not in text, text


async def test_a_log_without_times_says_so_and_is_searched_with_its_context(
    console: Build, tmp_path: Path
) -> None:
    log = tmp_path / "comfy.log"
    log.write_bytes((DATA / "comfyui.log").read_bytes() + b"half a li")
    app = console([scenes.busy(NOW)], log=log)
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        await until(pilot, lambda: "Got an OOM" in panel_text(app, "log"))
        assert "~14:13" in panel_text(app, "log") and "~ is when a line was read" in panel_text(app, "log")
        await pilot.press("A")
        assert "half a li" in panel_text(app, "log")
        await pilot.press("slash", *"loaded", "enter")
        panel = app.dashboard.query_one(LogPanel)
        text = panel_text(app, "log")
        assert "/loaded" in text and "pytorch version" not in text and "Requested" not in text
        await pilot.press("n")  # from the end round to the first
        text = panel_text(app, "log")
        assert "1/3" in text and "Requested to load WAN21" in text
        first = panel.chosen
        await pilot.press("n")
        assert panel.chosen != first and "2/3" in panel_text(app, "log")
        await pilot.press("N", "N")
        assert "3/3" in panel_text(app, "log") and "following" not in panel_text(app, "log")
        await pilot.press("escape")
        assert not panel.wanted
        await pilot.press("slash", *"nowhere", "enter", "n")
        assert "no line contains nowhere" in panel_text(app, "log")


async def test_a_paused_picture_holds_a_foreign_log_too(console: Build, tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("first OOM\n")
    app = console([scenes.busy(NOW)], log=log)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await until(pilot, lambda: "first OOM" in panel_text(app, "log"))
        await pilot.press("p")
        assert app.foreign is not None
        before, foreign = app.foreign.version, app.foreign
        with log.open("a") as file:
            file.write("second OOM\n")
        await until(pilot, lambda: foreign.version > before)
        app.dashboard.tick()
        assert "second OOM" not in panel_text(app, "log")
        await pilot.press("p")
        app.dashboard.tick()
        assert "second OOM" in panel_text(app, "log")


async def test_a_log_of_escapes_bidi_and_huge_lines_reaches_no_terminal(
    console: Build, tmp_path: Path
) -> None:
    log = tmp_path / "evil.log"
    log.write_bytes(
        "\x1b]0;pwned\x07\x1b[2J[red]\u202eOOM\u0000\x9b31m\n".encode()
        + b"CUDA out of memory "
        + b"\xe6" * 100_000
    )
    app = console([scenes.busy(NOW)], log=log)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await until(pilot, lambda: "[red]" in panel_text(app, "log"))
        await pilot.press("k", "enter")
        await pilot.pause()
        shown = screen_text(app)
        assert not set(shown) & {"\x1b", "\u202e", "\x9b", "\0", "\x07"} and "[red]" in shown
        before = time.perf_counter()
        app.dashboard.tick()
        assert time.perf_counter() - before < 0.5


async def test_a_folder_is_read_once_and_a_hanging_disk_holds_nothing_up(
    console: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on, read = threading.Event(), []

    def listed(folder: str) -> tuple[log_file.Entry, ...]:
        read.append(folder)
        return goes_on.wait(3) and ()

    def hangs(path: object) -> bool:
        return goes_on.wait(3) and False

    monkeypatch.setattr(log_file, "list_folder", listed)
    app = console([scenes.busy(NOW)])
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        await pilot.press("6", "L")
        await until(pilot, lambda: isinstance(app.screen, LogFileScreen) and app.screen.painted)
        screen = app.screen
        assert isinstance(screen, LogFileScreen)
        await pilot.press("slash", *"far", "slash", *"some")
        assert sorted(read) == ["", "/", "/far"]  # not once for each key
        monkeypatch.setattr(log_file.os.path, "isfile", hangs)
        await pilot.press("enter", "x")
        assert screen.panel.typed == "/far/somex"
        goes_on.set()
        await pilot.pause(0.1)
        assert app.screen is screen  # what was entered is not what stands there now
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is app.dashboard)
        assert app.foreign is not None and str(app.foreign.path) == "/far/somex"
