"""A cursor on the history brings back models, queue, processes and log of its moment, live and in replay."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.recording.reader import Recording
from engine.wire import JobChanged, Logged, LogLine, MemorySampled
from turbotui.app import TurboApp
from turbotui.client import scene_gpus, scenes
from turbotui.past.archive import Told
from turbotui.replay.app import ReplayApp
from turbotui.replay.client import ReplayClient
from turbotui.replay.clock import ReplayClock
from turbotui.replay.open import is_event
from turbotui.state import ConsoleState
from turbotui.widgets.history import HistoryPanel
from turbotui.widgets.log import LogPanel
from turbotui.widgets.queue import QueuePanel

from .conftest import NOW, SMALL, WIDE, Clock, burst, live, panel_text, screen_text, scripted, until
from .nights import CAME, FAILED, STOPPED, night

Console = Callable[..., TurboApp]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return night(tmp_path_factory.mktemp("recorded") / "night.ttrec")


async def last_minute(pilot: Any, clock: Clock) -> None:
    """A minute before NOW, seen by the console: a job ends in its middle, and another begins."""
    app: TurboApp = pilot.app
    await until(pilot, lambda: app.link.state.engine is not None, "a snapshot")
    first = replace(scenes.running_job(NOW - 60), id=40, started_at=NOW - 80)
    ended = replace(first, status="done", finished_at=NOW - 30, progress=None)
    for second in range(61):
        clock.passed = second - 60.0
        if second == 0:
            app.link._take(scenes.busy(NOW))
            app.link._take(JobChanged(job=replace(scenes.running_job(NOW), status="queued", started_at=None)))
            app.link._take(JobChanged(job=first))
        if second == 30:
            app.link._take(JobChanged(job=ended))
            line = LogLine(seq=900, at=NOW - 30, event="floor", text="job 40 ended +0 B", memory=True)
            app.link._take(Logged(line=line))
            app.link._take(JobChanged(job=scenes.running_job(NOW)))
        balance = scenes.gpu_balance(clock.wall(), live=3.0 if second >= 30 else 20.0)
        app.link._take(MemorySampled(device=scenes.gpu(NOW, balance)))
        app.link.history(scenes.GPU).add(balance, clock.wall())
    clock.passed = 0.0
    await live(pilot)


async def press(pilot: Any, *keys: str) -> None:
    await pilot.press(*keys)
    await pilot.pause()


async def go_to_event_before(pilot: Any) -> None:
    before = pilot.app.dashboard.past_at
    await press(pilot, "less_than_sign")
    await until(pilot, lambda: pilot.app.dashboard.past_at != before, "an earlier event")


def picture(app: TurboApp) -> list[str]:
    """Everything of the moment; of the graph without its title and the times, where now goes on."""
    graph = panel_text(app, "history").splitlines()[1:-2]
    return graph + [panel_text(app, name) for name in ("memory", "queue", "log", "models", "card")]


async def test_the_cursor_brings_back_what_was_seen(console: Console, clock: Clock) -> None:
    app = console([scenes.busy(NOW)])
    async with app.run_test(size=WIDE) as pilot:
        await last_minute(pilot, clock)
        await press(pilot, "2")
        await burst(pilot, *["left"] * 40)
        text = screen_text(app)
        assert "14:12:40, 40s ago" in text or "14:12:40, 39s ago" in text
        assert text.count("14:12:40") >= 7  # the header, the axis and every panel
        assert "40 ▶" in panel_text(app, "queue") and "41 ·" in panel_text(app, "queue")
        assert "live 20.0" in panel_text(app, "memory")
        assert "job 40 ended" not in panel_text(app, "log")
        # What comes meanwhile changes nothing of it.
        before = picture(app)
        clock.passed = 5.0
        app.link._take(MemorySampled(device=scenes.gpu(NOW, scenes.gpu_balance(NOW, live=40.0))))
        app.dashboard.tick()
        await pilot.pause()
        assert picture(app) == before and "44s ago" in panel_text(app, "history")
        await press(pilot, "0")
        assert app.dashboard.past_at is None and "live 40.0" in panel_text(app, "memory")
        assert "ago" not in panel_text(app, "history") and "job 40 ended" in panel_text(app, "log")


async def test_events_are_gone_to_and_told(console: Console, clock: Clock) -> None:
    app = console([scenes.busy(NOW)])
    async with app.run_test(size=WIDE) as pilot:
        await last_minute(pilot, clock)
        await press(pilot, "2", "less_than_sign")
        await until(pilot, lambda: app.dashboard.past_at is not None, "an event")
        assert app.dashboard.past_at == NOW - 24
        assert "14:12:56 job 41 wan2.2-a14b began" in panel_text(app, "history")
        await press(pilot, "less_than_sign")
        await until(pilot, lambda: app.dashboard.past_at == NOW - 30, "the end of job 40")
        assert "job 40 wan2.2-a14b done" in panel_text(app, "history")
        assert "job 40 ended" in panel_text(app, "log")
        await press(pilot, "greater_than_sign")
        await until(pilot, lambda: app.dashboard.past_at == NOW - 24, "the next")
        await press(pilot, "greater_than_sign")
        await until(pilot, lambda: app.dashboard.past_at is None, "now")


async def test_nothing_acts_on_what_is_over_and_escape_goes_back(console: Console, clock: Clock) -> None:
    client = scripted(scenes.busy(NOW))
    app = console(client, restart_engine=lambda: None)
    async with app.run_test(size=WIDE) as pilot:
        await last_minute(pilot, clock)
        await press(pilot, "2", "left", "left", "4")
        for key in ("m", "a", "u", "f", "x", "r", "d", "h", "plus", "C", "K", "R", "E", "X", "W", "P"):
            app.say("-")
            await press(pilot, key)
            assert len(app.screen_stack) == 1 and "nothing acts on what is over" in screen_text(app), key
        assert {name for name, *_rest in client.asked} <= {"hello", "history", "last_check", "subscribe"}
        await press(pilot, "exclamation_mark")
        assert screen_text(app).count("14:13:18 is shown: nothing") >= 4
        await press(pilot, "escape", "m")
        assert "nothing acts on what is over" in panel_text(app, "receipt")
        await press(pilot, "0")
        assert "nothing acts" not in panel_text(app, "receipt")  # it is not true any more
        await press(pilot, "2", "left", "left", "4", "exclamation_mark")
        await press(pilot, "escape", "left")
        # From another panel the arrows go on, and escape ends it rather than the console.
        assert app.dashboard.past_at == pytest.approx(NOW - 2.0, abs=0.01)
        await press(pilot, "escape")
        assert app.dashboard.past_at is None and app.is_running
        await press(pilot, "left")
        assert app.dashboard.past_at is None  # the queue has no use for it


async def test_lists_stand_as_they_stood_once_it_is_now_again(console: Console, clock: Clock) -> None:
    app = console([scenes.busy(NOW)])
    async with app.run_test(size=WIDE) as pilot:
        await last_minute(pilot, clock)
        await press(pilot, "6", "up", "up", "4", "down", "down")
        queue, log = app.dashboard.query_one(QueuePanel), app.dashboard.query_one(LogPanel)
        before = (queue.bookmark(), log.bookmark())
        await press(pilot, "2")
        await burst(pilot, *["left"] * 40)
        await press(pilot, "4", "down", "6", "up")
        assert (queue.bookmark(), log.bookmark()) != before
        await press(pilot, "left")
        assert log.following
        await press(pilot, "0")
        assert (queue.bookmark(), log.bookmark()) == before


async def test_the_mouse_puts_and_moves_it(console: Console, clock: Clock) -> None:
    app = console([scenes.busy(NOW)])
    async with app.run_test(size=WIDE) as pilot:
        await last_minute(pilot, clock)
        panel = app.dashboard.query_one(HistoryPanel)
        await pilot.click(panel, offset=(2 + 6 + panel.count - 11, 3))
        await pilot.pause()
        assert app.dashboard.cursor.column == NOW - 10
        panel.on_mouse_scroll_up(None)  # type: ignore[arg-type]
        assert app.dashboard.cursor.column == NOW - 11
        panel.on_mouse_scroll_down(None)  # type: ignore[arg-type]
        assert app.dashboard.cursor.column == NOW - 10
        await pilot.click(panel, offset=(2 + 6 + panel.count - 1, 3))
        assert app.dashboard.past_at is None


@pytest.mark.parametrize("size", [WIDE, SMALL])
async def test_further_back_it_is_read_from_the_recording(
    console: Console, clock: Clock, recorded: Path, size: tuple[int, int]
) -> None:
    app = console([scenes.busy(NOW)], recordings=recorded)
    async with app.run_test(size=size) as pilot:
        await live(pilot)
        await press(pilot, "2", "(", "(", "(")
        await until(pilot, lambda: "▲ 84.5 GiB" in panel_text(app, "history"), "the spike of the night")
        assert "10 min a column" in screen_text(app) and "08:00" in panel_text(app, "history")
        await until(pilot, lambda: "!" in panel_text(app, "history"), "the failure's mark")
        app.dashboard._go(replace(app.dashboard.cursor, at=FAILED - 20, last=int(NOW // 600)))
        await until(pilot, lambda: app.dashboard.archive.told(FAILED - 20) is not None, "the moment")
        app.dashboard.tick()
        await pilot.pause()
        await press(pilot, "4" if size == SMALL else "2")
        assert "31 ▶" in panel_text(app, "queue")
        await press(pilot, "5")
        assert "liwei" in panel_text(app, "card") and "python ComfyUI" in panel_text(app, "card")
        await press(pilot, "2", "greater_than_sign")
        await until(pilot, lambda: app.dashboard.past_at == FAILED, "the failure")
        await until(pilot, lambda: "out of memory" in panel_text(app, "history"), "what it was")


async def test_of_a_gap_the_reason_is_told_and_nothing_is_made_up(
    console: Console, clock: Clock, recorded: Path
) -> None:
    app = console([scenes.busy(NOW)], recordings=recorded)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await press(pilot, "2", "(", "(")
        app.dashboard._go(replace(app.dashboard.cursor, at=STOPPED + 1800, last=int((STOPPED + 3000) // 60)))
        await until(
            pilot, lambda: "08:13:20 to 09:13:20: no engine ran" in panel_text(app, "history"), "the reason"
        )
        await until(pilot, lambda: "no engine ran" in panel_text(app, "queue"), "the moment")
        for name in ("memory", "models", "card"):
            assert "no engine ran" in panel_text(app, name) and "GiB used" not in panel_text(app, name)
        assert "the engine stopped" in panel_text(app, "log")


async def test_the_models_lie_where_they_lay_and_of_the_gpu_that_is_looked_at(
    console: Console, clock: Clock, recorded: Path
) -> None:
    app = console([scene_gpus.shared(NOW, 2)], recordings=recorded)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        assert re.search(r"dit\.low +● gpu", panel_text(app, "models"))
        await press(pilot, "2", "(")
        app.dashboard._go(replace(app.dashboard.cursor, at=CAME + 60, last=int((CAME + 600) // 10)))
        await until(pilot, lambda: "● wan2.1-1.3b" in panel_text(app, "models"), "the moment")
        models = panel_text(app, "models")
        assert re.search(r"dit +● gpu", models) and "dit.low" not in models
        assert app.dashboard.query_one("#models").view.state.chosen_device is None  # type: ignore[attr-defined]
        await press(pilot, "]")
        chosen = app.link.state.chosen_device
        assert chosen is not None
        assert app.dashboard.query_one("#models").view.state.chosen_device == chosen  # type: ignore[attr-defined]


@pytest.mark.parametrize(("size", "names"), [(WIDE, ("models", "queue")), (SMALL, ("running",))])
async def test_what_no_engine_has_told_of_a_moment_is_not_made_up(
    console: Console, size: tuple[int, int], names: tuple[str, ...]
) -> None:
    """A recorder that has written the devices' first second, and nothing of the engine yet."""
    app = console([scenes.busy(NOW)])
    state = ConsoleState(link="connected", devices=(scenes.gpu(NOW),))
    async with app.run_test(size=size) as pilot:
        await live(pilot)
        app.dashboard.archive.told = lambda at: Told(state=state)  # type: ignore[method-assign]
        app.dashboard._go(replace(app.dashboard.cursor, at=NOW - 40))
        for name in names:
            assert "it is not known how things stood then" in panel_text(app, name)
        assert "weights 13.7" in panel_text(app, "memory")


async def test_from_now_the_event_before_is_found_in_the_recording(
    console: Console, clock: Clock, recorded: Path
) -> None:
    app = console([replace(scenes.busy(NOW), jobs=(), receipt=None)], recordings=recorded)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await press(pilot, "2")
        for _ in range(12):
            await go_to_event_before(pilot)
            if app.dashboard.past_at == CAME:
                break
        assert app.dashboard.past_at == CAME
        await until(
            pilot, lambda: "liwei 90112 python ComfyUI main.py appeared" in panel_text(app, "history"), "told"
        )


async def test_a_key_is_on_the_screen_at_once_while_the_disk_is_read(
    console: Console, clock: Clock, recorded: Path
) -> None:
    app = console([scenes.busy(NOW)], recordings=recorded)
    slow = Recording(recorded)
    read = slow.entries

    def entries(*where: Any, **names: Any) -> Any:
        time.sleep(0.3)
        return read(*where, **names)

    slow.entries = entries  # type: ignore[method-assign]
    app.find_recording = lambda: slow  # type: ignore[method-assign]
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await press(pilot, "2", "(", "(", "(")
        began = time.monotonic()
        for _ in range(5):
            app.dashboard.step(-1)
        assert time.monotonic() - began < 0.25
        await pilot.pause()
        assert "reading the recording" in screen_text(app) and "13:30" in panel_text(app, "history")


async def test_chinese_full_width_twins_and_help(console: Console, clock: Clock) -> None:
    app = console([scenes.busy(NOW)], language="zh_CN")
    async with app.run_test(size=WIDE) as pilot:
        await last_minute(pilot, clock)
        await press(pilot, "2", "（")
        assert "每列 10 s" in panel_text(app, "history")
        await press(pilot, "）", "left")
        assert "前" in panel_text(app, "history") and app.dashboard.past_at is not None
        await press(pilot, "０")
        assert app.dashboard.past_at is None


# ------------------------------------------------------------------ in a replay


@pytest.fixture
def replay(recorded: Path) -> ReplayApp:
    recording = Recording(recorded)
    since, end = CAME - 60, CAME + 200
    clock = ReplayClock(since, end, speed=0.1)
    events = tuple(entry.at for entry in recording.entries(since, end) if is_event(entry))
    return ReplayApp(
        lambda: ReplayClient(recording, clock),
        clock=clock,
        events=events,
        where="me@box",
        recordings=recorded,
    )


async def test_in_a_replay_the_history_s_keys_look_back_from_its_own_moment(replay: ReplayApp) -> None:
    async with replay.run_test(size=WIDE) as pilot:
        await live(pilot)
        await press(pilot, "space")
        replay.clock.jump(CAME + 100)
        await until(pilot, lambda: "liwei" in panel_text(replay, "card"), "the neighbour")
        await press(pilot, "2", *["left"] * 5)
        assert replay.clock.now() == CAME + 100  # the player stands where it is
        assert replay.dashboard.past_at == pytest.approx(CAME + 96, abs=1.1)
        for _ in range(4):
            await go_to_event_before(pilot)
            if replay.dashboard.past_at == CAME:
                break
        assert replay.dashboard.past_at == CAME
        await press(pilot, "left", "left")
        await until(pilot, lambda: "worker (ours)" in panel_text(replay, "card"), "the moment")
        replay.dashboard.tick()
        assert "liwei" not in panel_text(replay, "card")
        assert "REPLAY" in screen_text(replay) and "ago" in panel_text(replay, "history")
        # Enter goes on from there, and the player has its keys again elsewhere.
        await press(pilot, "enter")
        assert replay.dashboard.past_at is None
        assert replay.clock.now() == pytest.approx(CAME - 1.0, abs=0.01)
        await press(pilot, "4", "greater_than_sign")
        assert replay.clock.now() == CAME
