"""Giving up a switch, from the line for the device to a worker that was replaced half way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.daemon.budget import Budget
from engine.daemon.cancel import Cancel
from engine.daemon.look import RESIDUE_BOUND
from engine.daemon.steps import Steps
from engine.daemon.switches import Switches
from engine.errors import DoesNotFit, JobCancelled, NotNow, WorkerDied, WorkerReplaced
from engine.models.card import inferred_card
from engine.models.model import Model
from engine.telemetry.samples import Traced
from engine.wire import Receipt, ReceiptStep
from engine.worker.channel import CancelAction, ModelFiles, Proceed, Restore, SwitchTo, Unloaded, Wanted

READ = SimpleNamespace(wait=lambda: asyncio.sleep(0))
"""The device has been read."""
BEFORE = (Wanted(model=ModelFiles(name="small", kind="t2v", path="/m/small"), component="dit"),)


def model(name: str) -> Model:
    return Model(name=name, kind="t2v", path=Path("/m") / name, card=inferred_card(name, "t2v"))


def receipt(
    action: Any, *, error: str | None = None, code: str | None = None, loaded: int = 0, **more: Any
) -> Receipt:
    return Receipt(
        action=action, target="x", ok=error is None, error=error, error_code=code, loaded_bytes=loaded,
        elapsed_s=0.1, proof="allocator", **more,
    )  # fmt: skip


class FakeWorker:
    """Keeps what it is sent; `device_id` says whether its residue matters."""

    pid = 7
    exit = None

    def __init__(self, device_id: str = "GPU-1") -> None:
        self.device_id = device_id
        self.sent: list[Any] = []
        self.killed: list[str] = []

    def kill(self, reason: str) -> None:
        self.killed.append(reason)

    def send(self, message: Any) -> None:
        self.sent.append(message)

    async def wait_gone(self) -> bool:
        return bool(self.killed)


class FakeSupervisor:
    """Answers each question by what the test says; the first switch may meet a worker that keeps too much."""

    def __init__(self) -> None:
        self.device_lock = asyncio.Lock()
        self.worker = FakeWorker()
        self.ready = asyncio.Event()
        self.ready.set()
        self.used_at = 0.0
        self.asked: list[Any] = []
        self.issued: list[Receipt] = []
        self.answers: list[Callable[[Any, Cancel | None], Any]] = []
        self.gone = asyncio.Event()
        self.residents = SimpleNamespace(present=lambda: [("small", "dit")])

    async def ensure_worker(self) -> FakeWorker:
        await self.ready.wait()
        return self.worker

    async def ask(
        self, action: str, target: str, message: Any, *, on_unloaded: Any = None, cancel: Any = None, **_: Any
    ) -> Receipt:
        said = message(len(self.asked) + 1)
        self.asked.append(said)
        if cancel is not None:
            cancel.tell(lambda: self.worker.send(CancelAction(action_id=said.action_id)))
        if on_unloaded is not None:
            on_unloaded(
                self.worker,
                Unloaded(action_id=said.action_id, expected_bytes=2**33, cache_bytes=0, held_bytes=2**33),
            )
        answer = self.answers.pop(0)(said, cancel)
        answer = await answer if asyncio.iscoroutine(answer) else answer
        if cancel is not None:
            cancel.tell(None)
        assert isinstance(answer, Receipt)
        return answer

    def let_go(self, reason: str) -> FakeWorker:
        self.gone.set()
        return self.worker

    def busy(self, state: str) -> None:
        pass

    def stepped(self, action: str, target: str, step: ReceiptStep) -> None:
        pass

    def issue(self, receipt: Receipt) -> Receipt:
        self.issued.append(receipt)
        return receipt


@pytest.fixture
def supervisor() -> FakeSupervisor:
    return FakeSupervisor()


@pytest.fixture
def residue() -> list[int]:
    """What does not come back of a switch's unload, in bytes."""
    return [0]


@pytest.fixture
def switches(supervisor: FakeSupervisor, residue: list[int]) -> Switches:
    async def trace(pid: int, device_id: str, **_: Any) -> Traced:
        return Traced(trace_id=1, start_bytes=2**33, end_bytes=residue[0], elapsed_s=0.0, reached=True)

    async def held_by(worker: Any) -> int:
        return 2**33

    async def of_end(action: Any, worker: Any, held: int | None, steps: Steps) -> Receipt:
        steps.ended("worker ended", held)
        return receipt(action)

    proofs: Any = SimpleNamespace(held_by=held_by, of_end=of_end)
    fakes: Any = (
        supervisor,
        SimpleNamespace(trace=trace),
        SimpleNamespace(
            budget=lambda: Budget(now_bytes=2**36, empty_bytes=2**36, held_by="nobody"), device_id="GPU-1"
        ),
        SimpleNamespace(write=lambda *_, **__: None),
        supervisor,
    )
    return Switches(*fakes, proofs=proofs, find=model)


def switching(switches: Switches, name: str = "large") -> asyncio.Task[Receipt]:
    return asyncio.create_task(
        switches.switch(model(name), reserve=lambda _model: 0, device_read=READ)  # type: ignore[arg-type]
    )


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_switch_that_waits_for_the_device_leaves_the_line_and_nobody_is_asked(
    switches: Switches, supervisor: FakeSupervisor
) -> None:
    async with supervisor.device_lock:
        given_up, other = switching(switches), switching(switches, "small")
        await settle()
        assert switches.cancel("large") == ("large",)
        told = await asyncio.wait_for(given_up, 1)
        assert (told.ok, told.error_code) == (False, "cancelled")
        assert told.error == "cancelled before anything was moved"
        assert supervisor.issued == [told] and not other.done()
    supervisor.answers = [lambda said, cancel: receipt("switch")]
    assert (await asyncio.wait_for(other, 1)).ok
    assert [said.model.name for said in supervisor.asked] == ["small"]
    assert not supervisor.device_lock.locked()


async def test_a_switch_that_waits_for_a_worker_lets_the_device_go(
    switches: Switches, supervisor: FakeSupervisor
) -> None:
    supervisor.ready.clear()
    task = switching(switches)
    await settle()
    assert supervisor.device_lock.locked()
    switches.cancel(None)
    assert (await asyncio.wait_for(task, 1)).error_code == "cancelled"
    assert not supervisor.device_lock.locked()


async def test_the_worker_is_told_once_it_has_the_switch_and_its_receipt_counts(
    switches: Switches, supervisor: FakeSupervisor
) -> None:
    go_on = asyncio.Event()

    async def answer(said: Any, cancel: Any) -> Receipt:
        await go_on.wait()
        return receipt("switch", error="cancelled; small is loaded as before", code="cancelled")

    supervisor.answers = [lambda said, cancel: answer(said, cancel)]
    task = switching(switches)
    await settle()
    assert switches.cancel(None) == ("large",)
    (cancelled,) = [said for said in supervisor.worker.sent if isinstance(said, CancelAction)]
    assert cancelled.action_id == supervisor.asked[0].action_id
    assert any(isinstance(said, Proceed) for said in supervisor.worker.sent)
    go_on.set()
    assert (await asyncio.wait_for(task, 1)).error == "cancelled; small is loaded as before"
    with pytest.raises(NotNow, match="no switch or reload is under way"):
        switches.cancel(None)


async def test_only_the_switch_that_is_named_is_given_up(
    switches: Switches, supervisor: FakeSupervisor
) -> None:
    reload = Cancel("what was resident")
    switches.reloads.append(reload)
    async with supervisor.device_lock:
        task = switching(switches)
        await settle()
        with pytest.raises(NotNow, match="no switch to small is under way"):
            switches.cancel("small")
        assert switches.cancel(None) == ("large",)
        await task
    # With no switch it is the reload that is meant.
    assert not reload.asked
    assert switches.cancel(None) == ("what was resident",)
    assert reload.asked


@pytest.mark.parametrize("given_up", [True, False], ids=["given up", "failed"])
async def test_a_switch_whose_worker_was_replaced_brings_the_previous_model_back_itself(
    switches: Switches, supervisor: FakeSupervisor, residue: list[int], given_up: bool
) -> None:
    residue[0] = 2 * RESIDUE_BOUND

    async def replaced(said: Any, cancel: Any) -> Receipt:
        await supervisor.gone.wait()
        if given_up:
            assert switches.cancel("large") == ("large",)
        raise WorkerReplaced("the worker was replaced")

    def fresh(said: Any, cancel: Cancel) -> Receipt:
        assert isinstance(said, SwitchTo) and cancel.asked is given_up
        # Asked before there was anybody to tell: the fresh worker hears of it at once.
        told = [message for message in supervisor.worker.sent if isinstance(message, CancelAction)]
        assert (told[-1].action_id == said.action_id) if given_up else not told
        return receipt("switch", error="cancelled" if given_up else "its file is cut", code="cancelled")

    def back(said: Any, cancel: Any) -> Receipt:
        assert isinstance(said, Restore) and said.wanted == BEFORE
        with pytest.raises(NotNow):
            switches.cancel("small")  # what brings it back is no reload that a person asked for
        return receipt("load", loaded=2**30)

    supervisor.answers = [lambda said, cancel: replaced(said, cancel), fresh, back]
    told = await asyncio.wait_for(switching(switches), 1)
    assert not told.ok and told.error is not None and told.error.endswith("; and small is loaded again")
    assert [step.name for step in told.steps] == [
        "verify, and replace the worker",
        "worker ended",
        "worker 7 ready",
        "bring back small",
    ]
    assert told.steps[-1].bytes == 2**30
    assert told.elapsed_s == pytest.approx(sum(step.elapsed_s for step in told.steps))


async def test_what_was_given_at_the_last_moment_is_kept() -> None:
    lock, cancel = asyncio.Lock(), Cancel("x")
    await lock.acquire()
    waiting = asyncio.create_task(cancel.unless(lock.acquire()))
    await settle()
    lock.release()
    cancel.ask()
    # Either it has the lock, or the lock is free: nobody holds it who does not know.
    try:
        await waiting
    except JobCancelled:
        assert not lock.locked()
    else:
        assert lock.locked()


async def test_a_switch_whose_worker_was_ended_before_it_began_does_not_go_to_the_fresh_one(
    switches: Switches, supervisor: FakeSupervisor
) -> None:
    looked = asyncio.Event()

    async def held_by(worker: Any) -> int:
        await looked.wait()
        return 2**33

    switches._proofs.held_by = held_by  # type: ignore[method-assign]
    task = switching(switches)
    await settle()
    supervisor.worker = FakeWorker()
    looked.set()
    with pytest.raises(WorkerReplaced):
        await asyncio.wait_for(task, 1)
    assert supervisor.asked == [] and not supervisor.device_lock.locked()


async def test_a_switch_whose_worker_dies_brings_the_previous_model_back_and_says_so(
    switches: Switches, supervisor: FakeSupervisor
) -> None:
    def dies(said: Any, cancel: Any) -> Receipt:
        supervisor.worker = FakeWorker()
        raise WorkerDied("worker 7 was ended by SIGKILL")

    def back(said: Any, cancel: Any) -> Receipt:
        assert isinstance(said, Restore) and said.wanted == BEFORE
        return receipt("load", loaded=2**30)

    supervisor.answers = [dies, back]
    told = await asyncio.wait_for(switching(switches), 1)
    assert (told.ok, told.error_code) == (False, "worker_died")
    assert told.error == "worker 7 was ended by SIGKILL; and small is loaded again"
    assert [step.name for step in told.steps] == ["worker ended", "bring back small"]
    assert not supervisor.device_lock.locked() and switches.under_way is None


async def test_a_previous_model_that_does_not_come_back_either_is_told_with_the_way_out(
    switches: Switches, supervisor: FakeSupervisor
) -> None:
    def dies(said: Any, cancel: Any) -> Receipt:
        raise WorkerDied("worker 7 was ended by SIGKILL")

    supervisor.answers = [dies, dies]
    told = await asyncio.wait_for(switching(switches), 1)
    assert told.error is not None
    assert "not all of small could be brought back: worker 7 was ended by SIGKILL" in told.error
    assert "`turbotui switch small` loads it" in told.error


async def test_a_cleanup_that_ends_what_brings_the_previous_model_back_does_that_itself(
    switches: Switches, supervisor: FakeSupervisor
) -> None:
    def dies(said: Any, cancel: Any) -> Receipt:
        raise WorkerDied("worker 7 was ended by SIGKILL")

    def cleaned_up(said: Any, cancel: Any) -> Receipt:
        assert switches.under_way is not None and switches.under_way.previous.wanted == BEFORE
        raise WorkerReplaced("worker 8 was ended: a hard cleanup was asked for")

    supervisor.answers = [dies, cleaned_up]
    with pytest.raises(WorkerReplaced, match="`turbotui switch large` asks for it again"):
        await asyncio.wait_for(switching(switches), 1)


@pytest.mark.parametrize(("left", "residue_bytes"), [(512, 0), (2**26, 2**26)])
async def test_a_residue_within_the_slack_is_none_as_after_an_unload(
    switches: Switches, supervisor: FakeSupervisor, residue: list[int], left: int, residue_bytes: int
) -> None:
    residue[0] = left
    supervisor.answers = [
        lambda said, cancel: receipt(
            "switch", expected_bytes=2**30, returned_bytes=2**30 - left, residue_bytes=left, residue=("x",)
        )
    ]
    told = await asyncio.wait_for(switching(switches), 1)
    assert (told.proof, told.residue_bytes, bool(told.residue)) == (
        "nvml-process",
        residue_bytes,
        bool(residue_bytes),
    )


async def test_a_switch_can_be_given_up_before_the_device_was_read(
    switches: Switches, supervisor: FakeSupervisor
) -> None:
    read = asyncio.Event()
    task = asyncio.create_task(
        switches.switch(model("large"), reserve=lambda _model: 0, device_read=read)  # type: ignore[arg-type]
    )
    await asyncio.sleep(0)
    assert switches.cancel("large") == ("large",)
    ended = await asyncio.wait_for(task, 1)
    assert (ended.ok, ended.error_code) == (False, JobCancelled.code)
    assert supervisor.asked == [] and not supervisor.device_lock.locked()


def test_how_far_a_step_has_come_is_told_and_is_no_step_of_the_receipt() -> None:
    steps = Steps(lambda step: None)
    steps.took(ReceiptStep(name="load dit", bytes=5, total_bytes=9, elapsed_s=0.25))
    steps.took(ReceiptStep(name="load dit", bytes=9, elapsed_s=0.5))
    assert [(step.name, step.bytes) for step in steps.taken] == [("load dit", 9)]


async def test_a_switch_that_does_not_fit_says_who_holds_the_rest(
    switches: Switches, supervisor: FakeSupervisor
) -> None:
    supervisor.answers = [lambda said, cancel: receipt("switch", error="too small", code=DoesNotFit.code)]
    assert (await switching(switches)).error == "too small; nobody"
