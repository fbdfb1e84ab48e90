"""The console over a recording: it says REPLAY and when, stands and jumps, and does not act."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from engine.recording.entries import Entry, ProcessCame, pack_entries
from engine.recording.format import HEADER, pack_frame
from engine.recording.reader import Recording
from engine.recording.rows import pack_rows, row_of
from engine.wire import DeviceProcess, Snapshot
from tests.unit.recordings import GIB, device
from turbotui.actions import ACTIONS
from turbotui.client import scenes
from turbotui.replay.app import ReplayApp
from turbotui.replay.client import ReplayClient
from turbotui.replay.clock import ReplayClock
from turbotui.replay.help import ReplayHelpPanel
from turbotui.state import ConsoleState
from turbotui.text import texts_of

from .conftest import NOW, SMALL, WIDE, live, panel_text, screen_text, until

LENGTH_S = 120.0


@pytest.fixture
def app(tmp_path: Path) -> ReplayApp:
    """Two minutes: a neighbour comes after one."""
    neighbour = DeviceProcess(pid=90112, bytes=6 * GIB, user="adalbert", name="python", command="main.py")
    told = scenes.busy(NOW)
    assert isinstance(told, Snapshot)
    came = Entry(NOW + 60, ProcessCame(device_id="GPU-a", process=neighbour))
    rows = [
        row_of(device(NOW + second, live=GIB, processes=(neighbour,) if second >= 60 else ()))
        for second in range(int(LENGTH_S))
    ]
    path = tmp_path / "night.ttrec"
    path.write_bytes(
        HEADER
        + pack_frame(4, int(NOW * 1000), int(NOW * 1000) + 60_000, pack_entries([Entry(NOW, told), came]))
        + pack_frame(2, int(NOW * 1000), int(NOW * 1000) + 120_000, pack_rows([row for row in rows if row]))
    )
    clock = ReplayClock(NOW, NOW + LENGTH_S, speed=0.5)
    recording = Recording(path)
    return ReplayApp(lambda: ReplayClient(recording, clock), clock=clock, events=(came.at,), where="me@box")


@pytest.mark.parametrize("size", [WIDE, SMALL])
async def test_it_says_that_it_is_a_replay_and_of_when(app: ReplayApp, size: tuple[int, int]) -> None:
    async with app.run_test(size=size) as pilot:
        await live(pilot)
        await until(pilot, lambda: "REPLAY Sep 21 14:13:2" in screen_text(app), "the moment")


async def test_it_stands_and_jumps_by_key_and_shows_what_was_there(app: ReplayApp) -> None:
    def state() -> ConsoleState:
        return app.link.state

    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("space")
        assert app.clock.paused and "‖" in screen_text(app)
        assert "adalbert" not in screen_text(app)
        await pilot.press("greater_than_sign")
        assert app.clock.now() == NOW + 60
        await until(pilot, lambda: any(one.processes for one in state().devices), "the neighbour")
        app.dashboard.tick()
        await pilot.pause()
        assert "adalbert" in screen_text(app)
        await pilot.press("left")
        assert app.clock.now() == NOW + 57.5
        await pilot.press("right", "right", "less_than_sign")
        assert app.clock.now() == NOW + 60
        await pilot.press("space")
        assert not app.clock.paused


async def test_its_help_begins_with_the_keys_of_the_player(app: ReplayApp) -> None:
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        await pilot.press("question_mark")
        await pilot.pause()
        text = screen_text(app)
        assert "stand still, or go on" in text and "leave the replay" in text
        assert text.index("< >") < text.index("leave the replay")
        panel = app.screen.query_one(ReplayHelpPanel)
        for width in (72, 104):
            page = panel.page(app.dashboard.view_now(), width)
            listed = "\n".join("".join(cell.text for cell in row.segments) for row in page)
            for action in ACTIONS:
                told = texts_of("en").get(f"help.{action.id}", "-")
                acts = action.tier != "look" or action.id in ("sheet", "audit", "findings", "leaks", "fetch")
                assert not (acts and told[:30] in listed), action.id
            assert "every action; themes" in listed and "show only lines that" in listed


async def test_acting_is_refused_with_a_sentence_and_nothing_is_kept(app: ReplayApp, tmp_path: Path) -> None:
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        for key in ("u", "C", "a", "E", "R", "X", "x", "ctrl+x", "K", "o"):
            app.say("-")
            await pilot.press(key)
            await pilot.pause()
            assert len(app.screen_stack) == 1 and "this is a replay" in screen_text(app)
        await pilot.press("exclamation_mark")
        await pilot.pause()
        assert screen_text(app).count("this is a replay") >= 5
        await pilot.press("X", "enter", "escape", "c")
        await pilot.pause()
        assert "a replay knows no checks" in screen_text(app)
        await pilot.press("escape", "w")
        await pilot.pause()
        assert "this console has no recording to tell from" in screen_text(app)
        await pilot.press("q")
    assert app.leaving_line == ""
    assert [path.name for path in tmp_path.iterdir()] == ["night.ttrec"]


@pytest.mark.parametrize("language", ["en", "zh_CN"])
async def test_where_nothing_runs_it_offers_no_key_that_is_refused(app: ReplayApp, language: str) -> None:
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        app.speak(language)
        app.clock.pause(True)
        app.link._take(replace(scenes.busy(NOW), jobs=()))
        app.dashboard.tick()
        await pilot.pause()
        texts = texts_of(language)
        assert panel_text(app, "running").strip() == texts["queue.idle"]
        assert texts["queue.writes"] not in screen_text(app)


async def test_the_key_line_names_the_players_keys_and_none_that_is_refused(app: ReplayApp) -> None:
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        line = panel_text(app, "keys")
        assert "space pause ← earlier → later < event > next" in " ".join(line.split())
        for refused in ("unload", "cancel", "retry", "check"):
            assert refused not in line
        assert "help" in line and "quit" in line
        await pilot.click("#keys", offset=(line.index("space") + 1, 0))
        await until(pilot, lambda: app.clock.paused, "a click on it does it, too")
        await until(pilot, lambda: "space go on" in " ".join(panel_text(app, "keys").split()))
        assert "pause" not in panel_text(app, "keys"), "that of the picture is not the player's"
        await pilot.press("2")
        await pilot.pause()
        line = " ".join(panel_text(app, "keys").split())
        assert "→ later" not in line, "the arrows are the history's there"
