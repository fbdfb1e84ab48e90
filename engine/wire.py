"""Everything that crosses the engine's HTTP edge: requests, answers and events.

Plain frozen dataclasses, so that FastAPI builds the OpenAPI document from them and the
clients decode them with msgspec, without paying for pydantic at every start (0.14 s).
The pipes to the worker and the probe have their own small messages beside those processes
(`engine.worker.channel`, `engine.telemetry.samples`).

Bytes are ints; seconds are floats. `*_at` is wall-clock seconds since the epoch, for display
only. A value that cannot be known is None, with the reason beside it, never 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias

WIRE_VERSION = 1
"""Raised when a client of the previous version could no longer talk to the engine."""

HEARTBEAT_S = 2.0
"""An event stream says something at least this often; silence for three of these is loss."""


class Wire:
    """Base of every wire model: unknown fields of a request are refused by name."""

    __slots__ = ()
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}


# --------------------------------------------------------------------------- who answers


@dataclass(frozen=True, kw_only=True, slots=True)
class Hello(Wire):
    """Who answers on the socket; the first thing that any client asks."""

    wire: int
    build: str
    """The engine's version and, from a checkout, its commit."""
    schema: int
    """`user_version` of jobs.sqlite."""
    pid: int
    start_time: float
    """Kernel start time of the daemon (clock ticks since boot, in seconds): with `pid`, an identity."""
    instance: str
    host: str
    user: str


@dataclass(frozen=True, kw_only=True, slots=True)
class LockHolder(Wire):
    """What the lock file says: which engine holds this state directory, and where it listens."""

    pid: int
    start_time: float
    socket: str
    instance: str
    build: str


NurseryState: TypeAlias = Literal["cold", "warming", "ready", "failed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class NurseryStatus(Wire):
    """The process that has torch and diffusers imported and from which workers are forked."""

    state: NurseryState
    elapsed_s: float | None = None
    """Seconds since it started while warming; what warming took once ready."""
    expected_s: float | None = None
    """What warming took last time on this host."""
    pid: int | None = None
    threads: int | None = None
    rss_bytes: int | None = None
    device_files: tuple[str, ...] = ()
    """`/dev/nvidia*` files it holds open; must be empty."""
    detail: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class QueueStatus(Wire):
    """How the queue stands as a whole."""

    waiting: int
    held_reason: str | None = None
    """Why nothing is started although jobs wait, or None. `POST /queue/resume` clears it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineStatus(Wire):
    """The daemon itself."""

    state: Literal["starting", "ready", "stopping"]
    pid: int
    instance: str
    build: str
    started_at: float
    uptime_s: float
    home: str
    """The state directory: lock, job store, logs."""
    socket: str
    output_dir: str
    log_path: str
    nursery: NurseryStatus
    queue: QueueStatus
    probe_age_s: float | None = None
    """Age of the newest reading of the probe; None before the first."""
    problem: str | None = None
    """One sentence when the engine cannot do its whole work, e.g. a GPU it cannot use."""


WorkerState: TypeAlias = Literal["starting", "idle", "loading", "running", "stopping"]


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerStatus(Wire):
    """One process that holds weights and runs jobs; at most one for each device in use."""

    pid: int
    device_id: str
    state: WorkerState
    started_at: float
    ready_s: float | None = None
    """From asking for it until it could take work."""
    forked: bool
    """True when it came out of the nursery, False when it had to import everything itself."""
    job_id: int | None = None
    rss_bytes: int | None = None
    allocator: str | None = None
    """The allocator's settings as it tells them itself."""
    allocator_reason: str | None = None
    """Why these were asked for; a wish that did not come true is named."""
    warm_bytes: int | None = None
    """Of weight files registered in host memory."""
    warm_rate: float | None = None
    """Bytes a second at which they are registered; None before any were."""
    warm_refusal: str | None = None
    """Why none can be."""
    ring_rate: float | None = None
    """Bytes a second through pinned buffers; the quicker of the two carries a first load."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Status(Wire):
    """The whole picture except the jobs and the log."""

    engine: EngineStatus
    workers: tuple[WorkerStatus, ...]
    devices: tuple[DeviceStatus, ...]
    models: tuple[ModelStatus, ...]


# --------------------------------------------------------------------------- memory

PartKind: TypeAlias = Literal[
    "weights",  # a resident component
    "live",  # other live tensors: activations, latents
    "awaiting_free",  # freed, but another stream may still use it
    "releasable",  # cache that `free` returns
    "fragmented",  # cache that shares a segment with something live
    "rounding",  # the allocator's rounding of live blocks
    "context",  # driver context and loaded libraries of our worker
    "runtime",  # cpu only: Python and libraries of a fresh worker
    "process",  # another process on the device
    "driver",  # the driver's own reserve
    "unseen",  # counted by the driver, attributable to nobody we can see
    "others",  # cpu only: everything else on the host
    "free",
]
Owner: TypeAlias = Literal["ours", "neighbour", "driver", "unseen", "free"]


@dataclass(frozen=True, kw_only=True, slots=True)
class BalancePart(Wire):
    """One named share of a device's memory."""

    kind: PartKind
    owner: Owner
    bytes: int | None
    label: str = ""
    """The component (`wan-demo-small/dit`) or process that it belongs to, where there is one."""
    pid: int | None = None
    reason: str | None = None
    """Why `bytes` is None."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Balance(Wire):
    """A device's memory in parts that add up to its total."""

    device_id: str
    taken_at: float
    coherent: bool
    """False when memory moved between the readings it is made of."""
    total_bytes: int
    parts: tuple[BalancePart, ...]
    unexplained_bytes: int
    """Total less the parts: the one remainder, which must be small."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HistoryColumn(Wire):
    """A span of a device's past."""

    at: float
    """Its end, wall clock."""
    samples: int
    """Readings in it; 0 is a gap, never a repeated value."""
    parts: dict[PartKind, tuple[int, int]]
    """Lowest and highest bytes of all parts of a kind together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryHistory(Wire):
    """What a device's memory did before a viewer came, oldest column first."""

    device_id: str
    columns: tuple[HistoryColumn, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceProcess(Wire):
    """A process that holds memory on a device."""

    pid: int
    bytes: int | None
    user: str | None = None
    name: str = ""
    command: str = ""
    started_at: float | None = None
    ours: Literal["worker", "nursery", "daemon", "probe"] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceStatus(Wire):
    """A GPU (or the host, when there is none) and what is on it."""

    id: str
    """`GPU-<uuid>`, or `cpu`."""
    kind: Literal["cuda", "cpu"]
    index: int | None = None
    """NVML's index, for people's eyes only."""
    name: str
    total_bytes: int
    in_use: bool
    """True for the device that this engine works on."""
    balance: Balance | None = None
    processes: tuple[DeviceProcess, ...] = ()
    utilisation_percent: int | None = None
    temperature_c: int | None = None
    power_w: float | None = None
    age_s: float | None = None
    """Seconds since its newest reading."""


# --------------------------------------------------------------------------- models


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolution(Wire):
    """A row of a model's own table."""

    name: str
    """Such as `480p`."""
    aspect_ratio: str
    """Such as `16:9`."""
    width: int
    height: int


ComponentState: TypeAlias = Literal["absent", "loading", "resident"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ComponentStatus(Wire):
    """One loadable part of a model, and where its weights are."""

    name: str
    """`dit`, or `dit.high` and `dit.low`; `text`; `vae`."""
    bytes: int
    state: ComponentState
    leased: bool = False
    """In use by a job; cannot be evicted."""
    warm_bytes: int | None = None
    """How much of it lies in host memory ready to copy; None when that cannot be known."""
    back_in_s: float | None = None
    """Expected seconds to load it, from measured rates; None before anything was measured."""


ModelKind: TypeAlias = Literal["t2v", "i2v"]
VaePrecision: TypeAlias = Literal["auto", "bf16", "fp32"]
"""In which a VAE computes; `auto` is that of its files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelStatus(Wire):
    """A model on disk and how much of it is loaded."""

    name: str
    kind: ModelKind
    title: str
    demo: bool
    path: str
    dtype: str
    bytes: int
    active: bool
    """The model that was asked for last: a job's, or the target of the last switch."""
    problem: str | None = None
    """Why it cannot be used, naming the file and the way out; None when it can."""
    components: tuple[ComponentStatus, ...]
    resolutions: tuple[Resolution, ...]
    default_resolution: str
    default_aspect_ratio: str
    default_frames: int
    default_steps: int
    max_frames: int
    last_used_at: float | None = None


# --------------------------------------------------------------------------- jobs


Residency: TypeAlias = Literal["auto", "dit_only", "keep_text", "keep_experts"]
RESIDENCIES: tuple[Residency, ...] = ("auto", "dit_only", "keep_text", "keep_experts")
"""What a job keeps on the device beside what its running stage uses: what fits and is needed later;
nothing; the text encoder, or both experts, as long as that is possible at all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobSpec(Wire):
    """What a person asks for. Checked whole when it is submitted."""

    model: str
    prompt: str
    image: str | None = None
    """Absolute path of the first frame; image-to-video models only, and needed there."""
    resolution: str | None = None
    """A name in the model's table; None takes its default."""
    aspect_ratio: str | None = None
    frames: int | None = None
    """4n + 1; None takes the model's default."""
    steps: int | None = None
    """1 to 4."""
    seed: int = 0
    sigma_max: float | None = None
    """Where the noise starts; None takes 80 for t2v and 200 for i2v."""
    ode: bool = False
    """Deterministic steps without fresh noise; image-to-video models only."""
    output_dir: str | None = None
    """Absolute folder for the video; None takes the engine's."""
    priority: int = 0
    """Higher runs first; equal ones in the order of the queue."""
    residency: Residency | None = None
    """None takes the engine's setting."""


JobState: TypeAlias = Literal[
    "queued",
    "waiting_memory",  # would fit on the empty device, does not fit beside the others now
    "running",
    "done",
    "failed",
    "cancelled",
    "interrupted",  # worker or engine died under it; requeued once by itself
]
Stage: TypeAlias = Literal["start", "load", "text", "image", "denoise", "decode", "write"]


@dataclass(frozen=True, kw_only=True, slots=True)
class JobProgress(Wire):
    """Where a running job stands."""

    stage: Stage
    step: int = 0
    """Finished steps of the denoising loop, or decoded latent frames, in this stage."""
    steps: int = 0
    fraction: float = 0.0
    """0 to 1 over the whole job."""
    eta_s: float | None = None
    peak_bytes: int | None = None
    """Highest device memory seen so far in this job."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job(Wire):
    """A request and what became of it."""

    id: int
    spec: JobSpec
    status: JobState
    held: bool = False
    """Kept from starting until released."""
    position: int | None = None
    """Place in the queue from 1, while it waits."""
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    attempt: int = 0
    """How often it was started."""
    progress: JobProgress | None = None
    error: str | None = None
    """One sentence; for an interrupted job that waits again, the cause of the interruption."""
    error_code: str | None = None
    waits_for: str | None = None
    """What a `waiting_memory` job waits for, in bytes and names."""
    output: str | None = None
    """Absolute path of the finished video."""
    manifest: str | None = None
    expected_peak_bytes: int | None = None
    duplicate_of: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class JobMove(Wire):
    """Where a waiting job should go: exactly one of the two is given."""

    position: int | None = None
    """The place from 1 among those waiting."""
    priority: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class JobForecast(Wire):
    """What a request would cost if it were submitted now."""

    width: int
    height: int
    frames: int
    steps: int
    weights_bytes: int
    peak_bytes: int
    """Weights that must be resident together plus the largest stage, as planned."""
    fits_now: bool
    fits_empty: bool
    reason: str | None = None
    """For whom or what it would wait, when it does not fit now."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageRecord(Wire):
    """One line of a job's memory ledger."""

    stage: str
    elapsed_s: float
    before_bytes: int
    peak_bytes: int
    after_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest(Wire):
    """Lies beside the video as JSON: everything needed to make it again, and what it cost."""

    manifest: int = 1
    job_id: int
    spec: JobSpec
    """As run: every default filled in."""
    kind: ModelKind
    width: int
    height: int
    fps: int
    timesteps: tuple[float, ...]
    device: str
    """`cpu` or `cuda`."""
    device_name: str
    output: str
    output_bytes: int
    frames_sha256: str
    """Of the uint8 RGB frames before encoding: same seed and device, same digest."""
    elapsed_s: float
    stages: tuple[StageRecord, ...]
    weights: dict[str, str]
    """Component to the identity of its weight file."""
    versions: dict[str, str]
    created_at: float
    attempt: int = 1
    first_step_at: float | None = None
    """When the device began the first block of the first denoising step, wall clock."""
    step_s: tuple[float, ...] = ()
    """Seconds of each denoising step."""


# --------------------------------------------------------------------------- plans


PlanAction: TypeAlias = Literal[
    "evict",
    "load",
    "ahead",  # loaded while the stage computes, for a later one
    "swap",  # takes another expert's bytes under its last step
    "adopt",  # takes over another model's component with the same weights: nothing moves
]


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanStep(Wire):
    """One move of weights in the plan of a job or a switch."""

    stage: str
    action: PlanAction
    model: str
    component: str
    bytes: int
    reason: str
    held_bytes: int
    """All weights on the device after it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation(Wire):
    """What would happen if a request were made now, and why."""

    target: str
    fits: bool
    reason: str | None = None
    """Why it does not fit, or None."""
    budget_bytes: int
    """What the engine may hold on the device, weights and work together."""
    tenants: str
    """Who holds the rest, in words."""
    peak_bytes: int
    """The most that weights and work take together."""
    steps: tuple[PlanStep, ...]
    note: str | None = None
    """What the plan rests on and nobody sees in its steps, or what of it cannot be known."""


# --------------------------------------------------------------------------- actions

Proof: TypeAlias = Literal["nvml-process", "device-delta", "allocator", "process-rss", "page-cache"]


ReceiptAction: TypeAlias = Literal[
    "load",
    "unload",
    "switch",
    "free",
    "swap",  # one expert took the place of the other
    "park",  # everything out, the worker and its context too
    "cleanup",  # the worker was ended and replaced
    "warm",  # weight files were registered in host memory
    "drop_warm",  # and let go of
]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReceiptStep(Wire):
    """One step of an action, as it ended."""

    name: str
    bytes: int | None = None
    elapsed_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt(Wire):
    """What an action that changes memory promised, and what it did."""

    action: ReceiptAction
    target: str
    ok: bool
    error: str | None = None
    error_code: str | None = None
    """Of `error`, as in `engine.errors`; that of a refusal only where nothing was changed."""
    expected_bytes: int = 0
    """Bytes that it said it would return."""
    returned_bytes: int | None = None
    residue_bytes: int | None = None
    """Expected less returned, where positive."""
    residue: tuple[str, ...] = ()
    """What the residue is, by name."""
    loaded_bytes: int = 0
    elapsed_s: float
    proof: Proof
    proof_reason: str | None = None
    """Why the proof is weaker than `nvml-process`."""
    steps: tuple[ReceiptStep, ...] = ()
    at: float = 0.0
    job_id: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SwitchRequest(Wire):
    """Make `model` the loaded one."""

    model: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CancelRequest(Wire):
    """Give up the switches to `model`, or (None) every switch, or the reload of a cleanup."""

    model: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CancelAsked(Wire):
    """What will be given up; the receipt of each, with the code `cancelled`, says how it ended."""

    targets: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class CleanupRequest(Wire):
    """End the worker, prove that all of it is gone, and put a fresh one in its place."""

    reload: bool = True
    """Load again what was resident."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WarmRequest(Wire):
    """Weight files to keep in host memory, or to let go of: a component's, a model's or (None) all."""

    model: str | None = None
    component: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class UnloadRequest(Wire):
    """Give back the weights of a component, of a model, or of all (both None)."""

    model: str | None = None
    component: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheStatus(Wire):
    """The embeddings of earlier prompts, kept on disk."""

    folder: str
    entries: int
    bytes: int
    max_bytes: int
    """The least recently used go beyond it; 0 where none are kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheCleared(Wire):
    """What was removed of the embeddings of earlier prompts."""

    folder: str
    entries: int
    bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class StopRequest(Wire):
    """End the engine; the queue stays on disk."""

    after_job: bool = False
    """Let the running job finish first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LogLine(Wire):
    """One structured line of the engine's log."""

    seq: int
    at: float
    level: Literal["debug", "info", "warning", "error"] = "info"
    event: str
    """A stable key: `load`, `unload`, `switch`, `job`, `worker`, `oom`, ..."""
    text: str
    job_id: int | None = None
    memory: bool = False
    """True for the lines that tell a leak's story."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorBody(Wire):
    """The body of every refusal."""

    code: str
    message: str
    """One sentence that names the value and the way out."""


# --------------------------------------------------------------------------- events


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot(Wire):
    """The first event of every stream: all that a viewer needs to draw."""

    status: Status
    jobs: tuple[Job, ...]
    """The waiting and running ones and the newest finished ones, oldest first."""
    log: tuple[LogLine, ...]
    receipt: Receipt | None = None
    """The newest one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MemorySampled(Wire):
    """A device was read; up to 10 of these a second."""

    device: DeviceStatus


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineChanged(Wire):
    engine: EngineStatus
    workers: tuple[WorkerStatus, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelsChanged(Wire):
    models: tuple[ModelStatus, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class JobChanged(Wire):
    job: Job


@dataclass(frozen=True, kw_only=True, slots=True)
class JobsReordered(Wire):
    """The waiting jobs, in their new order."""

    job_ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ActionProgressed(Wire):
    """A step of a running switch, load or unload ended."""

    action: str
    target: str
    step: ReceiptStep


@dataclass(frozen=True, kw_only=True, slots=True)
class ReceiptIssued(Wire):
    receipt: Receipt


@dataclass(frozen=True, kw_only=True, slots=True)
class Logged(Wire):
    line: LogLine


@dataclass(frozen=True, kw_only=True, slots=True)
class Heartbeat(Wire):
    at: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Goodbye(Wire):
    """The stream's last event: the engine is ending on purpose."""

    reason: str


Event: TypeAlias = (
    Snapshot
    | MemorySampled
    | EngineChanged
    | ModelsChanged
    | JobChanged
    | JobsReordered
    | ActionProgressed
    | ReceiptIssued
    | Logged
    | Heartbeat
    | Goodbye
)

EVENT_TYPES: dict[str, type[Event]] = {
    "snapshot": Snapshot,
    "memory": MemorySampled,
    "engine": EngineChanged,
    "models": ModelsChanged,
    "job": JobChanged,
    "order": JobsReordered,
    "action": ActionProgressed,
    "receipt": ReceiptIssued,
    "log": Logged,
    "heartbeat": Heartbeat,
    "goodbye": Goodbye,
}
"""The SSE `event:` names and what their `data:` decodes to."""

EVENT_NAMES: dict[type[Event], str] = {model: name for name, model in EVENT_TYPES.items()}


# --------------------------------------------------------------------------- helpers shared by both ends

TERMINAL_STATES: frozenset[JobState] = frozenset({"done", "failed", "cancelled", "interrupted"})
"""A job in one of these will not run again by itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EventFrame(Wire):
    """An event with its place in the engine's stream."""

    seq: int
    event: Event = field(repr=False)
