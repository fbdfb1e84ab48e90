"""The client of a real engine: what each call asks for, and of what type its answer is."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote, urlencode

from engine.wire import (
    AuditPage,
    BatchForecast,
    BatchQueued,
    CacheCleared,
    CacheStatus,
    CancelAsked,
    CancelRequest,
    CheckReport,
    CleanupRequest,
    EngineStatus,
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
    QueueStatus,
    Receipt,
    ReleasedModel,
    RemedyRequest,
    RemedyResult,
    ResetHelper,
    ResetPlan,
    ResetRequest,
    SamplingRequest,
    ScanRequest,
    SpareRequest,
    Status,
    StopRequest,
    SwitchRequest,
    TraceRequest,
    Tracing,
    UnloadRequest,
    WarmRequest,
)
from turbotui.client.exchange import Exchange

LONG_TIMEOUT_S = 1800.0
"""For calls that move weights or make models: a cold 14B from a slow disk takes minutes. An
engine that dies meanwhile closes the connection, so this is no wait for the dead."""
LOOK_TIMEOUT_S = 120.0
"""For calls that ask the driver through its own program, which initialises every GPU first."""


class HttpClient(Exchange):
    """Calls a running engine; see `turbotui.client.base.Client` for what is raised."""

    def metrics(self) -> str:
        """The engine's figures in Prometheus' text format."""
        return self._exchange("GET", "/metrics", None, self.timeout, accept="text/plain").decode("utf-8")

    def hello(self) -> Hello:
        return self._get("/hello", Hello)

    def status(self) -> Status:
        return self._get("/status", Status)

    def models(self) -> list[ModelStatus]:
        return self._get("/models", list[ModelStatus])

    def jobs(self, *, all: bool = False) -> list[Job]:
        return self._get(f"/jobs?all={'true' if all else 'false'}", list[Job])

    def job(self, job_id: int) -> Job:
        return self._get(f"/jobs/{job_id:d}", Job)

    def preview(self, job_id: int, step: int | None = None) -> JobPreview:
        which = "" if step is None else f"?step={step:d}"
        return self._get(f"/jobs/{job_id:d}/preview{which}", JobPreview)

    def course(self, job_id: int) -> JobCourse:
        return self._get(f"/jobs/{job_id:d}/course", JobCourse)

    def out_of_memory(self, job_id: int) -> OomReport:
        return self._get(f"/jobs/{job_id:d}/oom", OomReport)

    def submit(self, spec: JobSpec) -> Job:
        return self._post("/jobs", Job, spec)

    def forecast(self, spec: JobSpec) -> JobForecast:
        return self._post("/jobs/forecast", JobForecast, spec)

    def submit_many(self, batch: JobBatch) -> BatchQueued:
        return self._post("/jobs/many", BatchQueued, batch, timeout=LOOK_TIMEOUT_S)

    def forecast_many(self, batch: JobBatch) -> BatchForecast:
        return self._post("/jobs/many/forecast", BatchForecast, batch, timeout=LOOK_TIMEOUT_S)

    def cancel(self, job_id: int) -> Job:
        return self._post(f"/jobs/{job_id:d}/cancel", Job)

    def retry(self, job_id: int) -> Job:
        return self._post(f"/jobs/{job_id:d}/retry", Job)

    def duplicate(self, job_id: int) -> Job:
        return self._post(f"/jobs/{job_id:d}/duplicate", Job)

    def hold(self, job_id: int, *, held: bool) -> Job:
        return self._post(f"/jobs/{job_id:d}/{'hold' if held else 'release'}", Job)

    def move(self, job_id: int, move: JobMove) -> Job:
        return self._post(f"/jobs/{job_id:d}/move", Job, move)

    def resume_queue(self) -> None:
        self._post("/queue/resume", QueueStatus)

    def switch(self, request: SwitchRequest) -> Receipt:
        return self._post("/switch", Receipt, request, timeout=LONG_TIMEOUT_S)

    def cancel_switch(self, request: CancelRequest) -> CancelAsked:
        return self._post("/switch/cancel", CancelAsked, request)

    def unload(self, request: UnloadRequest) -> Receipt:
        return self._post("/unload", Receipt, request, timeout=LONG_TIMEOUT_S)

    def free(self) -> Receipt:
        return self._post("/free", Receipt, timeout=LONG_TIMEOUT_S)

    def park(self) -> Receipt:
        return self._post("/park", Receipt, timeout=LONG_TIMEOUT_S)

    def cleanup(self, request: CleanupRequest) -> Receipt:
        return self._post("/cleanup", Receipt, request, timeout=LONG_TIMEOUT_S)

    def kill(self, request: KillRequest) -> Receipt:
        return self._post("/kill", Receipt, request, timeout=LONG_TIMEOUT_S)

    def spare(self, request: SpareRequest) -> None:
        self._post("/kill/spare", SpareRequest, request)

    def full_cleanup_plan(self) -> FullCleanupPlan:
        return self._call("GET", "/cleanup/all", FullCleanupPlan, None, LOOK_TIMEOUT_S)

    def full_cleanup(self, request: FullCleanupRequest) -> Receipt:
        return self._post("/cleanup/all", Receipt, request, timeout=LONG_TIMEOUT_S)

    def outputs(self) -> OutputList:
        return self._call("GET", "/outputs", OutputList, None, LOOK_TIMEOUT_S)

    def prune_outputs(self, request: PruneRequest) -> PruneResult:
        return self._post("/outputs/prune", PruneResult, request, timeout=LONG_TIMEOUT_S)

    def reset_plan(self, device: str) -> ResetPlan:
        path = f"/reset/{quote(device, safe='')}"
        return self._call("GET", path, ResetPlan, None, LOOK_TIMEOUT_S)

    def reset_helper(self) -> ResetHelper:
        return self._get("/reset-helper", ResetHelper)

    def reset(self, request: ResetRequest) -> Receipt:
        return self._post("/reset", Receipt, request, timeout=LONG_TIMEOUT_S)

    def warm(self, request: WarmRequest) -> Receipt:
        return self._post("/warm", Receipt, request, timeout=LONG_TIMEOUT_S)

    def drop_warm(self, request: WarmRequest) -> Receipt:
        return self._post("/warm/drop", Receipt, request, timeout=LONG_TIMEOUT_S)

    def explain(self, spec: JobSpec) -> Explanation:
        return self._post("/explain/job", Explanation, spec)

    def explain_switch(self, request: SwitchRequest) -> Explanation:
        return self._post("/explain/switch", Explanation, request)

    def check(self) -> CheckReport:
        return self._post("/check", CheckReport)

    def last_check(self) -> CheckReport:
        return self._call("GET", "/check", CheckReport, None, LOOK_TIMEOUT_S)

    def leaks(self) -> LeakReport:
        return self._call("GET", "/leaks", LeakReport, None, LOOK_TIMEOUT_S)

    def trace(self, request: TraceRequest) -> Tracing:
        return self._post("/leaks/trace", Tracing, request, timeout=LOOK_TIMEOUT_S)

    def mark(self, request: MarkRequest) -> Mark:
        return self._post("/leaks/mark", Mark, request, timeout=LOOK_TIMEOUT_S)

    def export_snapshot(self, request: ExportRequest) -> ExportedSnapshot:
        return self._post("/leaks/export", ExportedSnapshot, request, timeout=LOOK_TIMEOUT_S)

    def remedy(self, request: RemedyRequest) -> RemedyResult:
        return self._post("/leaks/remedy", RemedyResult, request, timeout=LONG_TIMEOUT_S)

    def audit(self, *, limit: int = 200, before: float | None = None) -> AuditPage:
        asked = "" if before is None else f"&before={before!r}"
        return self._call("GET", f"/audit?limit={limit:d}{asked}", AuditPage, None, LOOK_TIMEOUT_S)

    def ledger(
        self,
        *,
        limit: int = 100,
        before: int | None = None,
        job: int | None = None,
        kinds: Sequence[LedgerKind] = (),
        model: str | None = None,
    ) -> LedgerPage:
        asked = [("limit", str(limit)), *(("kind", kind) for kind in kinds)]
        asked += [
            (name, str(value))
            for name, value in (("before", before), ("job", job), ("model", model))
            if value is not None
        ]
        return self._call("GET", f"/ledger?{urlencode(asked)}", LedgerPage, None, LOOK_TIMEOUT_S)

    def cache(self) -> CacheStatus:
        return self._get("/cache", CacheStatus)

    def clear_cache(self) -> CacheCleared:
        return self._post("/cache/clear", CacheCleared)

    def sample(self, request: SamplingRequest) -> SamplingRequest:
        return self._post("/sampling", SamplingRequest, request)

    def make_demo_models(self) -> list[ModelStatus]:
        return self._post("/models/demo", list[ModelStatus], timeout=LONG_TIMEOUT_S)

    def scan_models(self, request: ScanRequest) -> ModelScan:
        return self._post("/models/scan", ModelScan, request, timeout=LOOK_TIMEOUT_S)

    def released_models(self) -> list[ReleasedModel]:
        return self._call("GET", "/models/released", list[ReleasedModel], None, LOOK_TIMEOUT_S)

    def get_plan(self, name: str) -> GetPlan:
        path = f"/models/released/{quote(name, safe='')}"
        return self._call("GET", path, GetPlan, None, LOOK_TIMEOUT_S)

    def model_errand(self) -> ErrandStatus:
        return self._get("/models/errand", ErrandStatus)

    def get_model(self, request: GetRequest) -> ErrandStatus:
        return self._post("/models/get", ErrandStatus, request)

    def import_model(self, request: ImportRequest) -> ErrandStatus:
        return self._post("/models/import", ErrandStatus, request)

    def cancel_errand(self) -> ErrandStatus:
        return self._post("/models/errand/cancel", ErrandStatus)

    def plan_quantising(self, request: QuantiseRequest) -> QuantisePlan:
        return self._post("/models/quantise/plan", QuantisePlan, request, timeout=LONG_TIMEOUT_S)

    def quantise(self, request: QuantiseRequest) -> QuantisePlan:
        return self._post("/models/quantise", QuantisePlan, request, timeout=LONG_TIMEOUT_S)

    def stop_quantising(self) -> QuantiseStopped:
        return self._post("/models/quantise/stop", QuantiseStopped)

    def history(self, device_id: str, *, seconds: float, columns: int) -> MemoryHistory:
        query = f"device_id={quote(device_id)}&seconds={seconds:g}&columns={columns:d}"
        return self._get(f"/history?{query}", MemoryHistory)

    def logs(self, *, after: int = 0, limit: int = 1000) -> list[LogLine]:
        return self._get(f"/logs?after={after:d}&limit={limit:d}", list[LogLine])

    def stop(self, request: StopRequest) -> None:
        self._post("/engine/stop", EngineStatus, request)
