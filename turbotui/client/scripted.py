"""Owns an engine that is only a script: a Client over its events that remembers what it was asked.

The tests drive the console with it, and the cost of drawing is measured over it; nothing else uses it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from engine.errors import EngineError, EngineUnavailable, NotFound
from engine.wire import (
    WIRE_VERSION,
    AuditPage,
    BatchForecast,
    BatchLine,
    BatchQueued,
    CacheCleared,
    CacheStatus,
    CancelAsked,
    CancelRequest,
    CheckReport,
    CleanupRequest,
    ErrandStatus,
    Explanation,
    ExportedSnapshot,
    ExportRequest,
    FullCleanupPlan,
    FullCleanupRequest,
    GetPlan,
    GetRequest,
    Hello,
    ImportRequest,
    Job,
    JobBatch,
    JobCourse,
    JobForecast,
    JobMove,
    JobPreview,
    JobSpec,
    KillRequest,
    LeakReport,
    LedgerKind,
    LedgerPage,
    LogLine,
    Mark,
    MarkRequest,
    MemoryHistory,
    ModelScan,
    ModelStatus,
    OomReport,
    OutputList,
    PruneRequest,
    PruneResult,
    QuantisePlan,
    QuantiseRequest,
    QuantiseStopped,
    Receipt,
    ReleasedModel,
    RemedyRequest,
    RemedyResult,
    ResetHelper,
    ResetPlan,
    ResetRequest,
    ScanRequest,
    Snapshot,
    SpareRequest,
    Status,
    StopRequest,
    SwitchRequest,
    TraceRequest,
    Tracing,
    UnloadRequest,
    WarmRequest,
)
from turbotui.client.script import Script, Step

if TYPE_CHECKING:
    from engine.wire import Proof, ReceiptAction

GIB = 2**30

Answer = TypeVar("Answer")


class ScriptedClient(Script):
    """Answers what it is asked, beside the events of its script.

    Args:
        ends: What to raise when the script is over, instead of staying silent.
        answers: Method name to what it returns, or an EngineError to raise.
    """

    def __init__(
        self,
        script: Iterable[Step],
        *,
        ends: EngineError | None = None,
        answers: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(script, ends=ends)
        self._answers = dict(answers or {})
        self.asked: list[tuple[Any, ...]] = []
        """Every call with its arguments, in order."""

    def _answer(self, name: str, *arguments: Any, default: Answer | EngineError) -> Answer:
        self.asked.append((name, *arguments))
        answer: Any = self._answers.get(name, default)
        if isinstance(answer, EngineError):
            raise answer
        found: Answer = answer(*arguments) if callable(answer) else answer
        return found

    def _known(self) -> Snapshot:
        if self.snapshot is None:
            raise EngineUnavailable("the script has sent no snapshot yet")
        return self.snapshot

    def hello(self) -> Hello:
        hello = Hello(
            wire=WIRE_VERSION,
            build="scripted",
            schema=1,
            pid=1,
            start_time=0.0,
            instance="s",
            host="box",
            user="me",
        )
        return self._answer("hello", default=hello)

    def status(self) -> Status:
        return self._answer("status", default=self._known().status)

    def models(self) -> list[ModelStatus]:
        return self._answer("models", default=list(self._known().status.models))

    def jobs(self, *, all: bool = False) -> list[Job]:
        return self._answer("jobs", all, default=list(self._known().jobs))

    def job(self, job_id: int) -> Job:
        found = next((job for job in self._known().jobs if job.id == job_id), None)
        if found is None:
            raise NotFound(f"there is no job {job_id}")
        return found

    def preview(self, job_id: int, step: int | None = None) -> JobPreview:
        return self._answer("preview", job_id, step, default=NotFound("no preview in a script"))

    def course(self, job_id: int) -> JobCourse:
        return self._answer("course", job_id, default=NotFound("no stages in a script"))

    def out_of_memory(self, job_id: int) -> OomReport:
        return self._answer("out_of_memory", job_id, default=NotFound("no report in a script"))

    def submit(self, spec: JobSpec) -> Job:
        job = Job(id=99, spec=spec, status="queued", created_at=0.0, position=1)
        return self._answer("submit", spec, default=job)

    def forecast(self, spec: JobSpec) -> JobForecast:
        forecast = JobForecast(
            width=832, height=480, frames=spec.frames or 81, steps=spec.steps or 4,
            weights_bytes=14 * GIB, peak_bytes=19 * GIB, fits_now=True, fits_empty=True,
            expected_s=41.0, expected_exact=True,
        )  # fmt: skip
        return self._answer("forecast", spec, default=forecast)

    def submit_many(self, batch: JobBatch) -> BatchQueued:
        count = len(batch.specs)
        queued = BatchQueued(job_ids=tuple(range(99, 99 + count)), queued=count)
        return self._answer("submit_many", batch, default=queued)

    def forecast_many(self, batch: JobBatch) -> BatchForecast:
        lines = tuple(BatchLine(forecast=self.forecast(spec)) for spec in batch.specs)
        return self._answer(
            "forecast_many", batch, default=BatchForecast(lines=lines, expected_s=41.0 * len(lines))
        )

    def cancel(self, job_id: int) -> Job:
        return self._answer("cancel", job_id, default=replace(self.job(job_id), status="cancelled"))

    def retry(self, job_id: int) -> Job:
        return self._answer("retry", job_id, default=replace(self.job(job_id), status="queued"))

    def duplicate(self, job_id: int) -> Job:
        copy = replace(self.job(job_id), id=98, status="queued", duplicate_of=job_id)
        return self._answer("duplicate", job_id, default=copy)

    def hold(self, job_id: int, *, held: bool) -> Job:
        return self._answer("hold", job_id, held, default=replace(self.job(job_id), held=held))

    def move(self, job_id: int, move: JobMove) -> Job:
        return self._answer("move", job_id, move, default=self.job(job_id))

    def spare(self, request: SpareRequest) -> None:
        self._answer("spare", request, default=None)

    def resume_queue(self) -> None:
        self._answer("resume_queue", default=None)

    def switch(self, request: SwitchRequest) -> Receipt:
        receipt = _receipt("switch", request.model, 1.1)
        return self._answer("switch", request, default=receipt)

    def cancel_switch(self, request: CancelRequest) -> CancelAsked:
        asked = CancelAsked(targets=(request.model or "wan2.1-14b",))
        return self._answer("cancel_switch", request, default=asked)

    def unload(self, request: UnloadRequest) -> Receipt:
        receipt = _receipt("unload", request.model or "", 0.1)
        return self._answer("unload", request, default=receipt)

    def free(self) -> Receipt:
        receipt = _receipt("free", "", 0.1)
        return self._answer("free", default=receipt)

    def park(self) -> Receipt:
        receipt = _receipt("park", "", 0.1)
        return self._answer("park", default=receipt)

    def cleanup(self, request: CleanupRequest) -> Receipt:
        receipt = _receipt("cleanup", "", 1.0)
        return self._answer("cleanup", request, default=receipt)

    def kill(self, request: KillRequest) -> Receipt:
        receipt = _receipt("kill", str(request.pid), 0.5)
        return self._answer("kill", request, default=receipt)

    def warm(self, request: WarmRequest) -> Receipt:
        receipt = _receipt("warm", request.model or "", 1.0, "page-cache")
        return self._answer("warm", request, default=receipt)

    def full_cleanup_plan(self) -> FullCleanupPlan:
        return self._answer("full_cleanup_plan", default=NotFound("no plan in a script"))

    def full_cleanup(self, request: FullCleanupRequest) -> Receipt:
        receipt = _receipt("full_cleanup", "everything", 1.0)
        return self._answer("full_cleanup", request, default=receipt)

    def outputs(self) -> OutputList:
        nothing = OutputList(folders=(), videos=(), parts=(), others=0)
        return self._answer("outputs", default=nothing)

    def prune_outputs(self, request: PruneRequest) -> PruneResult:
        nothing = PruneResult(deleted=request.delete, videos=(), parts=(), bytes=0)
        return self._answer("prune_outputs", request, default=nothing)

    def reset_plan(self, device: str) -> ResetPlan:
        return self._answer("reset_plan", device, default=NotFound(f"no GPU {device}"))

    def reset_helper(self) -> ResetHelper:
        return self._answer("reset_helper", default=NotFound("no helper in a script"))

    def reset(self, request: ResetRequest) -> Receipt:
        receipt = _receipt("reset", request.device_id, 5.0, "device-delta")
        return self._answer("reset", request, default=receipt)

    def drop_warm(self, request: WarmRequest) -> Receipt:
        receipt = _receipt("drop_warm", request.model or "", 1.0, "page-cache")
        return self._answer("drop_warm", request, default=receipt)

    def explain(self, spec: JobSpec) -> Explanation:
        return self._answer("explain", spec, default=_no_plan(f"job: {spec.model}"))

    def explain_switch(self, request: SwitchRequest) -> Explanation:
        return self._answer("explain_switch", request, default=_no_plan(f"switch: {request.model}"))

    def check(self) -> CheckReport:
        clean = CheckReport(at=0.0, elapsed_s=0.1, findings=(), new=0, clean_at=0.0)
        return self._answer("check", default=clean)

    def last_check(self) -> CheckReport:
        return self._answer("last_check", default=NotFound("no check in a script"))

    def leaks(self) -> LeakReport:
        clean = LeakReport(at=0.0, elapsed_s=0.4, verdicts=(), trends=(), tracing=Tracing(on=False))
        return self._answer("leaks", default=clean)

    def trace(self, request: TraceRequest) -> Tracing:
        return self._answer("trace", request, default=Tracing(on=request.on))

    def mark(self, request: MarkRequest) -> Mark:
        return self._answer("mark", request, default=Mark(at=0.0 if request.on else None))

    def export_snapshot(self, request: ExportRequest) -> ExportedSnapshot:
        written = ExportedSnapshot(path=request.path, bytes=2**20, format=request.format)
        return self._answer("export_snapshot", request, default=written)

    def remedy(self, request: RemedyRequest) -> RemedyResult:
        size = request.remedy.predicted_bytes
        receipt = Receipt(
            action="cleanup",
            target="worker",
            ok=True,
            returned_bytes=size,
            elapsed_s=0.5,
            proof="nvml-process",
        )
        result = RemedyResult(
            remedy=request.remedy, predicted_bytes=size, returned_bytes=size, kept=True, receipt=receipt
        )
        return self._answer("remedy", request, default=result)

    def audit(self, *, limit: int = 200, before: float | None = None) -> AuditPage:
        nothing = AuditPage(lines=(), older=False)
        return self._answer("audit", limit, before, default=nothing)

    def ledger(
        self,
        *,
        limit: int = 100,
        before: int | None = None,
        job: int | None = None,
        kinds: Sequence[LedgerKind] = (),
        model: str | None = None,
    ) -> LedgerPage:
        nothing = LedgerPage(lines=(), older=False)
        return self._answer("ledger", limit, before, job, default=nothing)

    def cache(self) -> CacheStatus:
        nothing = CacheStatus(folder="/cache", entries=0, bytes=0, max_bytes=2**29)
        return self._answer("cache", default=nothing)

    def clear_cache(self) -> CacheCleared:
        nothing = CacheCleared(folder="/cache", entries=0, bytes=0)
        return self._answer("clear_cache", default=nothing)

    def make_demo_models(self) -> list[ModelStatus]:
        return self._answer("make_demo_models", default=[])

    def scan_models(self, request: ScanRequest) -> ModelScan:
        nothing = ModelScan(at=0.0, elapsed_s=0.1, models=(), parts=(), places=("/root",), others=0)
        return self._answer("scan_models", request, default=nothing)

    def released_models(self) -> list[ReleasedModel]:
        return self._answer("released_models", default=[])

    def get_plan(self, name: str) -> GetPlan:
        return self._answer("get_plan", name, default=NotFound("no released model in a script"))

    def model_errand(self) -> ErrandStatus:
        return self._answer("model_errand", default=ErrandStatus())

    def get_model(self, request: GetRequest) -> ErrandStatus:
        return self._answer("get_model", request, default=ErrandStatus())

    def import_model(self, request: ImportRequest) -> ErrandStatus:
        return self._answer("import_model", request, default=ErrandStatus())

    def cancel_errand(self) -> ErrandStatus:
        return self._answer("cancel_errand", default=ErrandStatus())

    def plan_quantising(self, request: QuantiseRequest) -> QuantisePlan:
        plan = QuantisePlan(
            model=request.model, name=f"{request.model}-int8", path=f"/data/models/{request.model}-int8",
            source_bytes=27 * GIB, bytes=14 * GIB, free_bytes=200 * GIB, layers=400,
        )  # fmt: skip
        return self._answer("plan_quantising", request, default=plan)

    def quantise(self, request: QuantiseRequest) -> QuantisePlan:
        return self._answer("quantise", request, default=self.plan_quantising(request))

    def stop_quantising(self) -> QuantiseStopped:
        return self._answer("stop_quantising", default=QuantiseStopped(model="wan"))

    def history(self, device_id: str, *, seconds: float, columns: int) -> MemoryHistory:
        nothing = MemoryHistory(device_id=device_id, columns=())
        return self._answer("history", device_id, default=nothing)

    def logs(self, *, after: int = 0, limit: int = 1000) -> list[LogLine]:
        return self._answer("logs", after, limit, default=list(self._known().log))

    def stop(self, request: StopRequest) -> None:
        self._answer("stop", request, default=None)


def _receipt(action: ReceiptAction, target: str, elapsed_s: float, proof: Proof = "nvml-process") -> Receipt:
    return Receipt(action=action, target=target, ok=True, elapsed_s=elapsed_s, proof=proof)


def _no_plan(target: str) -> Explanation:
    return Explanation(
        target=target, fits=True, budget_bytes=2**37, tenants="nobody", peak_bytes=2**33, steps=()
    )
