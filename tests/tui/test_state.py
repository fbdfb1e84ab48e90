"""What `reduce` makes of events."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest

from engine.wire import (
    ActionProgressed,
    Event,
    Goodbye,
    Heartbeat,
    Job,
    JobChanged,
    JobsReordered,
    Logged,
    LogLine,
    MemorySampled,
    ModelsChanged,
    Receipt,
    ReceiptAction,
    ReceiptIssued,
    ReceiptStep,
)
from turbotui.client import scenes
from turbotui.format import cell_width
from turbotui.state import (
    FINISHED_JOBS,
    LOG_LINES,
    ConsoleState,
    DeviceWatched,
    LinkLost,
    LinkOpened,
    LinkOpening,
    reduce,
)

from .conftest import NOW, scripted


def after(*events: Event, state: ConsoleState | None = None) -> ConsoleState:
    current = state or ConsoleState()
    for event in events:
        current = reduce(current, event, wall=NOW, monotonic=50.0)
    return current


def busy(*events: Event) -> ConsoleState:
    return after(scenes.busy(NOW), *events)


def test_a_snapshot_fills_everything() -> None:
    state = busy()
    assert state.running is not None and state.running.id == 41
    assert [job.id for job in state.waiting] == [42, 43, 44]
    assert [job.id for job in state.finished] == [31, 30]
    assert state.device is not None and state.device.id == scenes.GPU
    assert state.heard_at == 50.0


def test_a_snapshot_replaces_what_was_known_before_the_engine_was_lost() -> None:
    state = busy(scenes.first_run(NOW))
    assert state.jobs == () and state.models == () and state.receipt is None


def test_a_sample_replaces_only_its_own_device() -> None:
    other = replace(scenes.host(NOW), in_use=False)
    state = busy(MemorySampled(device=other), MemorySampled(device=replace(scenes.gpu(NOW), power_w=1.0)))
    assert [device.id for device in state.devices] == [scenes.GPU, "cpu"]
    assert state.device is not None and state.device.power_w == 1.0


def test_a_job_that_ends_moves_from_running_to_the_newest_finished() -> None:
    done = replace(scenes.running_job(NOW), status="done", finished_at=NOW)
    state = busy(JobChanged(job=done))
    assert state.running is None
    assert state.finished[0].id == 41


def test_a_new_order_moves_the_waiting_jobs() -> None:
    state = busy(JobsReordered(job_ids=(44, 42, 43)))
    assert [job.id for job in state.waiting] == [44, 42, 43]
    assert [job.position for job in state.waiting] == [1, 2, 3]


def test_starts_ends_and_receipts_leave_marks_once() -> None:
    ended = replace(scenes.running_job(NOW), status="failed", finished_at=NOW + 3)
    receipt = Receipt(action="switch", target="x", ok=True, elapsed_s=1.0, proof="allocator", at=NOW + 4)
    state = busy(JobChanged(job=ended), JobChanged(job=ended), ReceiptIssued(receipt=receipt))
    new = [(mark.symbol, mark.at) for mark in state.marks if mark.at > NOW]
    assert new == [("!", NOW + 3), ("⇄", NOW + 4)]
    assert ("▶", NOW - 24) in [(mark.symbol, mark.at) for mark in state.marks]


def test_a_receipt_ends_the_steps_of_its_action() -> None:
    step = ActionProgressed(action="switch", target="x", step=ReceiptStep(name="load", elapsed_s=0.5))
    receipt = Receipt(action="switch", target="x", ok=True, elapsed_s=1.0, proof="allocator")
    assert busy(step).steps == (step,)
    assert busy(step, ReceiptIssued(receipt=receipt)).steps == ()


def test_a_load_within_an_action_does_not_end_its_steps() -> None:
    receipt = Receipt(action="load", target="x/dit", ok=True, elapsed_s=1.0, proof="allocator")
    state = busy(progressed("cleanup", "ended"), ReceiptIssued(receipt=receipt))
    assert [step.step.name for step in state.steps] == ["ended"] and state.receipt == receipt
    assert busy(progressed("load", "dit"), ReceiptIssued(receipt=receipt)).steps == ()


def progressed(action: str, name: str) -> ActionProgressed:
    return ActionProgressed(action=action, target="x", step=ReceiptStep(name=name, elapsed_s=0.5))


def test_steps_add_up_and_another_action_begins_anew() -> None:
    events = [progressed("cleanup", "ended"), progressed("cleanup", "gone"), progressed("load", "dit")]
    assert [step.step.name for step in busy(*events).steps] == ["ended", "gone", "dit"]
    assert [step.step.name for step in busy(*events, progressed("switch", "unload")).steps] == ["unload"]


@pytest.mark.parametrize("action", [*get_args(ReceiptAction), "teleport"])
def test_a_receipt_of_any_action_leaves_a_mark_of_one_cell(action: Any) -> None:
    receipt = Receipt(action=action, target="x", ok=True, elapsed_s=1.0, proof="allocator", at=NOW + 4)
    mark = busy(ReceiptIssued(receipt=receipt)).marks[-1]
    assert mark.at == NOW + 4 and cell_width(mark.symbol) == 1


def test_the_log_is_bounded_and_a_line_that_was_seen_is_not_taken_twice() -> None:
    def line(seq: int) -> Logged:
        return Logged(line=LogLine(seq=seq, at=NOW, event="x", text=str(seq)))

    state = after(*(line(seq) for seq in range(1, LOG_LINES + 11)), line(5), line(LOG_LINES + 10))
    assert len(state.log) == LOG_LINES
    assert state.log[-1].seq == LOG_LINES + 10 and state.log[0].seq == 11


def test_finished_jobs_are_bounded_and_the_oldest_go() -> None:
    def done(job_id: int) -> JobChanged:
        job = Job(
            id=job_id, spec=scenes.running_job(NOW).spec, status="done", created_at=NOW, finished_at=job_id
        )
        return JobChanged(job=job)

    state = after(*(done(job_id) for job_id in range(1, FINISHED_JOBS + 4)))
    assert len(state.finished) == FINISHED_JOBS and state.job(3) is None and state.job(4) is not None


def test_models_are_replaced_whole() -> None:
    assert busy(ModelsChanged(models=())).models == ()


def test_silence_makes_a_live_engine_stale_and_a_frame_makes_it_live_again() -> None:
    opened = reduce(ConsoleState(), LinkOpened(hello=scripted().hello()), wall=NOW, monotonic=10.0)
    state = reduce(opened, scenes.busy(NOW), wall=NOW, monotonic=10.0)
    assert state.look(12.9) == "live"
    assert state.look(13.1) == "stale"
    heard = reduce(state, Heartbeat(at=NOW), wall=NOW, monotonic=13.2)
    assert heard.look(13.3) == "live"


def test_a_loss_keeps_the_picture_and_the_moment_of_the_first_failure() -> None:
    lost = reduce(busy(), LinkLost(reason="gone", retry_at=51.0), wall=NOW, monotonic=50.0)
    again = reduce(lost, LinkLost(reason="refused", retry_at=55.0), wall=NOW + 9, monotonic=54.0)
    assert again.look(54.0) == "lost"
    assert again.link_since == NOW and again.retry_at == 55.0
    assert [job.id for job in again.jobs] == [job.id for job in busy().jobs]
    told = busy().running
    assert told is not None and told.progress is not None and told.progress.eta_s is not None
    assert again.running == replace(told, progress=replace(told.progress, eta_s=None)), "nobody can tell"
    assert (lost.told_at, again.told_at) == (busy().told_at, busy().told_at) != (None, None)
    assert again.lost_reason == "gone"


def test_an_engine_that_says_goodbye_gives_the_reason_of_the_loss() -> None:
    state = busy(Goodbye(reason="stopped by me"))
    lost = reduce(state, LinkLost(reason="stream ended", retry_at=0.0), wall=NOW, monotonic=50.0)
    assert lost.lost_reason == "stopped by me"


def test_before_any_answer_the_console_is_starting() -> None:
    state = reduce(ConsoleState(), LinkOpening(), wall=NOW, monotonic=1.0)
    assert state.look(100.0) == "starting"


def test_a_step_under_way_takes_the_place_of_what_it_was_before() -> None:
    def under_way(done: int) -> ActionProgressed:
        step = ReceiptStep(name="load x/dit", bytes=done, total_bytes=100, elapsed_s=0.5)
        return ActionProgressed(action="switch", target="x", step=step)

    state = ConsoleState()
    for event in (progressed("switch", "verify"), under_way(10), under_way(60)):
        state = reduce(state, event, wall=0.0, monotonic=0.0)
    assert [(item.step.name, item.step.bytes) for item in state.steps] == [
        ("verify", None),
        ("load x/dit", 60),
    ]
    state = reduce(state, progressed("switch", "load x/dit"), wall=0.0, monotonic=0.0)
    assert [item.step.total_bytes for item in state.steps] == [None, None]


def test_without_an_engine_the_consoles_own_look_goes_on_and_what_was_printed_is_in_the_log() -> None:
    state = reduce(ConsoleState(), scenes.busy(NOW))
    state = reduce(state, LinkLost(reason="gone", retry_at=1.0, ended="exit -9", printed=("boom",)), wall=NOW)
    assert (state.lost_how, state.own_probe) == ("exit -9", False)
    assert (state.log[-1].text, state.log[-1].seq) == ("boom", state.log[-2].seq + 1)
    again = reduce(state, LinkLost(reason="no engine runs", retry_at=2.0), wall=NOW)
    assert (again.lost_reason, again.lost_how, again.log) == ("gone", "exit -9", state.log)
    device = replace(scenes.gpu(NOW), processes=())
    watched = reduce(again, DeviceWatched(device=device))
    assert watched.own_probe and watched.device == device and watched.jobs == state.jobs
    opened = reduce(watched, LinkOpened(hello=scripted().hello()))
    assert not opened.own_probe
    assert reduce(opened, DeviceWatched(device=scenes.gpu(NOW))) is opened
