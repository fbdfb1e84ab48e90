"""The dashboard as a person meets it: its states, its keys, and what a hostile text may do to it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from textual.widgets import TextArea

from engine.errors import EngineUnavailable, NotNow
from engine.wire import (
    ActionProgressed,
    CleanupRequest,
    JobMove,
    Logged,
    LogLine,
    MemorySampled,
    ModelsChanged,
    Receipt,
    ReceiptIssued,
    ReceiptStep,
    SwitchRequest,
    UnloadRequest,
    WarmRequest,
)
from turbotui.app import TurboApp
from turbotui.client import scenes
from turbotui.client.script import Step
from turbotui.client.scripted import ScriptedClient
from turbotui.format import cell_width
from turbotui.screens.choices import ChoicePanel
from turbotui.text import t, texts_of
from turbotui.widgets.lines import LinePanel
from turbotui.widgets.log import LogPanel
from turbotui.widgets.queue import QueuePanel

from .conftest import NOW, SMALL, WIDE, Clock, burst, live, panel_text, screen_text, scripted, until

Build = Callable[..., TurboApp]
LOOKING = {"hello", "history", "last_check"}
"""What a console asks by itself."""
HOSTILE = "\x1b]0;owned\x07\x1b[31mred[/]\u202egnp.exe\u200b\x9b2J[bold]a\tb\r\nc\x00"


async def test_everything_is_in_sight_at_120x36(console: Build) -> None:
    app = console([scenes.busy(NOW)])
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        text = screen_text(app)
    for part in ("me@gpubox01", "GPU 2 H200", "● live", "up 3d04h", "▶41", "38.7 of 140.4 GiB used"):
        assert part in text, part
    for part in ("unseen 14.0", "1 Memory", "2 History", "3 Models", "4 Queue", "5 On the card", "6 Log"):
        assert part in text, part
    for part in ("wan2.2-a14b", "◌ warm 100 %", "● gpu", "leased", "liwei", "harbour at dawn"):
        assert part in text, part
    assert "✓ unload wan2.1-1.3b  expected 2.64 GiB  back 2.64 GiB by NVML  residue 0  24 ms" in text


async def test_at_80x24_a_number_changes_the_middle_and_the_rest_stays(console: Build) -> None:
    app = console([scenes.busy(NOW)])
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        for key, heading in (("3", "3 Models"), ("4", "4 Queue"), ("5", "5 On the card"), ("2", "2 History")):
            await pilot.press(key)
            text = screen_text(app)
            assert f"╭ {heading}" in text
            assert text.count("╭") == 1
            for part in ("38.7/140.4 GiB", "▶41 wan2.2-a14b", "6 Log", "✓ unload", "m model"):
                assert part in text, (key, part)
        await pilot.press("6")
        assert "╭ 6 Log" in screen_text(app)


async def test_too_small_says_which_size_it_needs_and_recovers(console: Build) -> None:
    app = console([scenes.busy(NOW)])
    async with app.run_test(size=(59, 17)) as pilot:
        await live(pilot)
        text = screen_text(app)
        assert "60 columns and 18 lines" in text and "59 by 17" in text
        assert "Memory" not in text
        await pilot.resize_terminal(60, 18)
        await pilot.pause(0.2)
        assert "History" in screen_text(app)


async def test_the_first_picture_does_not_wait_for_the_engine(console: Build, clock: Clock) -> None:
    def nothing_yet() -> ScriptedClient:
        raise EngineUnavailable("no engine")

    app = TurboApp(nothing_yet, wall=clock.wall, monotonic=clock.monotonic, where="me@box")
    async with app.run_test(size=WIDE) as pilot:
        await pilot.pause()
        text = screen_text(app)
        assert "1 Memory" in text and "waiting for the engine" in text
        assert "starting" in text or "lost" in text


async def test_a_first_run_says_what_to_press(console: Build, clock: Clock) -> None:
    client = scripted(scenes.first_run(NOW))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        text = screen_text(app)
        assert "No models." in text and "D: demo models (20 s)" in text
        assert "a writes your first prompt" in text
        assert "worker warming 7 of 12 s" in text
        assert "ours 412 MiB of the host" in text
        clock.passed = 30.0
        app.dashboard.tick()
        await pilot.pause()
        assert "worker warming 37 s" in screen_text(app), "of twelve it is no more"
        await pilot.press("a")
        assert "D makes the demo models" in screen_text(app)
        await pilot.press("D")
        await until(pilot, lambda: ("make_demo_models",) in client.asked)


async def test_a_small_terminal_says_what_to_press_too(console: Build) -> None:
    app = console([scenes.first_run(NOW)])
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        await pilot.press("2")
        assert "No models." in panel_text(app, "running")
        assert "D: demo models (20 s)" in panel_text(app, "running")
    app = console([replace(scenes.idle(NOW), jobs=())])
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        await pilot.press("2")
        assert panel_text(app, "running").split() == "nothing runs a writes a job".split()


@pytest.mark.parametrize("language", ["en", "zh_CN"])
async def test_at_80x24_signs_and_words_are_apart_and_a_floor_is_told_to_its_end(
    console: Build, language: str
) -> None:
    texts = texts_of(language)
    app = console([scenes.cpu(NOW)], language=language)
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        legend = panel_text(app, "memory")
        assert f"x {texts['part.runtime']} " in legend and f"o {texts['part.others']} " in legend
        assert f" 5 {texts['tab.processes']} " in panel_text(app, "tabs")
    app = console([scenes.busy(NOW)], language=language)
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        assert f" 5 {texts['tab.card']} " in panel_text(app, "tabs")
        await pilot.press("6")
        app.dashboard.tick()
        await pilot.pause()
        assert "job 39 left +0 B; last 20 jobs +0.0 MiB a job" in panel_text(app, "log")


async def test_at_80x24_one_sees_that_the_bar_has_the_focus(console: Build) -> None:
    app = console([scenes.busy(NOW)])
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        marked = []
        for key in ("1", "2"):
            await pilot.press(key)
            await pilot.pause()
            bar = app.dashboard.query_one("#memory").render_line(0)
            marked.append(any(segment.style is app.paint.chosen_tab for segment in bar))
        assert marked == [True, False]


async def test_at_80x24_a_proved_switch_still_says_how_long_it_took(console: Build) -> None:
    before = scenes.busy(NOW).receipt
    assert before is not None
    receipt = replace(before, action="switch", target="wan2.1-1.3b", loaded_bytes=3 * 2**30)
    app = console([replace(scenes.busy(NOW), receipt=receipt)])
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        text = panel_text(app, "receipt")
        assert "back 2.64 GiB / 2.64 GiB  24 ms" in text, text
        unproved = replace(receipt, residue_bytes=2**30, residue=("dit",))
        app.link.state = replace(app.link.state, receipt=unproved)
        app.dashboard.tick()
        assert "expected 2.64 GiB" in panel_text(app, "receipt"), "what is left is never said in fewer words"


async def test_at_80x24_the_step_under_way_is_in_sight_with_its_bytes(console: Build, clock: Clock) -> None:
    app = console([scenes.idle(NOW)])
    done = threading.Event()
    try:
        async with app.run_test(size=SMALL) as pilot:
            await live(pilot)
            label = t("doing.switch", name="wan2.2-a14b")
            app.ask(label, lambda _client: done.wait(20), given_up_by="cancel_switch")
            step = ReceiptStep(
                name="load wan2.2-a14b/dit.high", bytes=5 * 2**30, total_bytes=13 * 2**30, elapsed_s=0.3
            )
            app.link._take(ActionProgressed(action="switch", target="wan2.2-a14b", step=step))
            clock.passed = 2.0
            app.dashboard.tick()
            await pilot.pause()
            line = panel_text(app, "receipt")
            assert "2.0 s  ctrl+x" in line and "▸ load dit.high 5.00 GiB / 13.0 GiB" in line, line
    finally:
        done.set()


async def test_a_warming_that_takes_longer_than_expected_promises_nothing(console: Build) -> None:
    first = scenes.first_run(NOW)
    late = replace(first.status.engine.nursery, elapsed_s=15.0)
    engine = replace(first.status.engine, nursery=late)
    app = console([replace(first, status=replace(first.status, engine=engine))])
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        assert "worker warming 15 s" in screen_text(app)


async def test_silence_is_shown_as_stale_with_its_age(console: Build, clock: Clock) -> None:
    app = console([scenes.busy(NOW)])
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        clock.passed = 7.2
        app.dashboard.tick()
        await pilot.pause()
        assert "◌ stale 7.2s" in screen_text(app)
        # The panels go grey, so that nobody takes an old picture for a new one.
        bar = app.dashboard.query_one("#memory").render_line(1)
        assert app.paint.part["weights"] not in [segment.style for segment in bar]


async def test_a_lost_engine_keeps_its_picture_and_comes_back_by_itself(clock: Clock) -> None:
    first, second = scripted(scenes.busy(NOW)), scripted(scenes.idle(NOW))
    clients = [first]
    app = TurboApp(lambda: clients[0], wall=clock.wall, monotonic=clock.monotonic, where="me@box")
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        clients[0] = scripted()
        clients[0]._answers["hello"] = EngineUnavailable("no engine runs")
        first.end()
        await until(pilot, lambda: app.link.state.link == "lost")
        app.dashboard.tick()
        await pilot.pause()
        text = screen_text(app)
        assert "✗ lost 14:13:20" in text and "trying again in" in text
        assert "E restarts the engine  4 jobs are safe in the queue" in text
        assert "harbour at dawn" in text
        await pilot.press("f")
        assert "no engine answers; E restarts it" in screen_text(app)
        clients[0] = second
        await until(pilot, lambda: app.link.state.link == "connected")
        await until(pilot, lambda: not app.link.state.waiting)
        app.dashboard.tick()
        assert "● live" in screen_text(app)


async def test_restarting_asks_first_with_cancel_chosen(console: Build) -> None:
    restarted: list[bool] = []
    app = console([scenes.busy(NOW)], restart_engine=lambda: restarted.append(True))
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("E")
        await pilot.pause()
        text = screen_text(app)
        assert "Restart the engine?" in text and "pid 70001" in text and "pid 81223" in text
        assert "Job 41 is interrupted" in text and "me@gpubox01" in text
        await pilot.press("enter")
        assert restarted == [] and "Restart the engine?" not in screen_text(app)
        await pilot.press("E")
        await pilot.pause()
        await pilot.press("right", "enter")
        await until(pilot, lambda: restarted == [True])


async def test_an_engine_of_another_build_is_named_and_a_restart_offered(console: Build) -> None:
    for build, said in (("0.2.0", True), ("scripted", False)):
        app = console([scenes.busy(NOW)], build=build)
        async with app.run_test(size=WIDE) as pilot:
            await live(pilot)
            text = panel_text(app, "receipt")
            assert (
                "E restarts the engine, best at rest: it is build scripted, this console 0.2.0" in text
            ) is said


async def test_read_only_does_nothing_and_says_so(console: Build) -> None:
    client = scripted(scenes.busy(NOW))
    app = console(client, read_only=True)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        for key in ("x", "f", "u", "m", "a", "r", "D", "E"):
            await pilot.press(key)
            assert "read-only: this console only looks" in screen_text(app)
        # Enter on a model would open the switch, and whatever a screen asks for itself is refused as well.
        await pilot.press("3", "enter")
        assert app.screen is app.dashboard
        refused: list[str] = []
        app.ask("free", lambda engine: engine.free(), failed=refused.append)
        await until(pilot, lambda: bool(refused), "a refusal")
        assert refused == ["read-only: this console only looks"]
        assert {call[0] for call in client.asked} <= LOOKING


KEYS_AND_QUESTIONS: list[tuple[list[str], tuple[Any, ...]]] = [
    (["x"], ("cancel", 41)),
    (["j", "x"], ("cancel", 42)),
    (["3", "x", "x"], ("cancel", 41)),
    (["f"], ("free",)),
    (["'"], ("switch", SwitchRequest(model="wan2.1-1.3b"))),
    (["＇"], ("switch", SwitchRequest(model="wan2.1-1.3b"))),
    (["G", "r"], ("retry", 30)),
    (["j", "d"], ("duplicate", 42)),
    (["j", "h"], ("hold", 42, True)),
    (["j", "j", "-"], ("move", 43, JobMove(position=3))),
    (["j", "j", "+"], ("move", 43, JobMove(position=1))),
    (["o"], ("resume_queue",)),
    (["m", "enter"], ("switch", SwitchRequest(model="wan2.1-1.3b"))),
    (["m", "-", "1", "4", "b", "enter"], ("switch", SwitchRequest(model="wan2.1-14b"))),
    (["3", "u"], ("unload", UnloadRequest(model="wan2.2-a14b"))),
    (["3", "j", "j", "u"], ("unload", UnloadRequest(model="wan2.2-a14b", component="dit.low"))),
    (["u", "enter"], ("unload", UnloadRequest())),
    (["u", "down", "down", "enter"], ("unload", UnloadRequest(model="wan2.2-a14b", component="dit.low"))),
    (["D"], ("make_demo_models",)),
    (["P"], ("park",)),
    (["C", "right", "enter"], ("cleanup", CleanupRequest(reload=True))),
    (["C", "left", "enter"], ("cleanup", CleanupRequest(reload=False))),
    (["3", "W"], ("warm", WarmRequest(model="wan2.2-a14b"))),
    (["3", "j", "W"], ("drop_warm", WarmRequest(model="wan2.2-a14b", component="dit.high"))),
    (["3", "j", "j", "j", "j", "W"], ("warm", WarmRequest(model="wan2.2-a14b", component="vae"))),
    (
        ["W", "1", "4", "b", "down", "down", "down", "down", "down", "enter"],
        ("warm", WarmRequest(model="wan2.1-14b")),
    ),
    (["W", "g", "o", "enter"], ("drop_warm", WarmRequest())),
]


async def test_each_key_asks_the_engine_for_what_is_chosen(console: Build) -> None:
    client = scripted(scenes.busy(NOW))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        for keys, asked in KEYS_AND_QUESTIONS:
            client.asked.clear()
            await burst(pilot, "3", "g", "4", "g")
            await pilot.press(*keys)
            await until(pilot, lambda expected=asked: expected in client.asked, f"{keys}: {asked}")  # type: ignore[misc]
            # What a dialog asks ahead, to show it, does nothing.
            done = [call for call in client.asked if call[0] != "explain_switch"]
            assert done == [asked], keys


async def test_a_refusal_is_shown_in_its_own_words(console: Build) -> None:
    client = scripted(scenes.busy(NOW), cancel=NotNow("job 41 has ended; nothing to cancel"))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("x")
        await until(pilot, lambda: "! job 41 has ended; nothing to cancel" in screen_text(app))


async def test_a_call_that_hangs_shows_its_seconds_and_does_not_keep_the_console(
    console: Build, clock: Clock
) -> None:
    import threading

    release = threading.Event()
    client = scripted(scenes.busy(NOW), free=lambda: release.wait(30))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("f")
        clock.passed = 2.0
        app.dashboard.tick()
        await pilot.pause()
        assert "freeing  2.0 s" in screen_text(app)
        await pilot.press("q")
        await pilot.pause()
        assert not app.is_running or app._exit
    assert not release.is_set()
    release.set()


async def test_a_new_receipt_takes_the_last_line_and_green_needs_proof(console: Build) -> None:
    client = scripted(scenes.busy(NOW))
    app = console(client)
    weak = Receipt(
        action="free",
        target="",
        ok=True,
        expected_bytes=2**30,
        returned_bytes=2**29,
        residue_bytes=2**29,
        residue=("fragmented",),
        elapsed_s=0.5,
        proof="device-delta",
        proof_reason="NVML shows no processes here",
    )
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        line = app.dashboard.query_one("#receipt")
        strong = [segment.style for segment in line.render_line(0) if "✓" in segment.text]
        client.push(ReceiptIssued(receipt=weak))
        await until(pilot, lambda: "free" in panel_text(app, "receipt"))
        text = panel_text(app, "receipt")
        assert "back 512 MiB by device  residue 512 MiB (fragmented)" in text
        assert "NVML shows no processes here" in text
        weaker = [segment.style for segment in line.render_line(0) if "✓" in segment.text]
        assert strong == [app.paint.proof] and app.paint.proof not in weaker


async def test_a_failed_receipt_says_why(console: Build) -> None:
    client = scripted(scenes.busy(NOW))
    app = console(client)
    bad = Receipt(
        action="switch", target="x", ok=False, error="file is cut short", elapsed_s=1.0, proof="allocator"
    )
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        client.push(ReceiptIssued(receipt=bad))
        await until(pilot, lambda: "! switch x  file is cut short" in panel_text(app, "receipt"))


async def test_hostile_text_reaches_no_cell_of_the_screen(console: Build) -> None:
    snapshot = scenes.busy(NOW)
    job = snapshot.jobs[3]
    hostile = replace(
        snapshot,
        jobs=(*snapshot.jobs[:3], replace(job, spec=replace(job.spec, prompt=HOSTILE, model=HOSTILE))),
        log=(LogLine(seq=1, at=NOW, event=HOSTILE, text=HOSTILE, memory=True),),
        status=replace(
            snapshot.status,
            models=tuple(replace(m, name=m.name + HOSTILE, problem=HOSTILE) for m in snapshot.status.models),
            devices=(
                replace(
                    scenes.gpu(NOW),
                    name=HOSTILE,
                    processes=(replace(scenes.gpu(NOW).processes[1], command=HOSTILE, user=HOSTILE),),
                ),
            ),
        ),
    )
    app = console([hostile])
    forbidden = {"\x1b", "\x07", "\x9b", "\u202e", "\u200b", "\x00", "\t", "\r"}
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("j")
        for keys in ([], ["enter"], ["escape", "m"], ["escape", "6", "enter"], ["escape", "question_mark"]):
            await pilot.press(*keys)
            await pilot.pause()
            text = screen_text(app)
            assert not forbidden & set(text), keys
            assert all(cell_width(row) == WIDE[0] for row in text.split("\n"))
        await pilot.press("escape")
        # Markup is text, not style.
        assert "[bold]a" in panel_text(app, "log")


async def test_chinese_prompts_keep_the_columns_after_them_aligned(console: Build) -> None:
    app = console([scenes.busy(NOW)])
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        rows = panel_text(app, "queue").split("\n")
    chinese = next(row for row in rows if "一只猫在雪地里跑" in row)
    english = next(row for row in rows if "harbour" in row)
    assert cell_width(chinese) == cell_width(english)
    assert cell_width(chinese[: chinese.index("peak")]) == cell_width(english[: english.index("peak")])


async def test_the_cursor_stays_on_its_job_when_the_queue_moves(console: Build) -> None:
    client = scripted(scenes.busy(NOW))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("j", "j")
        from engine.wire import JobsReordered

        client.push(JobsReordered(job_ids=(44, 42, 43)))
        await until(pilot, lambda: app.link.state.waiting[0].id == 44)
        await pilot.press("x")
        await until(pilot, lambda: ("cancel", 43) in client.asked)


async def test_pausing_freezes_the_picture_while_the_state_goes_on(console: Build) -> None:
    client = scripted(scenes.busy(NOW))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("p")
        assert "History, paused" in screen_text(app)
        client.push(ModelsChanged(models=()))
        await until(pilot, lambda: app.link.state.models == ())
        assert "wan2.1-14b" in panel_text(app, "models")
        await pilot.press("p")
        assert "No models." in panel_text(app, "models")


async def test_what_is_not_loaded_is_not_unloaded(console: Build) -> None:
    client = scripted(scenes.busy(NOW))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("3", "j", "u")
        assert "nothing of wan2.2-a14b/dit.high is loaded" in panel_text(app, "receipt")
        await pilot.press("G", "u")
        assert "nothing of wan2.1-14b is loaded" in panel_text(app, "receipt")
        assert not [call for call in client.asked if call[0] == "unload"]


@pytest.mark.parametrize(
    ("key", "said"), [("u", "nothing of wan2.2-a14b is loaded"), ("W", "there are no models")]
)
async def test_a_model_that_is_gone_and_still_drawn_is_asked_for_nothing(
    console: Build, key: str, said: str
) -> None:
    client = scripted(scenes.busy(NOW))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("3", "p")
        client.push(ModelsChanged(models=()))
        await until(pilot, lambda: app.link.state.models == ())
        await pilot.press(key)
        assert said in panel_text(app, "receipt").lower()
        assert not [call for call in client.asked if call[0] in ("unload", "warm", "drop_warm")]


async def test_the_axis_changes_by_key_and_not_by_the_data(console: Build) -> None:
    client = scripted(scenes.busy(NOW))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        before = panel_text(app, "history").split("\n")[0]
        big = replace(scenes.gpu(NOW), balance=scenes.gpu_balance(NOW, live=90.0))
        client.push(MemorySampled(device=big))
        await until(pilot, lambda: app.link.state.device == big)
        app.dashboard.tick()
        after = panel_text(app, "history").split("\n")
        assert "▲ 126 GiB" in after[0] and "to 64 GiB" in before and "to 64 GiB" in after[0]
        await pilot.press("2", "z")
        assert "all of 140 GiB" in panel_text(app, "history")
        rows = panel_text(app, "history").splitlines()
        assert "140┤" in rows[1] and not any(f"{above}┤" in row for row in rows for above in (160, 200))


async def test_the_log_filters_and_letters_are_letters_meanwhile(console: Build) -> None:
    client = scripted(scenes.busy(NOW))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("slash", "x", "q", "backspace", "backspace", "e", "v", "i", "c", "enter")
        text = panel_text(app, "log")
        assert "/evic" in text and "text 10.6 GiB" in text and "floor" not in text
        assert app.is_running and {call[0] for call in client.asked} <= LOOKING
        await pilot.press("escape")
        assert "floor" in panel_text(app, "log")


async def test_the_log_shows_memory_lines_first_and_all_on_a_key(console: Build) -> None:
    app = console([scenes.busy(NOW)])
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        assert "41 started" not in panel_text(app, "log")
        await pilot.press("6", "A")
        assert "41 started" in panel_text(app, "log")


async def test_looking_back_in_the_log_stops_following_until_asked(console: Build) -> None:
    client = scripted(scenes.busy(NOW))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("6", "k", "k")
        for seq in (100, 101):
            client.push(Logged(line=LogLine(seq=seq, at=NOW, event="x", text=f"line {seq}", memory=True)))
        await until(pilot, lambda: "2 new" in panel_text(app, "log"))
        await pilot.press("F")
        text = panel_text(app, "log")
        assert "line 101" in text and "following" in text


async def test_a_job_page_shows_all_of_it_and_copies_its_path(console: Build) -> None:
    app = console([scenes.busy(NOW)])
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("G", "enter")
        text = screen_text(app)
        for part in ("Job 30  done", "a lighthouse in fog", "/home/me/Videos/turbotui/30.mp4", "took 13 s"):
            assert part in text, part
        await pilot.press("y")
        assert app.clipboard == "/home/me/Videos/turbotui/30.mp4"
        await pilot.press("q")
        assert "Job 30  done" not in screen_text(app)


async def test_the_help_lists_every_key(console: Build) -> None:
    app = console([scenes.busy(NOW)], keys={"free": "F5"})
    async with app.run_test(size=(120, 50)) as pilot:
        await live(pilot)
        await pilot.press("？")
        text = screen_text(app)
        for key in ("help.switch", "help.restart", "help.follow", "help.later"):
            assert t(key)[:20] in text
        assert "F5" in text


async def test_a_key_can_be_another_one(console: Build) -> None:
    client = scripted(scenes.busy(NOW))
    app = console(client, keys={"free": "b"})
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("f")
        assert {call[0] for call in client.asked} <= LOOKING
        await pilot.press("b")
        await until(pilot, lambda: ("free",) in client.asked)
        assert "b free" in panel_text(app, "keys")


async def test_leaving_says_that_the_engine_goes_on(console: Build) -> None:
    app = console([scenes.busy(NOW)])
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("q")
        await pilot.pause()
    assert app.leaving_line == "engine goes on with job 41, 3 waiting"
    assert app.return_code == 0


async def test_escape_at_the_top_does_not_leave(console: Build) -> None:
    app = console([scenes.busy(NOW)])
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("escape")
        await pilot.pause()
        assert app.is_running and not app._exit


async def test_the_palette_offers_actions_themes_and_languages(console: Build) -> None:
    client = scripted(scenes.busy(NOW))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        titles = [command.title for command in app.get_system_commands(app.screen)]
        assert "Free now  (f)" in titles and "Theme: light" in titles and "Language: zh_CN" in titles
        await pilot.press("colon")
        await pilot.pause()
        assert "CommandPalette" in type(app.screen).__name__
        await pilot.press("escape")
        offered = {command.title: command.callback for command in app.get_system_commands(app.dashboard)}
        offered["Theme: light"]()
        await pilot.pause()
        assert 'theme = "light" under [console]' in panel_text(app, "receipt"), "gone at the next start"
        offered["Language: zh_CN"]()
        await pilot.pause()
        assert app.paint.palette.name == "light" and "权重" in screen_text(app)
        assert 'language = "zh_CN"' in panel_text(app, "receipt")


async def test_a_picture_that_did_not_change_marks_no_cell(
    console: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = scripted(scenes.busy(NOW))
    app = console(client)
    drawn: list[str | None] = []
    refresh = LinePanel.refresh

    def counted(self: LinePanel, *regions: Any, **settings: Any) -> Any:
        drawn.append(self.id)
        return refresh(self, *regions, **settings)

    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.pause(0.3)
        monkeypatch.setattr(LinePanel, "refresh", counted)
        for _ in range(5):
            client.push(MemorySampled(device=scenes.gpu(NOW)))
            app.dashboard.tick()
        await pilot.pause(0.3)
        assert drawn == []
        client.push(MemorySampled(device=replace(scenes.gpu(NOW), temperature_c=99)))
        await until(pilot, lambda: drawn != [])
        assert drawn == ["header"]


async def test_the_running_job_stays_in_sight_wherever_the_queue_is_scrolled(console: Build) -> None:
    app = console([scenes.busy(NOW)])
    async with app.run_test(size=(120, 30)) as pilot:
        await live(pilot)
        panel = app.dashboard.query_one(QueuePanel)
        running = app.link.state.running
        assert running is not None
        await pilot.press("4", "G")
        await pilot.pause()
        assert panel.chosen != running.id
        assert panel.view is not None
        rows = panel.body(panel.view, 70, 3)
        assert rows[0].plain().strip().startswith(f"{running.id} ")


async def test_cancelling_a_row_never_means_another_job(console: Build) -> None:
    client = scripted(scenes.busy(NOW))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("G", "x")
        assert "job 30 has ended (done); nothing to cancel" in screen_text(app)
        assert {call[0] for call in client.asked} <= LOOKING


async def test_a_job_page_acts_on_its_own_job(console: Build) -> None:
    client = scripted(scenes.busy(NOW))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("j", "enter")
        await pilot.pause()
        app.dashboard.query_one(QueuePanel).move(1)
        await pilot.press("d")
        await until(pilot, lambda: ("duplicate", 42) in client.asked)


async def test_keys_of_one_write_act_in_their_order(console: Build) -> None:
    client = scripted(scenes.busy(NOW))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("G", "3")
        await burst(pilot, "4", "r")
        await until(pilot, lambda: ("retry", 30) in client.asked)
        await burst(pilot, "slash", "q", "x", "enter", "f")
        assert app.dashboard.query_one(LogPanel).wanted == "qx"
        await until(pilot, lambda: ("free",) in client.asked)


async def test_what_is_typed_ahead_of_a_dialog_is_not_lost(console: Build) -> None:
    client = scripted(scenes.busy(NOW))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await burst(pilot, "m", *"1.3b")
        await pilot.press("enter")
        await until(pilot, lambda: ("switch", SwitchRequest(model="wan2.1-1.3b")) in client.asked)
        await burst(pilot, "a", *"hello, x")
        assert app.screen.query_one(TextArea).text == "hello, x"
        assert app.focused is app.screen.query_one(TextArea)


@pytest.mark.parametrize("key", ["a", "m", "E", "enter", "question_mark"])
async def test_the_keys_that_leave_do_so_from_every_dialog(console: Build, key: str) -> None:
    app = console([scenes.busy(NOW)], restart_engine=lambda: None)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press(key)
        await pilot.pause()
        assert app.screen is not app.dashboard
        await pilot.press("ctrl+c")
        await pilot.pause()
    assert app.leaving_line


async def test_the_palette_over_a_dialog_opens_no_other(console: Build) -> None:
    app = console([scenes.busy(NOW)])
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("a")
        await pilot.pause()
        titles = [command.title for command in app.get_system_commands(app.screen)]
        assert "Theme: light" in titles and not [title for title in titles if "Add a job" in title]
        app.act("add")
        await pilot.pause()
        assert len(app.screen_stack) == 2


async def test_the_first_waiting_job_goes_no_further(console: Build) -> None:
    client = scripted(scenes.busy(NOW))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("j", "+")
        assert "job 42 is the first to wait already" in screen_text(app)
        assert {call[0] for call in client.asked} <= LOOKING


async def test_a_notice_outlives_the_snapshot_and_ends_with_a_receipt(console: Build, clock: Clock) -> None:
    client = ScriptedClient([Step(event=scenes.busy(NOW), after_s=0.3)])
    app = console(client, build="0.2.0")
    async with app.run_test(size=WIDE) as pilot:
        await until(pilot, lambda: "E restarts the engine" in panel_text(app, "receipt"))
        await live(pilot)
        assert "E restarts the engine" in panel_text(app, "receipt")
        receipt = Receipt(action="free", target="", ok=True, elapsed_s=0.1, proof="nvml-process")
        client.push(ReceiptIssued(receipt=receipt))
        await until(pilot, lambda: app.link.state.receipt == receipt)
        app.dashboard.tick()
        assert "this console" in panel_text(app, "receipt")  # it was not there long enough to be read
        clock.passed = 3.0
        app.dashboard.tick()
        assert "✓ free" in panel_text(app, "receipt")
        # What somebody asks for now is seen at once.
        app.say("an answer")
        await pilot.press("f")
        client.push(ReceiptIssued(receipt=replace(receipt, target="two")))
        await until(pilot, lambda: "✓ free two" in panel_text(app, "receipt"))


async def test_an_error_ends_with_the_link_or_with_time(console: Build, clock: Clock) -> None:
    client = scripted(scenes.busy(NOW))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        app.say("it broke", "error")
        clock.passed = 121.0
        app.dashboard.tick()
        assert "it broke" not in panel_text(app, "receipt")
        app.say("it broke", "error")
        client.end()
        await until(pilot, lambda: "E restarts the engine" in panel_text(app, "receipt"))


@pytest.mark.parametrize(
    ("keys", "said", "left"),
    [
        ({"fre": "b", "free": "b"}, ["names fre, which is no action"], {"free": "b"}),
        ({"free": "x", "axis": "Y"}, ["gives x to free, and cancel has it"], {"axis": "Y"}),
        ({"free": ":"}, ["gives colon to free, and palette has it"], {}),
        ({"hold": "Y", "sooner": "Y"}, ["gives Y to sooner, and hold has it"], {"hold": "Y"}),
        ({"free": "ctrl+c", "leave": "Z"}, ["gives ctrl+c to free, and leave has it"], {"leave": "Z"}),
        ({"free": "hyper+foo"}, ["gives hyper+foo to free, which is no key"], {}),
        # Without its new key `cancel` has x again, which `free` was given.
        ({"free": "x", "cancel": "y"}, ["y to cancel, and copy has it", "x to free, and cancel has it"], {}),
    ],
)
async def test_keys_that_cannot_be_meant_are_named_and_the_rest_holds(
    console: Build, keys: dict[str, str], said: list[str], left: dict[str, str]
) -> None:
    app = console([], keys=keys)
    assert app.own_keys == left and len(app.problems) == len(said)
    assert all(part in problem for part, problem in zip(said, app.problems, strict=True))


async def test_keys_may_change_places(console: Build) -> None:
    client = scripted(scenes.busy(NOW))
    app = console(client, keys={"free": "x", "cancel": ";", "axis": "Y", "hold": "Y"})
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("x")
        await until(pilot, lambda: ("free",) in client.asked)
        await pilot.press(";")
        await until(pilot, lambda: ("cancel", 41) in client.asked)


@pytest.mark.parametrize("size", [SMALL, WIDE])
async def test_a_paused_picture_says_so_at_the_top(console: Build, size: tuple[int, int]) -> None:
    app = console([scenes.busy(NOW)])
    async with app.run_test(size=size) as pilot:
        await live(pilot)
        await pilot.press("p")
        assert "PAUSED" in panel_text(app, "header")
        await pilot.press("p")
        assert "PAUSED" not in panel_text(app, "header")


@pytest.mark.parametrize("size", [SMALL, WIDE])
async def test_a_worker_that_says_nothing_is_named_at_the_top(console: Build, size: tuple[int, int]) -> None:
    snapshot = scenes.busy(NOW)
    (worker,) = snapshot.status.workers
    silent = replace(snapshot.status, workers=(replace(worker, state="silent"),))
    app = console([replace(snapshot, status=silent)])
    async with app.run_test(size=size) as pilot:
        await live(pilot)
        assert "worker silent" in panel_text(app, "header")


async def test_the_restart_dialog_tells_what_is_so_now(console: Build, clock: Clock) -> None:
    client = scripted(scenes.busy(NOW))
    app = console(client, restart_engine=lambda: None)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        clock.passed = 2 * 3600.0
        await pilot.press("E")
        await pilot.pause()
        assert "(3d06h)" in screen_text(app)
        await pilot.press("escape")
        client.end()
        await until(pilot, lambda: app.link.state.link == "lost")
        await pilot.press("E")
        await pilot.pause()
        text = screen_text(app)
        assert "no engine answers; the last one was pid 70001" in text
        assert "3d06h" not in text and "is interrupted" not in text


async def test_models_that_are_being_made_are_not_missing(console: Build) -> None:
    app = console([scenes.first_run(NOW)], making_demo=True)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        text = panel_text(app, "models")
        assert "making the demo models…" in text and "No models" not in text
        app.making_demo = False
        app.dashboard.tick()
        assert "No models" in panel_text(app, "models")


async def test_models_whose_names_differ_at_their_ends_stay_apart(console: Build) -> None:
    snapshot = scenes.busy(NOW)
    names = ("TurboWan2.1-T2V-14B-480P", "TurboWan2.1-T2V-14B-720P")
    models = tuple(replace(snapshot.status.models[1], name=name) for name in names)
    jobs = tuple(
        replace(job, spec=replace(job.spec, model=name))
        for job, name in zip(snapshot.jobs, names, strict=False)
    )
    app = console([replace(snapshot, jobs=jobs, status=replace(snapshot.status, models=models))])
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        for panel in ("models", "queue"):
            text = panel_text(app, panel)
            assert "480P" in text and "720P" in text and "…" in text, panel


async def test_one_of_something_is_said_as_one(console: Build) -> None:
    snapshot = scenes.busy(NOW)
    app = console([replace(snapshot, jobs=snapshot.jobs[3:4])], restart_engine=lambda: None)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("E")
        await pilot.pause()
        assert "1 waiting job stays" in screen_text(app)
    assert t("new.cost", frames=17, length="1.1", steps=1).endswith("1 step")
    assert t("job.sampling_text", steps="1", seed=0) == "1 step  seed 0"
    assert t("receipt.safe", count=1) == "1 job is safe in the queue"


async def test_models_are_found_by_name_first_then_by_kind_and_type(console: Build) -> None:
    told = scenes.busy(NOW)
    app = console([told])
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("m", *"t2v")
        await pilot.pause()
        panel = app.screen.query_one(ChoicePanel)
        wanted = {model.name for model in app.link.state.models if model.kind == "t2v"}
        assert wanted and {choice.key for choice in panel._current} == wanted
        await pilot.press("ctrl+u", *"i2v")
        names = [choice.name for choice in panel._current]
        assert names and sorted(names, key=lambda name: "i2v" not in name) == names
        await pilot.press("ctrl+u", *"int8", "enter")
        assert panel._current == [] or all("int8" in choice.found_by for choice in panel._current)


@pytest.mark.parametrize("size", [SMALL, WIDE], ids=["80x24", "120x36"])
async def test_a_filter_that_nothing_matches_says_so(console: Build, size: tuple[int, int]) -> None:
    app = console([scenes.busy(NOW)])
    async with app.run_test(size=size) as pilot:
        await live(pilot)
        for keys in (["slash", *"zzzz"], ["enter"], ["n"], ["A"], ["g"], ["F"], ["slash", "y", "enter"]):
            await pilot.press(*keys)
            await pilot.pause()
            assert "no line contains zzzz" in panel_text(app, "log"), keys


async def test_a_receipt_that_left_something_behind_is_whole_at_80_columns(console: Build) -> None:
    client = scripted(scenes.busy(NOW))
    app = console(client)
    short = Receipt(
        action="unload", target="wan2.2-a14b", ok=True, expected_bytes=int(2.64 * 2**30),
        returned_bytes=int(2.6 * 2**30), residue_bytes=41 * 2**20, elapsed_s=0.024, proof="nvml-process",
    )  # fmt: skip
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        client.push(ReceiptIssued(receipt=short))
        await until(pilot, lambda: "a14b" in panel_text(app, "receipt"))
        assert "back 2.60 GiB  residue 41.0 MiB  24 ms" in panel_text(app, "receipt")
