"""What requests about memory ask: names made models, mistakes refused, deeds written to the audit.

What is then done is in `engine.daemon.actions` and `engine.daemon.kill`, what would be done in
`engine.daemon.planner`.
"""

from __future__ import annotations

from functools import partial

from engine.daemon.actions import Actions
from engine.daemon.audit import Asker, AuditLog
from engine.daemon.job_plans import JobPlans
from engine.daemon.kill import Kill
from engine.daemon.model_list import ModelList
from engine.daemon.model_use import ModelUse
from engine.daemon.planner import Planner
from engine.daemon.readiness import FirstReading
from engine.daemon.supervisor import Supervisor
from engine.daemon.victims import Victims
from engine.errors import InvalidRequest, NotFound, NotNow
from engine.models.catalog import Catalog
from engine.wire import (
    CancelAsked,
    CancelRequest,
    CleanupRequest,
    Explanation,
    JobSpec,
    KillRequest,
    Receipt,
    ReceiptAction,
    SpareRequest,
    UnloadRequest,
    WarmRequest,
)


class MemoryRequests:
    """Each that changes something gives its receipt. Event loop's thread only."""

    def __init__(
        self,
        catalog: Catalog,
        supervisor: Supervisor,
        actions: Actions,
        kill: Kill,
        planner: Planner,
        plans: JobPlans,
        first_reading: FirstReading,
        use: ModelUse,
        models: ModelList,
        audit: AuditLog,
        victims: Victims,
    ) -> None:
        self._catalog = catalog
        self._supervisor = supervisor
        self._actions = actions
        self._kill = kill
        self._planner = planner
        self._plans = plans
        self._first_reading = first_reading
        self._use = use
        self._models = models
        self._audit = audit
        self._victims = victims

    # ----------------------------------------------------------------- weights on the device

    async def switch(self, name: str) -> Receipt:
        model = self._catalog.get(name)
        if model.problem is not None:
            raise NotNow(f"{name} cannot be loaded: {model.problem}")
        receipt = await self._actions.switches.switch(
            model, reserve=self._planner.reserve_bytes, device_read=self._first_reading
        )
        self._switched(name, receipt)
        return receipt

    def cancel_switch(self, request: CancelRequest) -> CancelAsked:
        if request.model is not None:
            self._catalog.get(request.model)
        return CancelAsked(targets=self._actions.switches.cancel(request.model))

    def ended_late(self, action: ReceiptAction, target: str, receipt: Receipt) -> None:
        """A worker that was given up as silent did what it had been asked for."""
        if action == "switch":
            self._switched(target, receipt)

    async def unload(self, request: UnloadRequest) -> Receipt:
        if request.model is None:
            _refuse_without_model(request.component)
        else:
            names = self._component_names(request.model)
            if request.component not in (None, *names):
                raise NotFound(
                    f"{request.model} has no component {request.component!r}; it has {', '.join(names)}"
                )
        return await self._actions.unload(request.model, request.component)

    # ----------------------------------------------------------------- processes

    async def park(self, *, asker: Asker | None) -> Receipt:
        return await self._audit.deed("park", self._worker_named(), asker, self._actions.park)

    async def cleanup(self, request: CleanupRequest, *, asker: Asker | None) -> Receipt:
        work = partial(self._actions.cleanup, reload=request.reload)
        return await self._audit.deed("cleanup", self._worker_named(), asker, work)

    def _worker_named(self) -> str:
        pid = self._supervisor.pid
        return "no worker" if pid is None else f"worker {pid}"

    async def kill(self, request: KillRequest, *, asker: Asker | None) -> Receipt:
        work = partial(self._kill.run, request, asked_by=str(asker or "?"))
        return await self._audit.deed("kill", self._victims.named(request), asker, work)

    def spare(self, request: SpareRequest, *, asker: Asker | None) -> None:
        self._kill.spare(request.pid)
        self._audit.write("spare", f"process {request.pid}", "no SIGKILL is sent", asker)

    # ----------------------------------------------------------------- host memory

    async def warm(self, request: WarmRequest) -> Receipt:
        if request.model is None:
            raise InvalidRequest("name the model whose files should stay in host memory")
        model = self._catalog.get(request.model)
        if model.problem is not None:
            raise NotNow(f"{model.name} cannot be kept warm: {model.problem}")
        await self._first_reading.wait()
        return await self._actions.warm(model, request.component)

    async def drop_warm(self, request: WarmRequest) -> Receipt:
        if request.model is None:
            _refuse_without_model(request.component)
        models = None if request.model is None else [self._catalog.get(request.model)]
        return await self._actions.drop_warm(models, request.component)

    # ----------------------------------------------------------------- what would be done

    async def explain_job(self, spec: JobSpec) -> Explanation:
        """What a job would do with the weights if it ran now."""
        await self._first_reading.wait()
        return await self._planner.explain_job(self._plans.admit(spec))

    async def explain_switch(self, name: str) -> Explanation:
        """What a switch to the model would do if it were asked for now."""
        model = self._catalog.get(name)
        await self._first_reading.wait()
        return self._planner.explain_switch(model)

    def _switched(self, name: str, receipt: Receipt) -> None:
        if receipt.ok:
            self._use.asked(name)
            self._models.changed()

    def _component_names(self, model: str) -> list[str]:
        """Of a model on disk, or of one whose folder is gone and that is still loaded."""
        loaded = list(self._supervisor.residents.of_model(model))
        try:
            found = self._catalog.get(model).components
        except NotFound:
            if not loaded:
                raise
            return loaded
        return list(dict.fromkeys([*(component.name for component in found), *loaded]))


def _refuse_without_model(component: str | None) -> None:
    if component is not None:
        raise NotFound(f"a component needs its model: name both, as in MODEL/{component}")
