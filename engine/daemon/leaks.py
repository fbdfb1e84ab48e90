"""The search for leaks as the daemon runs it: everything looked at once, and the verdicts on it.

A look into the worker, the baseline check and what the ledger keeps are asked for side by side, so that
the whole takes no longer than the slowest of them; what does not answer in time is said to be unknown.
Event loop's thread only.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from engine.daemon.checks import Checks
from engine.daemon.ledger import LedgerBook, name_of
from engine.daemon.memory import MemoryView
from engine.daemon.model_use import ModelUse
from engine.daemon.supervisor import Supervisor
from engine.errors import EngineError, InvalidRequest, NotNow
from engine.jobs.store import JobStore
from engine.leaks.difference import since
from engine.leaks.facts import ComponentUse, Facts, HostMemory
from engine.leaks.numbers import Numbers
from engine.leaks.trend import FIRST, LEAST_COUNT
from engine.leaks.verdicts import verdicts
from engine.paths import user_name
from engine.wire import (
    CheckReport,
    DeviceStatus,
    ExportedSnapshot,
    ExportRequest,
    Job,
    LeakReport,
    Mark,
    MarkRequest,
    Tracing,
    Trend,
    WorkerStatus,
)
from engine.worker.leaks.facts import Findings

PATIENCE_S = 1.7
"""What each part gets, so that a report takes two seconds at the most, where nobody else looks."""
LATELY = 500
"""Ended jobs that are looked through for the last use of a model."""


class Leaks:
    """Looks, and joins what is seen."""

    def __init__(
        self,
        supervisor: Supervisor,
        memory: MemoryView,
        checks: Checks,
        store: JobStore,
        use: ModelUse,
        ledger: LedgerBook,
        *,
        output_dir: Path,
    ) -> None:
        """`output_dir` is where videos go, and where a console's snapshots do: the first one makes it."""
        self._supervisor = supervisor
        self._memory = memory
        self._checks = checks
        self._store = store
        self._use = use
        self._ledger = ledger
        self._output_dir = output_dir
        self._awaited: tuple[tuple[str, int], ...] = ()
        self._awaited_at: tuple[int, float] | None = None
        """The worker, and when it was last used, at the look that saw what waited."""
        self._marked: Findings | None = None
        self._numbers = Numbers()
        self._looking = asyncio.Lock()
        """The worker looks for one after another: who waits for another's look has all of its own time."""

    async def report(self) -> LeakReport:
        """Everything that holds memory and could be told, with what could not be looked at."""
        began = time.monotonic()
        unknown: list[str] = []
        look, checked = await asyncio.gather(self._look(unknown), self._check(unknown))
        facts = self._facts(look, checked, unknown)
        found = verdicts(facts)
        self._remember(facts)
        return LeakReport(
            at=facts.at,
            elapsed_s=round(time.monotonic() - began, 3),
            verdicts=self._numbers.give(found),
            trends=facts.trends,
            tracing=self._tracing(facts),
            sites=look.sites if look is not None else (),
            segments=look.segments if look is not None else (),
            objects=look.objects if look is not None else 0,
            since=None if self._marked is None else since(self._marked, look),
            unknown=tuple(unknown),
        )

    async def mark(self, request: MarkRequest) -> Mark:
        """Remember what is live in the worker now, with which later reports compare; or forget it.

        Raises:
            NotNow, WorkerDied, WorkerSilent: as `Inspections.inspect`; what was marked before stays.
        """
        if request.on:
            async with self._looking:
                self._marked = await self._supervisor.inspections.inspect()
            if self._marked is None:
                raise NotNow("there is no worker to look into; it starts with the next job or load")
        else:
            self._marked = None
        return Mark(at=None if self._marked is None else self._marked.at)

    async def trace(self, on: bool) -> Tracing:
        """Have the worker note where memory is allocated, or no more.

        Raises:
            NotNow, WorkerDied, WorkerSilent: as `Inspections.trace`.
        """
        return await self._supervisor.inspections.trace(on)

    async def export(self, request: ExportRequest) -> ExportedSnapshot:
        """Have the worker write its allocator's snapshot to a file on this machine.

        Raises:
            InvalidRequest: that is no place for a file.
            NotNow, WorkerDied, WorkerSilent: as `Inspections.export`.
        """
        path = Path(request.path)
        if not path.is_absolute() or "\0" in request.path:
            raise InvalidRequest(f"{request.path!r} is no absolute path; give one on the engine's machine")
        if path.parent == self._output_dir:
            with suppress(OSError):  # of which the worker tells when it writes
                self._output_dir.mkdir(parents=True, exist_ok=True)
        if not path.parent.is_dir():
            raise InvalidRequest(f"{path.parent} is no folder on the engine's machine; make it first")
        num_bytes = await self._supervisor.inspections.export(path, request.format)
        return ExportedSnapshot(path=str(path), bytes=num_bytes, format=request.format)

    # ----------------------------------------------------------------- what is looked at

    async def _look(self, unknown: list[str]) -> Findings | None:
        try:
            async with self._looking:
                look = await asyncio.wait_for(self._supervisor.inspections.inspect(), PATIENCE_S)
        except TimeoutError:
            unknown.append(f"the worker: it has not told what it holds within {PATIENCE_S:g} s")
            return None
        except EngineError as error:
            unknown.append(f"the worker: {error}")
            return None
        if look is not None:
            unknown += look.unknown
        return look

    async def _check(self, unknown: list[str]) -> CheckReport | None:
        try:
            report = await asyncio.wait_for(self._checks.check(), PATIENCE_S)
        except TimeoutError:
            unknown.append(f"processes and the driver: the check has not ended within {PATIENCE_S:g} s")
            return None
        unknown += report.unknown
        return report

    def _facts(self, look: Findings | None, checked: CheckReport | None, unknown: list[str]) -> Facts:
        workers = self._supervisor.statuses()
        worker = workers[0] if workers else None
        if worker is None:
            unknown.append("the worker: none runs, so nothing of ours can leak; the next job starts one")
        return Facts(
            at=time.time(),
            device=self._device(),
            worker=worker,
            components=self._components(),
            look=look,
            trends=self._trends(unknown),
            host=HostMemory()
            if look is None
            else HostMemory(
                pinned_bytes=look.pinned_bytes,
                pinned_used_bytes=look.pinned_used_bytes,
                heap_free_bytes=look.heap_free_bytes,
                shared_bytes=look.shared_bytes,
            ),
            checked=() if checked is None else checked.findings,
            awaited_before=self._awaited if self._now(worker) == self._awaited_at else (),
            uid_user=user_name(),
        )

    def _tracing(self, facts: Facts) -> Tracing:
        """As the worker told it with its look; before there is one, of the device that it will have."""
        tracing = self._supervisor.inspections.tracing
        if tracing.device is not None or facts.device is None:
            return tracing
        return replace(tracing, device=facts.device.kind)

    def _device(self) -> DeviceStatus | None:
        return next((device for device in self._memory.statuses() if device.in_use), None)

    def _trends(self, unknown: list[str]) -> tuple[Trend, ...]:
        worker = self._supervisor.worker
        if worker is None:
            return ()
        # Floors of a worker that has gone say nothing of this one.
        found = self._ledger.trends if self._ledger.worker == name_of(worker) else ()
        most = max((trend.count for trend in found), default=0)
        if most < LEAST_COUNT:
            unknown.append(
                f"growth: {most} of {LEAST_COUNT} jobs or switches alike since this worker started, "
                f"without the first {FIRST} of each kind; a slope needs more"
            )
        if self._ledger.problem is not None:
            unknown.append(f"growth: {self._ledger.problem}")
        return found

    def _components(self) -> tuple[ComponentUse, ...]:
        jobs = self._store.list_jobs(LATELY)
        wanted = {job.spec.model for job in jobs if job.finished_at is None}
        if self._use.active is not None:
            wanted.add(self._use.active)
        found = []
        for state in self._supervisor.residents.resident():
            used_at = self._use.last_used_at(state.model)
            found.append(
                ComponentUse(
                    model=state.model,
                    component=state.component,
                    bytes=state.bytes,
                    leased=state.leased,
                    # Without an active model nothing is forgotten: nobody has chosen another.
                    wanted=self._use.active is None or state.model in wanted,
                    used_at=used_at,
                    jobs_since=sum(_ended_after(job, state.model, used_at) for job in jobs),
                )
            )
        return tuple(found)

    # ----------------------------------------------------------------- from one look to the next

    def _now(self, worker: WorkerStatus | None) -> tuple[int, float] | None:
        return None if worker is None else (worker.pid, self._supervisor.used_at)

    def _remember(self, facts: Facts) -> None:
        look = facts.look
        idle = facts.idle and look is not None and look.allocator is not None
        self._awaited_at = self._now(facts.worker) if idle else None
        self._awaited = tuple(look.allocator.awaiting.items()) if idle else ()  # type: ignore[union-attr]


def _ended_after(job: Job, model: str, used_at: float | None) -> bool:
    """Whether it is another model's and ended after that."""
    return job.spec.model != model and job.finished_at is not None and job.finished_at > (used_at or 0.0)
