"""A worker that says nothing: what is told of it, and what happens when it speaks again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.config import EngineConfig
from engine.daemon import worker_starter as starter_module
from engine.daemon.previews import Previews
from engine.daemon.rates import Rates
from engine.daemon.receipt_book import ReceiptBook
from engine.daemon.silence_watch import (
    DIES_S,
    MOST_START_S,
    SHOWN_START_S,
    SILENT_S,
    SLOW_START_S,
    START_S,
    TAKES_S,
)
from engine.daemon.supervisor import Supervisor
from engine.daemon.worker import WorkerExit
from engine.daemon.worker_starter import WorkerStarter
from engine.errors import WorkerDied, WorkerNotStarted, WorkerSilent
from engine.wire import Receipt, ReceiptAction
from engine.worker.channel import (
    ActionEnded,
    AllocatorSample,
    JobProgressed,
    Unload,
    Unloaded,
    WorkerReady,
)


class FakeWorker:
    pid = 7
    device_id = "cpu"
    started_at = asked_at = 0.0
    forked = True

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.killed: list[str] = []

    def send(self, message: Any) -> None:
        self.sent.append(message)

    def kill(self, reason: str) -> None:
        self.killed.append(reason)


class FakeSilence:
    """Says what the test says."""

    seconds = 0.0

    def heard(self) -> None:
        self.seconds = 0.0

    def look(self) -> float:
        return self.seconds


class Kept:
    """A supervisor over a worker that the test plays."""

    def __init__(self, tmp_path: Path) -> None:
        self.log: list[str] = []
        self.issued: list[Receipt] = []
        self.late: list[tuple[str, str, bool]] = []
        memory = SimpleNamespace(
            device_id="cpu",
            worker_started=lambda pid, device: None,
            worker_ready=lambda ready: None,
            worker_gone=lambda: None,
            measure_context=lambda: None,
            heard_worker=lambda message: None,
            rss_bytes=lambda pid: None,
        )
        nursery: Any = SimpleNamespace(pid=1)
        logbook: Any = SimpleNamespace(write=lambda event, text, **_: self.log.append(text))
        self.receipts = ReceiptBook(logbook, lambda event: None)
        self.supervisor = Supervisor(
            starter=WorkerStarter(
                EngineConfig(),
                embeddings=tmp_path,
                nursery=nursery,
                rates=Rates(tmp_path / "rates.json"),
                log_path=tmp_path / "worker.log",
            ),
            nursery=nursery,
            memory=memory,  # type: ignore[arg-type]
            logbook=logbook,
            receipts=self.receipts,
            on_change=lambda: None,
            on_models=lambda: None,
            on_progress=lambda job_id, progress: None,
            previews=Previews(publish=lambda event: None),
        )
        self.worker = FakeWorker()
        self.silence = FakeSilence()
        self.supervisor._worker = self.worker  # type: ignore[assignment]
        self.supervisor._watch._silence = self.silence  # type: ignore[assignment]
        self.supervisor._state = "idle"

        def ended_late(action: ReceiptAction, target: str, receipt: Receipt) -> None:
            self.late.append((action, target, receipt.ok))
            self.issued.append(receipt)

        self.supervisor.on_late = ended_late

    def hear(self, message: Any) -> None:
        self.supervisor._heard(self.worker, message)  # type: ignore[arg-type]

    def fall_silent(self, seconds: float) -> None:
        self.silence.seconds = seconds
        self.supervisor.look_after()

    async def ask(self, action: ReceiptAction, target: str, **more: Any) -> asyncio.Task[Receipt]:
        task = asyncio.create_task(
            self.supervisor.ask(action, target, lambda number: Unload(action_id=number), **more)
        )
        await asyncio.sleep(0)
        return task

    @property
    def state(self) -> str:
        return self.supervisor.statuses()[0].state


@pytest.fixture
def kept(tmp_path: Path) -> Callable[[], Kept]:
    return lambda: Kept(tmp_path)


SAMPLE = AllocatorSample(taken_at=0.0, device_allocs=0, weights={})


def receipt(action: ReceiptAction) -> Receipt:
    return Receipt(action=action, target="x", ok=True, elapsed_s=0.1, proof="allocator")


@pytest.mark.parametrize("action", ["switch", "unload", "warm", "drop_warm"])
async def test_every_action_of_a_silent_worker_is_answered(
    kept: Callable[[], Kept], action: ReceiptAction
) -> None:
    found = kept()
    asked = await found.ask(action, "small")
    found.fall_silent(SILENT_S - 1)
    assert not asked.done()
    found.fall_silent(SILENT_S)
    with pytest.raises(WorkerSilent, match=r"small: the worker has said nothing for 10 s.*cleanup") as failed:
        await asked
    assert failed.value.exit_code == 5


async def test_a_silent_worker_is_shown_as_such_also_under_a_job(kept: Callable[[], Kept]) -> None:
    found = kept()
    job = asyncio.create_task(found.supervisor.run_job(SimpleNamespace(job_id=3)))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    found.fall_silent(1.0)
    assert found.state == "running"
    found.fall_silent(4.0)
    assert (found.state, found.supervisor.running_job) == ("silent", 3)
    found.hear(SAMPLE)
    assert found.state == "running"
    assert found.log == ["worker 7 says nothing, for 4 s by now", "worker 7 speaks again"]
    assert found.worker.killed == [] and not job.done()
    job.cancel()


async def test_what_a_worker_does_after_its_silence_has_a_receipt(kept: Callable[[], Kept]) -> None:
    found = kept()
    unloaded: list[int] = []
    asked = await found.ask(
        "switch", "small", on_unloaded=lambda worker, told: unloaded.append(told.action_id)
    )
    found.fall_silent(SILENT_S)
    with pytest.raises(WorkerSilent):
        await asked
    found.hear(Unloaded(action_id=1, expected_bytes=0, cache_bytes=0, held_bytes=0))
    assert unloaded == [1], "the worker waits for the word to go on"
    assert found.state == "loading"
    found.hear(ActionEnded(action_id=1, receipt=receipt("switch")))
    assert found.late == [("switch", "small", True)]
    assert found.receipts.newest == found.issued[0]
    assert found.issued[0].proof_reason is not None and "silent" in found.issued[0].proof_reason
    assert found.state == "idle"


async def test_a_worker_that_dies_in_its_silence_has_nothing_late(kept: Callable[[], Kept]) -> None:
    found = kept()
    asked = await found.ask("unload", "small")
    found.fall_silent(SILENT_S)
    with pytest.raises(WorkerSilent):
        await asked
    found.supervisor._forget(WorkerDied("gone"))
    assert found.supervisor._pending._actions == {}


async def starting(found: Kept, monkeypatch: pytest.MonkeyPatch, *, forked: bool) -> asyncio.Task[Any]:
    """A start whose worker is there and not ready."""

    async def start_worker(*_: object, **__: object) -> FakeWorker:
        return found.worker

    monkeypatch.setattr(starter_module, "start_worker", start_worker)
    found.worker.forked = forked
    found.supervisor._worker = None
    task = asyncio.create_task(found.supervisor.ensure_worker())
    for _ in range(5):
        await asyncio.sleep(0)
    assert found.supervisor.starting and found.supervisor.worker is not None
    return task


@pytest.mark.parametrize(("forked", "limit"), [(True, START_S), (False, SLOW_START_S)])
async def test_a_worker_that_hangs_in_its_start_is_ended_and_the_start_fails(
    kept: Callable[[], Kept], monkeypatch: pytest.MonkeyPatch, forked: bool, limit: float
) -> None:
    found = kept()
    start = await starting(found, monkeypatch, forked=forked)
    found.fall_silent(limit - 1)
    await asyncio.sleep(0)
    assert not start.done() and found.worker.killed == []
    found.fall_silent(limit)
    await asyncio.sleep(0)
    assert len(found.worker.killed) == 1 and not start.done(), "its end tells more"
    found.fall_silent(limit + DIES_S)
    with pytest.raises(WorkerNotStarted, match=r"worker 7 was not ready after \d+ s.*ask again"):
        await start
    assert len(found.worker.killed) == 1
    await asyncio.sleep(0)
    assert found.supervisor.worker is None and not found.supervisor.starting


async def test_a_start_that_is_slow_is_shown_before_it_is_ended(
    kept: Callable[[], Kept], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = kept()
    start = await starting(found, monkeypatch, forked=True)
    found.fall_silent(SHOWN_START_S - 1)
    assert found.state == "starting" and found.log == []
    found.fall_silent(SHOWN_START_S)
    assert found.state == "silent"
    assert found.log == ["worker 7 is not ready and has said nothing, for 15 s"]
    start.cancel()


async def test_a_worker_that_says_something_now_and_then_and_is_never_ready_is_ended_too(
    kept: Callable[[], Kept], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = kept()
    start = await starting(found, monkeypatch, forked=True)
    since = FakeSilence()
    found.supervisor._watch._start = since  # type: ignore[assignment]
    for since.seconds in (START_S, START_S * MOST_START_S - 1):
        found.hear(SAMPLE)
        found.supervisor.look_after()
    assert found.worker.killed == []
    for since.seconds in (START_S * MOST_START_S, START_S * MOST_START_S + DIES_S):
        found.hear(SAMPLE)
        found.supervisor.look_after()
    with pytest.raises(WorkerNotStarted, match="was not ready after 122 s"):
        await start
    assert found.worker.killed == ["it was not ready after 120 s"], "it did say something"


async def test_a_worker_that_dies_in_its_start_is_told_with_what_it_printed_last(
    kept: Callable[[], Kept], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = kept()
    start = await starting(found, monkeypatch, forked=False)
    died = WorkerExit(pid=7, code=1, last_words="import torch | MemoryError")
    found.supervisor._exited(found.worker, died)  # type: ignore[arg-type]
    told = "worker 7 exited with code 1; its last words: import torch | MemoryError"
    with pytest.raises(WorkerNotStarted) as failed:
        await start
    assert str(failed.value) == told and found.log == [told]


async def test_a_job_that_the_worker_does_not_begin_ends_the_worker_and_is_not_to_blame(
    kept: Callable[[], Kept],
) -> None:
    found, untaken = kept(), FakeSilence()
    found.supervisor._watch._untaken = untaken  # type: ignore[assignment]
    job = asyncio.create_task(found.supervisor.run_job(SimpleNamespace(job_id=3)))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    untaken.seconds = TAKES_S - 1
    found.hear(SAMPLE)
    found.supervisor.look_after()
    assert found.worker.killed == []
    untaken.seconds = TAKES_S
    found.supervisor.look_after()
    assert found.worker.killed == ["it was handed job 3 and has not begun it for 60 s"]
    died = WorkerExit(pid=7, code=-9, reason=found.worker.killed[0])
    found.supervisor._exited(found.worker, died)  # type: ignore[arg-type]
    with pytest.raises(WorkerNotStarted, match="has not begun it"):
        await job


async def test_the_worker_after_one_that_did_not_begin_a_job_has_all_of_its_own_time(
    kept: Callable[[], Kept], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, untaken = kept(), FakeSilence()
    found.supervisor._watch._untaken = untaken  # type: ignore[assignment]
    job = asyncio.create_task(found.supervisor.run_job(SimpleNamespace(job_id=3)))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    untaken.seconds = TAKES_S
    found.supervisor.look_after()
    died = WorkerExit(pid=7, code=-9, reason=found.worker.killed.pop())
    found.supervisor._exited(found.worker, died)  # type: ignore[arg-type]
    with pytest.raises(WorkerNotStarted):
        await job
    start = await starting(found, monkeypatch, forked=True)
    ready = WorkerReady(pid=7, device_name="CPU", total_bytes=1, baseline_rss_bytes=1, versions={})
    found.hear(ready)
    await start
    again = asyncio.create_task(found.supervisor.run_job(SimpleNamespace(job_id=3)))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    found.supervisor.look_after()
    assert found.worker.killed == []
    again.cancel()


async def test_a_job_behind_a_load_that_nobody_waits_for_any_more_waits_for_it(
    kept: Callable[[], Kept],
) -> None:
    found, untaken = kept(), FakeSilence()
    found.supervisor._watch._untaken = untaken  # type: ignore[assignment]
    asked = await found.ask("switch", "small")
    found.fall_silent(SILENT_S)
    with pytest.raises(WorkerSilent):
        await asked
    found.hear(SAMPLE)  # it reads a file from a slow disk, on the thread that would run the job
    job = asyncio.create_task(found.supervisor.run_job(SimpleNamespace(job_id=3)))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    untaken.seconds = TAKES_S
    found.supervisor.look_after()
    assert found.worker.killed == []
    found.hear(ActionEnded(action_id=1, receipt=receipt("switch")))
    untaken.seconds = TAKES_S
    found.supervisor.look_after()
    assert len(found.worker.killed) == 1
    job.cancel()


async def test_a_job_that_was_begun_may_take_as_long_as_it_does(kept: Callable[[], Kept]) -> None:
    found, untaken = kept(), FakeSilence()
    found.supervisor._watch._untaken = untaken  # type: ignore[assignment]
    job = asyncio.create_task(found.supervisor.run_job(SimpleNamespace(job_id=3)))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    found.hear(
        JobProgressed(job_id=3, stage="start", step=0, steps=0, fraction=0.0, eta_s=None, peak_bytes=None)
    )
    untaken.seconds = TAKES_S
    found.supervisor.look_after()
    assert found.worker.killed == []
    died = WorkerExit(pid=7, code=-9)
    found.supervisor._exited(found.worker, died)  # type: ignore[arg-type]
    with pytest.raises(WorkerDied) as failed:
        await job
    assert failed.value.code == "worker_died", "the job may have killed it"
