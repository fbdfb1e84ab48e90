"""Runs a verdict's remedy by the action that there is for it, and compares what it promised with what came.

Event loop's thread only.
"""

from __future__ import annotations

from dataclasses import replace

from engine.daemon.actions import Actions
from engine.daemon.audit import Asker, AuditLog
from engine.daemon.memory import MemoryView
from engine.daemon.memory_requests import MemoryRequests
from engine.daemon.orphans import Orphans
from engine.daemon.proofs import Proofs
from engine.daemon.receipts import slack, uncertain
from engine.daemon.supervisor import Supervisor
from engine.errors import InvalidRequest
from engine.wire import (
    CleanupRequest,
    KillRequest,
    Receipt,
    Remedy,
    RemedyRequest,
    RemedyResult,
    UnloadRequest,
)


class Remedies:
    """One at a time is run for each that asks; the actions themselves take turns."""

    def __init__(
        self,
        actions: Actions,
        requests: MemoryRequests,
        supervisor: Supervisor,
        memory: MemoryView,
        proofs: Proofs,
        orphans: Orphans,
        audit: AuditLog,
    ) -> None:
        self._actions = actions
        self._requests = requests
        self._supervisor = supervisor
        self._memory = memory
        self._proofs = proofs
        self._orphans = orphans
        self._audit = audit

    async def run(self, request: RemedyRequest, *, asker: Asker | None) -> RemedyResult:
        """Do it, and say what came back of what was promised.

        Raises:
            InvalidRequest: it does not name what it acts on.
            EngineError: what the action raises.
        """
        remedy = request.remedy
        if remedy.action == "cleanup":
            receipt, returned = await self._clean_up(asker)
        else:
            receipt = await self._act(request, asker)
            returned = receipt.returned_bytes
        predicted = remedy.predicted_bytes
        kept = None
        if not receipt.ok:
            kept = False
        elif predicted is not None and returned is not None:
            missing = slack(predicted)
            if receipt.proof == "process-rss":
                missing = max(missing, uncertain(predicted))
            kept = returned >= predicted - missing
        return RemedyResult(
            remedy=remedy, predicted_bytes=predicted, returned_bytes=returned, kept=kept, receipt=receipt
        )

    async def _act(self, request: RemedyRequest, asker: Asker | None) -> Receipt:
        remedy = request.remedy
        predicted = max(0, remedy.predicted_bytes or 0)
        match remedy.action:
            case "free":
                return await self._actions.free(idle=False, cache_bytes=predicted)
            case "collect" | "free_pinned" | "trim" as what:
                return await self._actions.tidy(what, predicted)
            case "unload":
                return await self._requests.unload(_unload(remedy))
            case "park":
                return await self._requests.park(asker=asker)
            case "kill":
                return await self._kill(request, asker)
            case other:
                raise InvalidRequest(f"there is no remedy {other!r}; take one from the report")

    async def _clean_up(self, asker: Asker | None) -> tuple[Receipt, int | None]:
        """A cleanup, and what the worker holds less after it: weights that came back are no gain."""
        before = None
        if (worker := self._supervisor.worker) is not None:
            before = await self._proofs.held_by(worker)
        receipt = await self._requests.cleanup(CleanupRequest(), asker=asker)
        after = None
        if (worker := self._supervisor.worker) is not None:
            after = await self._proofs.held_by(worker)
        if before is None or after is None:
            return receipt, None
        note = "what came back is counted less what the fresh worker holds"
        return replace(receipt, notes=(*receipt.notes, note)), max(0, before - after)

    async def _kill(self, request: RemedyRequest, asker: Asker | None) -> Receipt:
        pid, start_time = request.remedy.pid, request.remedy.start_time
        if pid is None or start_time is None:
            raise InvalidRequest("a kill names its process by pid and start time, as the report told them")
        on_card = any(
            listed.pid == pid
            for device in self._memory.statuses()
            if device.kind == "cuda"
            for listed in device.processes
        )
        if on_card:
            kill = KillRequest(pid=pid, start_time=start_time, other_user=request.other_user)
            return await self._requests.kill(kill, asker=asker)
        name = f"process {pid}, started at {start_time}"
        return await self._audit.deed("kill", name, asker, lambda: self._orphans.end(pid, start_time))


def _unload(remedy: Remedy) -> UnloadRequest:
    model, slash, component = (remedy.target or "").rpartition("/")
    if not (model and slash and component):
        raise InvalidRequest(f"unload needs a component as MODEL/COMPONENT, not {remedy.target!r}")
    return UnloadRequest(model=model, component=component)
