"""The gravest actions as a person meets them: told first, meant by hand, and followed to what is left."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from engine.wire import (
    ActionProgressed,
    CleanupCandidate,
    DeviceProcess,
    FullCleanupPlan,
    FullCleanupRequest,
    KillRequest,
    Receipt,
    ReceiptStep,
    ResetCondition,
    ResetPlan,
    ResetRequest,
)
from turbotui.app import TurboApp
from turbotui.client import scenes
from turbotui.client.scripted import ScriptedClient

from .conftest import NOW, SMALL, WIDE, live, screen_text, scripted, until

Build = Callable[..., TurboApp]
GIB = 2**30
SIZES = pytest.mark.parametrize("size", [SMALL, WIDE], ids=["80x24", "120x36"])

OWN = DeviceProcess(pid=555, bytes=2 * GIB, user="me", name="train", command="train.py", start_time=99.5)
THEIRS = scenes.gpu(NOW).processes[1]
NEVER = replace(THEIRS, pid=77, user="root", bytes=None)
CLEANUP = FullCleanupPlan(
    worker_pid=81223, worker_bytes=18 * GIB, job_id=41, waiting=3, nursery_pid=70010, nursery_bytes=2**29,
    candidates=(
        CleanupCandidate(process=OWN, device_ids=(scenes.GPU,), bytes=2 * GIB, mine=True),
        CleanupCandidate(process=THEIRS, device_ids=(scenes.GPU,), bytes=6 * GIB, mine=False),
        CleanupCandidate(
            process=NEVER, device_ids=(scenes.GPU,), bytes=None, mine=False, refusal="77 is never ended"
        ),
    ),
    device_id=scenes.GPU, videos=0, videos_bytes=0, logs=0, logs_bytes=0,
)  # fmt: skip
CLEANED = Receipt(
    action="full_cleanup", target="everything of ours", ok=True, expected_bytes=20 * GIB,
    returned_bytes=20 * GIB, residue_bytes=0, elapsed_s=3.0, proof="nvml-process", at=NOW,
    steps=(ReceiptStep(name="our worker ended", bytes=18 * GIB, elapsed_s=0.4),),
    notes=("GPU 2: process 90112 of liwei still holds 6.00 GiB: main.py",),
)  # fmt: skip


def plan(**states: Any) -> ResetPlan:
    conditions = tuple(
        ResetCondition(name=name, state=state, text=f"what was found of {name}")
        for name, state in (states or {"platform": "ok", "nvlink": "unknown"}).items()
    )
    return ResetPlan(
        device_id=scenes.GPU, index=2, name="NVIDIA H200", bus_id="0000:3B:00.0", used_bytes=38 * GIB,
        recovery_action=None, conditions=conditions, holders=(), ends=("worker 81223: job 41 goes back",),
        commands=(("nvidia-smi", "--gpu-reset", "-i", "0000:3B:00.0"),),
    )  # fmt: skip


def asked(client: ScriptedClient, name: str) -> list[Any]:
    return [call[1] for call in client.asked if call[0] == name]


@SIZES
async def test_a_reset_is_told_condition_by_condition_and_wants_the_index(
    console: Build, size: tuple[int, int]
) -> None:
    client = scripted(scenes.busy(NOW), reset_plan=plan())
    app = console(client)
    async with app.run_test(size=size) as pilot:
        await live(pilot)
        await pilot.press("R")
        await until(pilot, lambda: "Reset GPU 2?" in screen_text(app))
        text = screen_text(app)
        told = ("me@gpubox01", scenes.GPU, "✓ platform", "? nvlink", "what was found of nvlink")
        for part in (*told, "job 41 goes back", "nvidia-smi --gpu-reset", "Everything on GPU 2 is lost"):
            assert part in text, part
        await pilot.press("2", "enter")
        assert asked(client, "reset") == [] and "Reset GPU 2?" not in screen_text(app), "Cancel has the focus"
        await pilot.press("R")
        await until(pilot, lambda: "Reset GPU 2?" in screen_text(app))
        await pilot.press("right", "enter", "3", "enter")
        await pilot.pause()
        assert "type 2 first; nothing was done" in screen_text(app) and asked(client, "reset") == []
        await pilot.press("backspace", "2", "enter")
        await until(pilot, lambda: asked(client, "reset") == [ResetRequest(device_id=scenes.GPU, index=2)])


async def test_a_reset_that_something_blocks_offers_only_the_way_back(console: Build) -> None:
    client = scripted(scenes.busy(NOW), reset_plan=plan(holders="blocks", platform="ok"))
    app = console(client)
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        await pilot.press("R")
        await until(pilot, lambda: "✗ holders" in screen_text(app))
        assert "It cannot be reset now: holders." in screen_text(app)
        await pilot.press("2", "right", "enter")
        await pilot.pause()
        assert len(app.screen_stack) == 1 and asked(client, "reset") == []


async def test_without_a_gpu_a_reset_is_refused_with_the_reason(console: Build) -> None:
    client = scripted(scenes.cpu(NOW))
    app = console(client)
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        await pilot.press("R")
        assert "the cpu has no reset" in screen_text(app) and asked(client, "reset_plan") == []


@SIZES
async def test_a_full_cleanup_ends_what_is_ticked_and_shows_its_steps_and_what_is_left(
    console: Build, size: tuple[int, int]
) -> None:
    go = threading.Event()

    def clean_up(_request: FullCleanupRequest) -> Receipt:
        go.wait(5)
        return CLEANED

    client = scripted(scenes.busy(NOW), full_cleanup_plan=CLEANUP, full_cleanup=clean_up)
    app = console(client)
    async with app.run_test(size=size) as pilot:
        await live(pilot)
        await pilot.press("X")
        await until(pilot, lambda: "Full cleanup?" in screen_text(app))
        for part in ("worker 81223, 18.0 GiB", "nursery 70010", "3 waiting jobs are held", "Job 41 is inter"):
            assert part in screen_text(app), part
        assert "comes back    18.0 GiB" in screen_text(app)
        await pilot.press("space")
        await pilot.pause()
        assert "[x]      555" in screen_text(app) and "comes back    20.0 GiB" in screen_text(app)
        await pilot.press("j", "j", "space")
        await pilot.pause()
        assert "77 is never ended" in screen_text(app)
        await pilot.press("right", "enter")
        wanted = FullCleanupRequest(also=(KillRequest(pid=555, start_time=99.5, grace_s=2.0),))
        await until(pilot, lambda: asked(client, "full_cleanup") == [wanted])
        client.push(
            ActionProgressed(
                action="full_cleanup", target="x",
                step=ReceiptStep(name="our worker ended", bytes=18 * GIB, elapsed_s=0.4),
            ),
            ActionProgressed(action="kill", target="x", step=ReceiptStep(name="SIGTERM", elapsed_s=0.5)),
        )  # fmt: skip
        await until(pilot, lambda: "✓ our worker ended" in screen_text(app))
        await until(pilot, lambda: "✓ SIGTERM" in screen_text(app))
        go.set()
        await until(pilot, lambda: "process 90112 of liwei still holds 6.00 GiB" in screen_text(app))
        assert "✓ full cleanup everything of ours" in screen_text(app), (
            "what was done, not what is being done"
        )


async def test_another_users_process_is_ticked_only_after_a_second_question(console: Build) -> None:
    client = scripted(scenes.busy(NOW), full_cleanup_plan=CLEANUP)
    app = console(client)
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        await pilot.press("X")
        await until(pilot, lambda: "Full cleanup?" in screen_text(app))
        await pilot.press("j", "space")
        await pilot.pause()
        assert "Kill a process of liwei?" in screen_text(app)
        await pilot.press("enter")
        await pilot.pause()
        assert "[x]" not in screen_text(app), "Cancel has the focus"
        await pilot.press("space")
        await pilot.pause()
        await pilot.press("right", "enter")
        await until(pilot, lambda: "[x]    90112" in screen_text(app))
        await pilot.press("enter")
        await pilot.pause()
        assert len(app.screen_stack) == 1 and asked(client, "full_cleanup") == []


async def test_a_plan_that_comes_while_another_dialog_is_open_disturbs_nobody(console: Build) -> None:
    go = threading.Event()

    def slow() -> FullCleanupPlan:
        go.wait(5)
        return CLEANUP

    app = console(scripted(scenes.busy(NOW), full_cleanup_plan=slow))
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        await pilot.press("X", "question_mark")
        await pilot.pause()
        go.set()
        await until(pilot, lambda: app.pending is None)
        assert len(app.screen_stack) == 2 and "Full cleanup?" not in screen_text(app)


@SIZES
async def test_the_sheet_says_what_each_costs_or_why_not_and_begins_it(
    console: Build, size: tuple[int, int]
) -> None:
    client = scripted(scenes.busy(NOW), reset_plan=plan(holders="blocks"))
    app = console(client)
    async with app.run_test(size=size) as pilot:
        await live(pilot)
        await pilot.press("exclamation_mark")
        await until(pilot, lambda: "cannot be reset now: holders" in screen_text(app))
        text = screen_text(app)
        for part in (
            "C  hard cleanup",
            "17.9 GiB  Job 41",
            "K  kill a process",
            "6.20 GiB  1 process of others",
        ):
            assert part in text, part
        assert "this console cannot restart" in text
        await pilot.press("G", "j", "E")
        await pilot.pause()
        assert "Dangerous actions" in screen_text(app), "what cannot be does nothing"
        await pilot.press("C")
        await until(pilot, lambda: "Hard cleanup?" in screen_text(app))
        assert asked(client, "cleanup") == []


async def test_a_wide_sheet_says_every_loss_to_its_end(console: Build) -> None:
    client = scripted(scenes.busy(NOW), reset_plan=plan())
    app = console(client, restart_engine=lambda: None)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("exclamation_mark")
        await until(pilot, lambda: "Everything on GPU 2 is lost" in screen_text(app))
        rows = [line for line in screen_text(app).splitlines() if "E  restart the engine" in line]
        assert rows and "3 waiting jobs stay." in rows[0]


@pytest.mark.parametrize("looks", [False, True])
async def test_the_legend_names_f_only_where_f_frees(console: Build, looks: bool) -> None:
    app = console([scenes.busy(NOW)], read_only=looks)
    async with app.run_test(size=(200, 50)) as pilot:
        await live(pilot)
        assert ("(f frees)" in screen_text(app)) is not looks


async def test_a_reading_console_shows_the_sheet_with_its_reason_and_does_nothing(console: Build) -> None:
    client = scripted(scenes.busy(NOW), reset_plan=plan(), full_cleanup_plan=CLEANUP)
    app = console(client, read_only=True)
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        await pilot.press("exclamation_mark")
        await pilot.pause()
        assert screen_text(app).count("read-only: this console only looks") >= 5
        assert "its key asks" not in screen_text(app) and "t who did what" in screen_text(app)
        panel, view = app.screen.panel, app.screen.view()  # type: ignore[attr-defined]
        name = panel.row(view, "kill", 76).segments[0].style
        assert name.color == view.paint.muted.color, (
            "its letter reads as its name does, on the chosen row too"
        )
        await pilot.press("X", "enter", "escape", "X", "R")
        await pilot.pause()
        assert {call[0] for call in client.asked} <= {"hello", "history", "last_check"}


async def test_x_gives_up_what_is_under_the_cursor_and_never_a_running_job_instead(console: Build) -> None:
    snapshot = scenes.busy(NOW)
    models = tuple(
        replace(model, components=tuple(replace(part, state="loading") for part in model.components))
        if model.name == "wan2.1-14b"
        else model
        for model in snapshot.status.models
    )
    client = scripted(replace(snapshot, status=replace(snapshot.status, models=models)))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("3", "G", "x")
        await until(pilot, lambda: [one.model for one in asked(client, "cancel_switch")] == ["wan2.1-14b"])
        assert asked(client, "cancel") == []
        await pilot.press("g", "x", "x")
        await until(pilot, lambda: asked(client, "cancel") == [41])


async def test_x_gives_up_what_another_console_asked_for_where_no_job_runs(console: Build) -> None:
    snapshot = scenes.idle(NOW)
    loading = replace(
        snapshot.status.models[2],
        components=tuple(replace(part, state="loading") for part in snapshot.status.models[2].components),
    )
    models = (*snapshot.status.models[:2], loading)
    client = scripted(replace(snapshot, status=replace(snapshot.status, models=models)))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("6", "x")
        await until(pilot, lambda: [one.model for one in asked(client, "cancel_switch")] == [None])
