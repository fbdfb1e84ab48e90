"""Acting on weights as a person meets it: park, hard cleanup, warm files, and plans told ahead."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import pytest

from engine.errors import DoesNotFit
from engine.wire import (
    ActionProgressed,
    CancelAsked,
    CancelRequest,
    CleanupRequest,
    EngineChanged,
    ModelsChanged,
    Receipt,
    ReceiptAction,
    ReceiptIssued,
    ReceiptStep,
    SwitchRequest,
    WarmRequest,
)
from turbotui.app import TurboApp
from turbotui.client import scenes
from turbotui.client.scripted import ScriptedClient
from turbotui.screens import switch
from turbotui.text import t, use_language

from .conftest import NOW, SMALL, WIDE, Clock, live, panel_text, screen_text, scripted, until

Build = Callable[..., TurboApp]


def cleanups(client: ScriptedClient) -> list[CleanupRequest]:
    return [call[1] for call in client.asked if call[0] == "cleanup"]


@pytest.mark.parametrize("size", [SMALL, WIDE], ids=["80x24", "120x36"])
async def test_a_hard_cleanup_names_its_target_and_cancel_has_the_focus(
    console: Build, size: tuple[int, int]
) -> None:
    client = scripted(scenes.busy(NOW))
    app = console(client)
    async with app.run_test(size=size) as pilot:
        await live(pilot)
        await pilot.press("C")
        await pilot.pause()
        text = screen_text(app)
        for part in ("Hard cleanup?", "me@gpubox01", scenes.GPU, "(GPU 2)", "pid 81223", "17.9 GiB"):
            assert part in text, part
        for part in ("wan2.2-a14b/dit.low", "Job 41 ends as interrupted", "Clean up, reload 13.7 GiB"):
            assert part in text, part
        await pilot.press("enter")
        assert "Hard cleanup?" not in screen_text(app) and cleanups(client) == []
        await pilot.press("C")
        await pilot.pause()
        await pilot.press("C", "C", "right", "right", "enter")
        await until(pilot, lambda: cleanups(client) == [CleanupRequest(reload=False)])


async def test_a_cleanup_is_never_of_another_worker_than_the_one_that_was_named(console: Build) -> None:
    snapshot = scenes.busy(NOW)
    client = scripted(snapshot)
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("C")
        await pilot.pause()
        fresh = replace(snapshot.status.workers[0], pid=90000, started_at=NOW)
        client.push(EngineChanged(engine=snapshot.status.engine, workers=(fresh,)))
        await until(pilot, lambda: app.link.state.workers == (fresh,))
        assert "pid 81223" in screen_text(app)
        await pilot.press("right", "enter")
        await until(pilot, lambda: "worker 81223 has ended already; nothing was done" in screen_text(app))
        assert cleanups(client) == []


async def test_with_nothing_resident_there_is_nothing_to_reload_and_with_no_worker_nothing_to_end(
    console: Build,
) -> None:
    snapshot = scenes.busy(NOW)
    client = scripted(replace(snapshot, status=replace(snapshot.status, models=())))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("C")
        await pilot.pause()
        assert "reload" not in screen_text(app)
        await pilot.press("right", "enter")
        await until(pilot, lambda: cleanups(client) == [CleanupRequest(reload=False)])
        client.push(EngineChanged(engine=snapshot.status.engine, workers=()))
        await until(pilot, lambda: app.link.state.workers == ())
        await pilot.press("C")
        assert "no worker runs" in screen_text(app) and "Hard cleanup?" not in screen_text(app)


async def test_the_steps_of_a_cleanup_tick_off_while_it_runs(console: Build) -> None:
    release = threading.Event()
    done = Receipt(
        action="cleanup", target="worker", ok=True, expected_bytes=2**30, returned_bytes=2**30,
        residue_bytes=0, elapsed_s=1.2, proof="nvml-process",
    )  # fmt: skip

    def cleanup(_request: CleanupRequest) -> Receipt:
        release.wait(30)
        return done

    client = scripted(scenes.busy(NOW), cleanup=cleanup)
    app = console(client)
    steps = (
        ReceiptStep(name="worker ended", bytes=int(17.9 * 2**30), elapsed_s=0.12),
        ReceiptStep(name="gone from NVML", bytes=0, elapsed_s=0.011),
        ReceiptStep(name="worker 90000 ready", elapsed_s=0.4),
    )
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("C", "right", "enter")
        for step in steps:
            client.push(ActionProgressed(action="cleanup", target="worker", step=step))
            await until(pilot, lambda name=step.name: f"✓ {name}" in panel_text(app, "receipt"))  # type: ignore[misc]
        text = panel_text(app, "receipt")
        assert "ending worker 81223" in text
        assert (
            "✓ worker ended 17.9 GiB 0.12 s  ✓ gone from NVML 0 B 11 ms  ✓ worker 90000 ready 0.40 s" in text
        )
        release.set()
        client.push(ReceiptIssued(receipt=done))
        await until(pilot, lambda: "✓ cleanup worker  expected 1.00 GiB" in panel_text(app, "receipt"))


async def test_what_somebody_else_has_asked_for_is_shown_as_far_as_it_has_come(console: Build) -> None:
    client = scripted(scenes.busy(NOW))
    app = console(client)
    step = ReceiptStep(name="load wan2.1-14b/dit", bytes=2**30, total_bytes=2**34, elapsed_s=0.2)
    done = Receipt(action="switch", target="wan2.1-14b", ok=True, elapsed_s=1.2, proof="nvml-process")
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        client.push(ActionProgressed(action="load", target="x/dit", step=replace(step, name="load x/dit")))
        await pilot.pause(0.2)
        assert "load x/dit" not in panel_text(app, "receipt"), "a job's own loads are in its row"
        client.push(ActionProgressed(action="switch", target="wan2.1-14b", step=step))
        await until(
            pilot,
            lambda: "switch wan2.1-14b  ▸ load dit 1.00 GiB / 16.0 GiB" in panel_text(app, "receipt"),
        )
        client.push(ReceiptIssued(receipt=done))
        await until(pilot, lambda: "✓ switch wan2.1-14b" in panel_text(app, "receipt"))
        client.push(ActionProgressed(action="park", target="", step=step))
        await until(pilot, lambda: "▸ load wan2.1-14b/dit 1.00 GiB" in panel_text(app, "receipt"))


@pytest.mark.parametrize("language", ["en", "zh_CN"])
@pytest.mark.parametrize("action", [*get_args(ReceiptAction), "teleport"])
async def test_the_last_line_tells_every_action_also_one_of_a_newer_engine(
    console: Build, action: Any, language: str
) -> None:
    proof: Any = "oracle" if action == "teleport" else "page-cache"
    receipt = Receipt(
        action=action, target="wan2.1-14b", ok=True, expected_bytes=2**30, returned_bytes=2**29,
        residue_bytes=2**29, loaded_bytes=2**20, elapsed_s=0.5, proof=proof,
    )  # fmt: skip
    client = scripted(scenes.busy(NOW))
    app = console(client, language=language)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        client.push(ReceiptIssued(receipt=receipt))
        use_language(language)
        name = "teleport" if action == "teleport" else t(f"receipt.did_{action}")
        await until(pilot, lambda: f"✓ {name} wan2.1-14b" in panel_text(app, "receipt"))
        proof_told = "oracle" if action == "teleport" else {"en": "page cache", "zh_CN": "页缓存"}[language]
        assert proof_told in panel_text(app, "receipt")
        client.push(ReceiptIssued(receipt=replace(receipt, ok=False, error="it broke")))
        await until(pilot, lambda: f"! {name} wan2.1-14b  it broke" in panel_text(app, "receipt"))


async def test_each_component_shows_where_it_is_and_claims_nothing_it_does_not_know(console: Build) -> None:
    snapshot = scenes.busy(NOW)
    parts = (
        scenes.component("gpu_cold", 13.5, "resident", leased=True, warm=0.0),
        scenes.component("gpu_warm", 13.5, "resident", warm=1.0),
        scenes.component("gone", 10.6, "absent"),
        scenes.component("nearly", 10.6, "absent", warm=0.999),
        scenes.component("hardly", 10.6, "absent", warm=0.001, back=2.9),
        scenes.component("cold", 0.2, "absent", warm=0.0),
        scenes.component("coming", 0.2, "loading", warm=0.5),
    )
    models = (scenes.model("m", "t2v", "bfloat16", parts, active=True),)
    worker = replace(snapshot.status.workers[0], warm_refusal="memlock is 64 KiB")
    status = replace(snapshot.status, models=models, workers=(worker,))
    app = console([replace(snapshot, status=status)])
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        await pilot.press("3")
        rows = {
            line.split()[1]: line for line in panel_text(app, "models").splitlines() if len(line.split()) > 2
        }
        assert "● gpu  " in rows["gpu_cold"] and "◌" not in rows["gpu_cold"] and "leased" in rows["gpu_cold"]
        assert "● gpu  ◌ warm 100 %" in rows["gpu_warm"]
        assert "· disk" in rows["gone"] and "warm" not in rows["gone"]
        assert "◌ warm 99 %" in rows["nearly"] and "◌ warm 1 %" in rows["hardly"]
        assert "2.9 s" in rows["hardly"]
        assert "· disk" in rows["cold"] and "↻ loading" in rows["coming"]
        assert "nothing warm: memlock is 64 KiB" in panel_text(app, "models")


async def test_warming_changes_to_letting_go_once_all_of_it_is_warm(console: Build) -> None:
    snapshot = scenes.busy(NOW)
    client = scripted(snapshot)
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("3", "G", "W")
        await until(pilot, lambda: ("warm", WarmRequest(model="wan2.1-14b")) in client.asked)
        whole = tuple(
            replace(
                model, components=tuple(replace(part, warm_bytes=part.bytes) for part in model.components)
            )
            for model in snapshot.status.models
        )
        client.push(ModelsChanged(models=whole))
        await until(pilot, lambda: app.link.state.models == whole)
        await pilot.press("W")
        await until(pilot, lambda: ("drop_warm", WarmRequest(model="wan2.1-14b")) in client.asked)


@pytest.mark.parametrize("size", [SMALL, WIDE], ids=["80x24", "120x36"])
async def test_a_switch_under_way_names_the_key_that_gives_it_up_and_says_what_came_back(
    console: Build, size: tuple[int, int], clock: Clock
) -> None:
    given_up = threading.Event()
    cancelled = Receipt(
        action="switch", target="wan2.1-1.3b", ok=False, error_code="cancelled", elapsed_s=0.9,
        error="cancelled; wan2.2-a14b is loaded as before", proof="allocator",
    )  # fmt: skip

    def switch_to(_request: SwitchRequest) -> Receipt:
        given_up.wait(30)
        return cancelled

    def give_up(request: CancelRequest) -> CancelAsked:
        given_up.set()
        return CancelAsked(targets=(request.model or "?",))

    client = scripted(scenes.busy(NOW), switch=switch_to, cancel_switch=give_up)
    app = console(client)
    async with app.run_test(size=size) as pilot:
        await live(pilot)
        await pilot.press("m")
        await pilot.pause()
        await pilot.press("enter")
        clock.passed += 0.5
        await until(pilot, lambda: "ctrl+x gives up" in panel_text(app, "receipt"))
        assert "switching to wan2.1-1.3b" in panel_text(app, "receipt")
        await pilot.press("ctrl+x")
        await until(pilot, lambda: app.pending is None)
        assert ("cancel_switch", CancelRequest(model="wan2.1-1.3b")) in client.asked
        assert "cancelled; wan2.2-a14b is loaded as before" in panel_text(app, "receipt")
        # With none of its own it is whatever is under way, another console's or a reload.
        await pilot.press("ctrl+x")
        await until(pilot, lambda: ("cancel_switch", CancelRequest(model=None)) in client.asked)
        assert not any(call[0] == "cancel" for call in client.asked)


async def test_a_reading_console_gives_nothing_up(console: Build) -> None:
    client = scripted(scenes.busy(NOW))
    app = console(client, read_only=True)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("ctrl+x")
        await until(pilot, lambda: "read-only" in panel_text(app, "receipt"))
        assert not any(call[0] == "cancel_switch" for call in client.asked)


def plans_asked(client: ScriptedClient) -> list[str]:
    return [call[1].model for call in client.asked if call[0] == "explain_switch"]


async def test_the_switch_dialog_tells_what_goes_stays_and_comes(console: Build) -> None:
    client = scripted(scenes.busy(NOW), explain_switch=scenes.switch_plan)
    app = console(client)
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        await pilot.press("m")
        await until(pilot, lambda: "the same weights" in screen_text(app))
        text = screen_text(app)
        for part in ("fits  peak 13.4 of 118.9 GiB", "wan2.2-a14b: dit.low 13.5", "after job 41"):
            assert part in text, part
        assert "in        13.2  wan2.1-1.3b: dit 2.6, text 10.6" in text
        assert plans_asked(client) == ["wan2.1-1.3b"]


async def test_a_cursor_that_goes_over_rows_asks_once_where_it_rests(
    console: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = scripted(scenes.busy(NOW), explain_switch=scenes.switch_plan)
    app = console(client)
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        await pilot.press("m")
        await until(pilot, lambda: "the same weights" in screen_text(app))
        monkeypatch.setattr(switch, "PLAN_AFTER_S", 0.7)
        await pilot.press("down", "down", "up")
        await until(pilot, lambda: "wan2.1-14b: dit 26.6, text 10.6" in screen_text(app))
        assert plans_asked(client) == ["wan2.1-1.3b", "wan2.1-14b"]
        # What was told of these weights holds until they change.
        await pilot.press("up")
        assert "wan2.1-1.3b: dit 2.6, text 10.6" in screen_text(app)
        await pilot.pause(1.0)
        assert plans_asked(client) == ["wan2.1-1.3b", "wan2.1-14b"]


async def test_a_switch_that_does_not_fit_or_is_refused_says_why_before_it_is_asked_for(
    console: Build,
) -> None:
    def plan(request: SwitchRequest) -> Any:
        if request.model == "wan2.1-14b":
            raise DoesNotFit("the file of dit is cut short")
        return replace(
            scenes.switch_plan(request),
            fits=False,
            steps=(),
            reason="dit needs 26.6 GiB and the budget is 20 GiB",
        )

    client = scripted(scenes.busy(NOW), explain_switch=plan)
    app = console(client)
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        await pilot.press("m")
        await until(pilot, lambda: "does not fit  peak" in screen_text(app))
        assert "dit needs 26.6 GiB and the budget is 20 GiB" in screen_text(app)
        await pilot.press("down")
        await until(pilot, lambda: "the file of dit is cut short" in screen_text(app))
        assert "cut short" not in panel_text(app, "receipt")


async def test_a_plan_that_hangs_keeps_nobody_from_typing_and_one_of_other_weights_is_asked_again(
    console: Build,
) -> None:
    release = threading.Event()
    snapshot = scenes.busy(NOW)

    def plan(request: SwitchRequest) -> Any:
        release.wait(30)
        return scenes.switch_plan(request)

    client = scripted(snapshot, explain_switch=plan)
    app = console(client)
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        await pilot.press("m")
        await until(pilot, lambda: plans_asked(client) == ["wan2.1-1.3b"])
        assert "13.7 out, 2.8 in" in screen_text(app)
        await pilot.press(*"14b")
        assert "14b▏" in screen_text(app)
        release.set()
        await until(pilot, lambda: "the same weights" in screen_text(app))
        asked = len(plans_asked(client))
        client.push(
            ModelsChanged(
                models=tuple(replace(model, bytes=model.bytes + 1) for model in snapshot.status.models)
            )
        )
        await until(pilot, lambda: len(plans_asked(client)) == asked + 1)
