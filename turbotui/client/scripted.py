"""Owns an engine that is only a script: a Client over its events that remembers what it was asked.

The tests drive the console with it and the cost of drawing is measured over it; nothing else uses
it. `python -m turbotui.client.scripted` opens the console over a made-up busy GPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

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

GIB = 2**30


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

    def _answer(self, name: str, *arguments: Any, default: Any = None) -> Any:
        self.asked.append((name, *arguments))
        answer = self._answers.get(name, default)
        if isinstance(answer, EngineError):
            raise answer
        return answer(*arguments) if callable(answer) else answer

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
        answer: Hello = self._answer("hello", default=hello)
        return answer

    def status(self) -> Status:
        answer: Status = self._answer("status", default=self._known().status)
        return answer

    def models(self) -> list[ModelStatus]:
        answer: list[ModelStatus] = self._answer("models", default=list(self._known().status.models))
        return answer

    def jobs(self, *, all: bool = False) -> list[Job]:
        answer: list[Job] = self._answer("jobs", all, default=list(self._known().jobs))
        return answer

    def job(self, job_id: int) -> Job:
        found = next((job for job in self._known().jobs if job.id == job_id), None)
        if found is None:
            raise NotFound(f"there is no job {job_id}")
        return found

    def preview(self, job_id: int, step: int | None = None) -> JobPreview:
        answer: JobPreview = self._answer("preview", job_id, step, default=NotFound("no preview in a script"))
        return answer

    def course(self, job_id: int) -> JobCourse:
        answer: JobCourse = self._answer("course", job_id, default=NotFound("no stages in a script"))
        return answer

    def out_of_memory(self, job_id: int) -> OomReport:
        answer: OomReport = self._answer("out_of_memory", job_id, default=NotFound("no report in a script"))
        return answer

    def submit(self, spec: JobSpec) -> Job:
        job = Job(id=99, spec=spec, status="queued", created_at=0.0, position=1)
        answer: Job = self._answer("submit", spec, default=job)
        return answer

    def forecast(self, spec: JobSpec) -> JobForecast:
        forecast = JobForecast(
            width=832, height=480, frames=spec.frames or 81, steps=spec.steps or 4,
            weights_bytes=14 * GIB, peak_bytes=19 * GIB, fits_now=True, fits_empty=True,
            expected_s=41.0, expected_exact=True,
        )  # fmt: skip
        answer: JobForecast = self._answer("forecast", spec, default=forecast)
        return answer

    def submit_many(self, batch: JobBatch) -> BatchQueued:
        count = len(batch.specs)
        queued = BatchQueued(job_ids=tuple(range(99, 99 + count)), queued=count)
        answer: BatchQueued = self._answer("submit_many", batch, default=queued)
        return answer

    def forecast_many(self, batch: JobBatch) -> BatchForecast:
        lines = tuple(BatchLine(forecast=self.forecast(spec)) for spec in batch.specs)
        answer: BatchForecast = self._answer(
            "forecast_many", batch, default=BatchForecast(lines=lines, expected_s=41.0 * len(lines))
        )
        return answer

    def cancel(self, job_id: int) -> Job:
        answer: Job = self._answer("cancel", job_id, default=replace(self.job(job_id), status="cancelled"))
        return answer

    def retry(self, job_id: int) -> Job:
        answer: Job = self._answer("retry", job_id, default=replace(self.job(job_id), status="queued"))
        return answer

    def duplicate(self, job_id: int) -> Job:
        copy = replace(self.job(job_id), id=98, status="queued", duplicate_of=job_id)
        answer: Job = self._answer("duplicate", job_id, default=copy)
        return answer

    def hold(self, job_id: int, *, held: bool) -> Job:
        answer: Job = self._answer("hold", job_id, held, default=replace(self.job(job_id), held=held))
        return answer

    def move(self, job_id: int, move: JobMove) -> Job:
        answer: Job = self._answer("move", job_id, move, default=self.job(job_id))
        return answer

    def spare(self, request: SpareRequest) -> None:
        self._answer("spare", request)

    def resume_queue(self) -> None:
        self._answer("resume_queue")

    def switch(self, request: SwitchRequest) -> Receipt:
        receipt = Receipt(action="switch", target=request.model, ok=True, elapsed_s=1.1, proof="nvml-process")
        answer: Receipt = self._answer("switch", request, default=receipt)
        return answer

    def cancel_switch(self, request: CancelRequest) -> CancelAsked:
        asked = CancelAsked(targets=(request.model or "wan2.1-14b",))
        answer: CancelAsked = self._answer("cancel_switch", request, default=asked)
        return answer

    def unload(self, request: UnloadRequest) -> Receipt:
        receipt = Receipt(
            action="unload", target=request.model or "", ok=True, elapsed_s=0.1, proof="nvml-process"
        )
        answer: Receipt = self._answer("unload", request, default=receipt)
        return answer

    def free(self) -> Receipt:
        receipt = Receipt(action="free", target="", ok=True, elapsed_s=0.1, proof="nvml-process")
        answer: Receipt = self._answer("free", default=receipt)
        return answer

    def park(self) -> Receipt:
        receipt = Receipt(action="park", target="", ok=True, elapsed_s=0.1, proof="nvml-process")
        answer: Receipt = self._answer("park", default=receipt)
        return answer

    def cleanup(self, request: CleanupRequest) -> Receipt:
        receipt = Receipt(action="cleanup", target="", ok=True, elapsed_s=1.0, proof="nvml-process")
        answer: Receipt = self._answer("cleanup", request, default=receipt)
        return answer

    def kill(self, request: KillRequest) -> Receipt:
        receipt = Receipt(
            action="kill", target=str(request.pid), ok=True, elapsed_s=0.5, proof="nvml-process"
        )
        answer: Receipt = self._answer("kill", request, default=receipt)
        return answer

    def warm(self, request: WarmRequest) -> Receipt:
        receipt = Receipt(
            action="warm", target=request.model or "", ok=True, elapsed_s=1.0, proof="page-cache"
        )
        answer: Receipt = self._answer("warm", request, default=receipt)
        return answer

    def full_cleanup_plan(self) -> FullCleanupPlan:
        answer: FullCleanupPlan = self._answer("full_cleanup_plan", default=NotFound("no plan in a script"))
        return answer

    def full_cleanup(self, request: FullCleanupRequest) -> Receipt:
        receipt = Receipt(
            action="full_cleanup", target="everything", ok=True, elapsed_s=1.0, proof="nvml-process"
        )
        answer: Receipt = self._answer("full_cleanup", request, default=receipt)
        return answer

    def outputs(self) -> OutputList:
        nothing = OutputList(folders=(), videos=(), parts=(), others=0)
        answer: OutputList = self._answer("outputs", default=nothing)
        return answer

    def prune_outputs(self, request: PruneRequest) -> PruneResult:
        nothing = PruneResult(deleted=request.delete, videos=(), parts=(), bytes=0)
        answer: PruneResult = self._answer("prune_outputs", request, default=nothing)
        return answer

    def reset_plan(self, device: str) -> ResetPlan:
        answer: ResetPlan = self._answer("reset_plan", device, default=NotFound(f"no GPU {device}"))
        return answer

    def reset_helper(self) -> ResetHelper:
        answer: ResetHelper = self._answer("reset_helper", default=NotFound("no helper in a script"))
        return answer

    def reset(self, request: ResetRequest) -> Receipt:
        receipt = Receipt(
            action="reset", target=request.device_id, ok=True, elapsed_s=5.0, proof="device-delta"
        )
        answer: Receipt = self._answer("reset", request, default=receipt)
        return answer

    def drop_warm(self, request: WarmRequest) -> Receipt:
        receipt = Receipt(
            action="drop_warm", target=request.model or "", ok=True, elapsed_s=1.0, proof="page-cache"
        )
        answer: Receipt = self._answer("drop_warm", request, default=receipt)
        return answer

    def explain(self, spec: JobSpec) -> Explanation:
        answer: Explanation = self._answer("explain", spec, default=_no_plan(f"job: {spec.model}"))
        return answer

    def explain_switch(self, request: SwitchRequest) -> Explanation:
        answer: Explanation = self._answer(
            "explain_switch", request, default=_no_plan(f"switch: {request.model}")
        )
        return answer

    def check(self) -> CheckReport:
        clean = CheckReport(at=0.0, elapsed_s=0.1, findings=(), new=0, clean_at=0.0)
        answer: CheckReport = self._answer("check", default=clean)
        return answer

    def last_check(self) -> CheckReport:
        answer: CheckReport = self._answer("last_check", default=NotFound("no check in a script"))
        return answer

    def leaks(self) -> LeakReport:
        clean = LeakReport(at=0.0, elapsed_s=0.4, verdicts=(), trends=(), tracing=Tracing(on=False))
        answer: LeakReport = self._answer("leaks", default=clean)
        return answer

    def trace(self, request: TraceRequest) -> Tracing:
        answer: Tracing = self._answer("trace", request, default=Tracing(on=request.on))
        return answer

    def mark(self, request: MarkRequest) -> Mark:
        answer: Mark = self._answer("mark", request, default=Mark(at=0.0 if request.on else None))
        return answer

    def export_snapshot(self, request: ExportRequest) -> ExportedSnapshot:
        written = ExportedSnapshot(path=request.path, bytes=2**20, format=request.format)
        answer: ExportedSnapshot = self._answer("export_snapshot", request, default=written)
        return answer

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
        answer: RemedyResult = self._answer("remedy", request, default=result)
        return answer

    def audit(self, *, limit: int = 200, before: float | None = None) -> AuditPage:
        nothing = AuditPage(lines=(), older=False)
        answer: AuditPage = self._answer("audit", limit, before, default=nothing)
        return answer

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
        answer: LedgerPage = self._answer("ledger", limit, before, job, default=nothing)
        return answer

    def cache(self) -> CacheStatus:
        nothing = CacheStatus(folder="/cache", entries=0, bytes=0, max_bytes=2**29)
        answer: CacheStatus = self._answer("cache", default=nothing)
        return answer

    def clear_cache(self) -> CacheCleared:
        nothing = CacheCleared(folder="/cache", entries=0, bytes=0)
        answer: CacheCleared = self._answer("clear_cache", default=nothing)
        return answer

    def make_demo_models(self) -> list[ModelStatus]:
        answer: list[ModelStatus] = self._answer("make_demo_models", default=[])
        return answer

    def scan_models(self, request: ScanRequest) -> ModelScan:
        nothing = ModelScan(at=0.0, elapsed_s=0.1, models=(), parts=(), places=("/root",), others=0)
        answer: ModelScan = self._answer("scan_models", request, default=nothing)
        return answer

    def released_models(self) -> list[ReleasedModel]:
        answer: list[ReleasedModel] = self._answer("released_models", default=[])
        return answer

    def get_plan(self, name: str) -> GetPlan:
        answer: GetPlan = self._answer("get_plan", name, default=NotFound("no released model in a script"))
        return answer

    def model_errand(self) -> ErrandStatus:
        answer: ErrandStatus = self._answer("model_errand", default=ErrandStatus())
        return answer

    def get_model(self, request: GetRequest) -> ErrandStatus:
        answer: ErrandStatus = self._answer("get_model", request, default=ErrandStatus())
        return answer

    def import_model(self, request: ImportRequest) -> ErrandStatus:
        answer: ErrandStatus = self._answer("import_model", request, default=ErrandStatus())
        return answer

    def cancel_errand(self) -> ErrandStatus:
        answer: ErrandStatus = self._answer("cancel_errand", default=ErrandStatus())
        return answer

    def plan_quantising(self, request: QuantiseRequest) -> QuantisePlan:
        plan = QuantisePlan(
            model=request.model, name=f"{request.model}-int8", path=f"/data/models/{request.model}-int8",
            source_bytes=27 * GIB, bytes=14 * GIB, free_bytes=200 * GIB, layers=400,
        )  # fmt: skip
        answer: QuantisePlan = self._answer("plan_quantising", request, default=plan)
        return answer

    def quantise(self, request: QuantiseRequest) -> QuantisePlan:
        answer: QuantisePlan = self._answer("quantise", request, default=self.plan_quantising(request))
        return answer

    def stop_quantising(self) -> QuantiseStopped:
        answer: QuantiseStopped = self._answer("stop_quantising", default=QuantiseStopped(model="wan"))
        return answer

    def history(self, device_id: str, *, seconds: float, columns: int) -> MemoryHistory:
        nothing = MemoryHistory(device_id=device_id, columns=())
        answer: MemoryHistory = self._answer("history", device_id, default=nothing)
        return answer

    def logs(self, *, after: int = 0, limit: int = 1000) -> list[LogLine]:
        answer: list[LogLine] = self._answer("logs", after, limit, default=list(self._known().log))
        return answer

    def stop(self, request: StopRequest) -> None:
        self._answer("stop", request)


def _no_plan(target: str) -> Explanation:
    return Explanation(
        target=target, fits=True, budget_bytes=2**37, tenants="nobody", peak_bytes=2**33, steps=()
    )


def main() -> int:
    """The console over a made-up busy GPU; an argument `idle`, `first`, `two` or `eight` is another scene."""
    import sys
    import time

    from turbotui import garbage

    garbage.hold()
    from turbotui.app import TurboApp
    from turbotui.client import scene_gpus, scene_leaks, scene_models, scene_plans, scenes

    scene = sys.argv[1] if len(sys.argv) > 1 else "busy"

    def factory() -> ScriptedClient:
        answers = {
            "explain_switch": scenes.switch_plan,
            "last_check": scene_plans.found(time.time()),
            "check": lambda: scene_plans.found(time.time()),
            "leaks": lambda: scene_leaks.leak_report(time.time()),
            "remedy": scene_leaks.remedied,
            "reset_plan": scene_plans.reset_plan,
            "full_cleanup_plan": lambda: scene_plans.full_cleanup_plan(time.time()),
            "scan_models": scene_models.scan(),
            "released_models": scene_models.released(),
            "get_plan": scene_models.plan,
        }
        return ScriptedClient(scene_gpus.script(scene, time.time()), answers=answers)

    app = TurboApp(factory, where="me@gpubox01", symbols="auto")
    app.run()
    print(app.leaving_line)
    return app.return_code or 0


if __name__ == "__main__":
    raise SystemExit(main())
