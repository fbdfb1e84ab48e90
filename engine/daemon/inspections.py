"""Looks into the worker that somebody waits for: what is live there, who holds it, and where it was made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

from engine.daemon.answers import fail
from engine.daemon.worker import WorkerProcess
from engine.errors import NotNow, WorkerDied, WorkerSilent
from engine.wire import Tracing
from engine.worker.channel import ToWorker
from engine.worker.leaks.facts import ExportFormat, Findings, Inspect, Inspected, Trace

PATIENCE_S = 20.0
"""A look takes two seconds at the most; one that waits for a swapped-out heap takes longer."""


class Inspections:
    """Event loop's thread only."""

    def __init__(self, worker: Callable[[], WorkerProcess | None]) -> None:
        """`worker` gives the live worker; nothing here starts one, which would hold nothing."""
        self._worker = worker
        self._numbers = count(1)
        self._answers: dict[int, asyncio.Future[Inspected]] = {}
        self.tracing = Tracing(on=False)
        """As the worker told it last; a fresh worker traces nothing."""

    async def inspect(self) -> Findings | None:
        """What is live in the worker and who holds it; None where there is no worker.

        It does not start one, wakes no device, and may be called at any time, also under a job.

        Raises:
            WorkerDied, WorkerSilent: it ended meanwhile, or has not answered for `PATIENCE_S`.
            NotNow: it could not look; the text says why.
        """
        if self._worker() is None:
            return None
        answer = await self._ask(lambda number: Inspect(inspection_id=number))
        if answer.findings is None:
            raise NotNow(answer.refusal or "the worker found nothing to look at")
        return answer.findings

    async def trace(self, on: bool) -> Tracing:
        """Have the worker note where memory is allocated, or no more; how it is after that.

        Raises:
            WorkerDied, WorkerSilent: as `inspect`.
            NotNow: there is no worker, or it cannot.
        """
        answer = await self._ask(lambda number: Trace(inspection_id=number, on=on))
        if answer.refusal is not None:
            raise NotNow(answer.refusal)
        return self._with_cost(answer.tracing)

    async def export(self, path: Path, export_format: ExportFormat) -> int:
        """Have the worker write its allocator's snapshot to `path`, whole or not at all; its length in bytes.

        Raises:
            WorkerDied, WorkerSilent: as `inspect`.
            NotNow: there is no worker, it has no such snapshot, or the file cannot be written.
        """
        answer = await self._ask(
            lambda number: Inspect(inspection_id=number, export=str(path), export_format=export_format)
        )
        if answer.exported_bytes is None:
            raise NotNow(answer.refusal or f"{path} was not written")
        return answer.exported_bytes

    async def _ask(self, message: Callable[[int], ToWorker]) -> Inspected:
        worker = self._worker()
        if worker is None:
            raise NotNow("there is no worker to look into; it starts with the next job or load")
        number = next(self._numbers)
        answer: asyncio.Future[Inspected] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        worker.send(message(number))
        try:
            return await asyncio.wait_for(answer, PATIENCE_S)
        except TimeoutError:
            raise WorkerSilent(
                f"worker {worker.pid} has not told what it holds for {PATIENCE_S:.0f} s; "
                "`turbotui cleanup` ends it and starts another"
            ) from None
        finally:
            del self._answers[number]

    def heard(self, message: Inspected) -> None:
        """An answer; one that nobody waits for any more only tells whether it traces."""
        self.tracing = self._with_cost(message.tracing)
        answer = self._answers.get(message.inspection_id)
        if answer is not None and not answer.done():
            answer.set_result(message)

    def worker_died(self, died: WorkerDied) -> None:
        """Nothing of it will be answered, and its trace is gone; what that cost stays known."""
        self.tracing = self._with_cost(Tracing(on=False, device=self.tracing.device))
        for answer in self._answers.values():
            fail(answer, died)

    def _with_cost(self, tracing: Tracing) -> Tracing:
        """With what it cost when it was measured last, where the worker has not measured it yet."""
        if tracing.cost_share is not None:
            return tracing
        return replace(tracing, cost_share=self.tracing.cost_share)
