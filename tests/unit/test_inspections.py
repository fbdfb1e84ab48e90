"""Asking a worker what it holds: answers find who waits, and a worker that ends or hangs ends the wait."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from engine.daemon import inspections as module
from engine.daemon.inspections import Inspections
from engine.errors import NotNow, WorkerDied, WorkerSilent
from engine.wire import Tracing
from engine.worker.leaks.facts import Findings, Inspect, Inspected, Trace


class FakeWorker:
    pid = 7

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, message: Any) -> None:
        self.sent.append(message)


FINDINGS = Findings(at=1.0, elapsed_s=0.1, pid=7, objects=3, tracing=Tracing(on=False))


async def asked(worker: FakeWorker) -> Any:
    while not worker.sent:
        await asyncio.sleep(0)
    return worker.sent.pop()


def test_each_answer_goes_to_the_one_who_asked() -> None:
    async def run() -> None:
        worker = FakeWorker()
        inspections = Inspections(lambda: worker)  # type: ignore[arg-type,return-value]
        first, tracing = asyncio.create_task(inspections.inspect()), None
        message = await asked(worker)
        assert isinstance(message, Inspect) and message.export is None
        second = asyncio.create_task(inspections.trace(True))
        trace = await asked(worker)
        assert isinstance(trace, Trace) and trace.on
        tracing = Tracing(on=True, limit=10)
        inspections.heard(Inspected(inspection_id=trace.inspection_id, tracing=tracing))
        assert await second == tracing == inspections.tracing
        assert not first.done()
        inspections.heard(Inspected(inspection_id=message.inspection_id, tracing=tracing, findings=FINDINGS))
        assert await first == FINDINGS
        inspections.heard(Inspected(inspection_id=message.inspection_id, tracing=tracing))  # late: ignored

    asyncio.run(run())


def test_a_refusal_is_told_in_the_worker_s_words() -> None:
    async def run() -> None:
        worker = FakeWorker()
        inspections = Inspections(lambda: worker)  # type: ignore[arg-type,return-value]
        export = asyncio.create_task(inspections.export(Path("/x/snapshot.pickle"), "pickle"))
        message = await asked(worker)
        assert (message.export, message.export_format) == ("/x/snapshot.pickle", "pickle")
        inspections.heard(
            Inspected(
                inspection_id=message.inspection_id, tracing=Tracing(on=False), refusal="only with a GPU"
            )
        )
        with pytest.raises(NotNow, match="only with a GPU"):
            await export

    asyncio.run(run())


def test_without_a_worker_there_is_nothing_to_find_and_nothing_to_trace() -> None:
    async def run() -> None:
        inspections = Inspections(lambda: None)
        assert await inspections.inspect() is None
        with pytest.raises(NotNow, match="no worker"):
            await inspections.trace(True)

    asyncio.run(run())


def test_what_tracing_has_cost_is_known_before_it_is_on_again() -> None:
    async def run() -> None:
        worker = FakeWorker()
        inspections = Inspections(lambda: worker)  # type: ignore[arg-type,return-value]
        measured = Tracing(on=True, device="cpu", cost_share=0.9)
        inspections.heard(Inspected(inspection_id=99, tracing=measured))
        inspections.worker_died(WorkerDied("worker 7 was ended"))
        assert inspections.tracing == Tracing(on=False, device="cpu", cost_share=0.9)
        again = asyncio.create_task(inspections.trace(True))
        message = await asked(worker)
        fresh = Tracing(on=True, device="cpu")
        inspections.heard(Inspected(inspection_id=message.inspection_id, tracing=fresh))
        assert (await again).cost_share == 0.9

    asyncio.run(run())


def test_a_worker_that_ends_or_hangs_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        worker = FakeWorker()
        inspections = Inspections(lambda: worker)  # type: ignore[arg-type,return-value]
        inspections.tracing = Tracing(on=True)
        look = asyncio.create_task(inspections.inspect())
        await asked(worker)
        inspections.worker_died(WorkerDied("worker 7 was ended"))
        with pytest.raises(WorkerDied):
            await look
        assert not inspections.tracing.on
        monkeypatch.setattr(module, "PATIENCE_S", 0.01)
        with pytest.raises(WorkerSilent, match="has not told what it holds"):
            await inspections.inspect()

    asyncio.run(run())
