"""The pipe between daemon and worker: its messages, and a Channel that carries them as JSON.

Messages are tagged msgspec structs, so that neither end ever unpickles anything: a pickled
torch exception would import torch into the daemon. This module imports no torch.
"""

from __future__ import annotations

import threading
from multiprocessing.connection import Connection
from typing import Generic, TypeVar

import msgspec

from engine.wire import (
    ComponentState,
    JobRuns,
    JobSpec,
    LedgerLine,
    Manifest,
    Receipt,
    ReceiptStep,
    Stage,
    StageRecord,
    VaePrecision,
)
from engine.worker.leaks.facts import Inspect, Inspected, Trace
from engine.worker.oom_facts import OomMoment
from engine.worker.tidy import Tidy

# --------------------------------------------------------------------------- daemon -> worker


CACHE_STEP = "free the cache"
"""Name of the step in which an unload gives back the allocator's cache, so that it is not counted as
the weights'."""


class ModelFiles(msgspec.Struct, frozen=True, kw_only=True):
    """A model as the catalog found it; enough to load it without looking again."""

    name: str
    kind: str
    path: str


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A component that should be resident."""

    model: ModelFiles
    component: str


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is told when it starts; it holds for its life."""

    warm_budget_bytes: int | None = None
    """Host memory that weight files may hold registered; None: what the host can spare."""
    stream: str = "auto"
    """How weights travel: `auto`, `registered` or `ring`."""
    ring_rate: float | None = None
    """Bytes a second through pinned buffers, as a worker before this one measured it."""
    allocator: str = ""
    """Settings of the device's caching allocator, as PYTORCH_ALLOC_CONF spells them."""
    vae_precision: VaePrecision = "auto"
    embeddings: str = ""
    """Folder of the prompts' embeddings; empty: none are kept."""
    embeddings_bytes: int = 0
    preview: bool = True
    """Whether jobs show their latents after each step."""
    nan_guard: bool = True
    """Whether a job ends where its latents are not finite."""
    opened: tuple[Wanted, ...] = ()
    """Whose files are looked at while the libraries warm up: a `Preload` of them will come."""


class RunJob(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Run one job to its end; answered by JobEnded."""

    job_id: int
    attempt: int
    spec: JobSpec
    """With every default filled in."""
    model: ModelFiles
    width: int
    height: int
    output: str
    """Absolute path of the finished video; its folder exists."""
    budget_bytes: int
    """What this worker may hold on its device, weights and stages together."""
    stage_bytes: dict[Stage, int]
    """Working memory that each stage needs beside its weights, as the daemon planned it."""
    runs: JobRuns | None = None
    """Why the model is another than the one that was asked for, for the manifest."""


class CancelJob(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Stop `job_id` at the next step; harmless when it has ended."""

    job_id: int


class CancelAction(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Give up a switch or a restore, begun or not; its ActionEnded says so. Harmless when it has ended."""

    action_id: int


class SwitchTo(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Unload what is not needed and load `model`; Unloaded between the two, then ActionEnded."""

    action_id: int
    model: ModelFiles
    budget_bytes: int
    reserve_bytes: int
    """Of the budget, kept free for the work of the model's largest stage."""


class Proceed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The answer to Unloaded: what was seen from outside; now load."""

    action_id: int
    returned_bytes: int | None
    elapsed_s: float


class Restore(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Make these components resident, beside what is there; answered by ActionEnded."""

    action_id: int
    wanted: tuple[Wanted, ...]


class Preload(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Begin to load these components now, whatever the worker does; `Restore` waits for them."""

    wanted: tuple[Wanted, ...]


class Warm(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Bring weight files into host memory and register them; answered by ActionEnded."""

    action_id: int
    wanted: tuple[Wanted, ...]
    kept: tuple[Wanted, ...]
    """All that a person wants warm, these included."""


class DropWarm(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Let go of weight files in host memory, all that were opened (None) or these; ActionEnded."""

    action_id: int
    wanted: tuple[Wanted, ...] | None
    kept: tuple[Wanted, ...] = ()


class Unload(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Give back a component's, a model's or (both None) all weights; answered by ActionEnded."""

    action_id: int
    model: str | None = None
    component: str | None = None


class Free(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Give back the allocator's cache and idle components, also in a job; answered by ActionEnded."""

    action_id: int
    idle: bool = True
    """False: the cache alone."""


FREED = {True: "cache and idle components", False: "cache"}
"""What a Free names in its receipt, by its `idle`."""


class Count(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Tell the allocator's counters now, beside the usual ten times a second."""


class Stop(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """End once nothing runs; the process exits 0."""


ToWorker = (
    RunJob
    | CancelJob
    | CancelAction
    | SwitchTo
    | Proceed
    | Restore
    | Preload
    | Warm
    | DropWarm
    | Unload
    | Free
    | Tidy
    | Count
    | Inspect
    | Trace
    | Stop
)

# --------------------------------------------------------------------------- worker -> daemon


class Connected(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The worker has its context on the device; the first message of every worker."""


class WorkerReady(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The device answers and libraries are warm."""

    pid: int
    device_name: str
    total_bytes: int
    baseline_rss_bytes: int
    """RSS of a fresh worker: Python and libraries."""
    versions: dict[str, str]
    allocator: str | None = None
    """The allocator's settings as it tells them itself; None where there is none."""


class LibrariesLoaded(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What jobs call is in the device's memory: the context will not grow by it any more."""


class ComponentChanged(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Where a component's weights are now."""

    model: str
    component: str
    bytes: int
    state: ComponentState
    leased: bool
    load_s: float | None = None
    """Seconds that the load took which ended just now."""


class AllocatorSample(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The allocator's counters; on cpu only the weights are known to it."""

    taken_at: float
    """`time.monotonic()`, comparable across processes of one host."""
    read_at: float | None = None
    """When all of them had been read, where that takes a while."""
    device_allocs: int
    """Segments ever taken from the driver plus given back: moves when memory moved."""
    weights: dict[str, int]
    """`model/component` to resident bytes."""
    allocated_bytes: int | None = None
    active_bytes: int | None = None
    reserved_bytes: int | None = None
    requested_bytes: int | None = None
    inactive_split_bytes: int | None = None
    num_ooms: int | None = None
    num_alloc_retries: int | None = None


class JobProgressed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    job_id: int
    stage: Stage
    step: int
    steps: int
    fraction: float
    eta_s: float | None
    peak_bytes: int | None


class JobPreviewed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A picture of the latents after a step."""

    job_id: int
    step: int
    """From 1."""
    steps: int
    width: int
    height: int
    rgb: bytes
    """width x height x 3."""


class JobStaged(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A line of the job's ledger has begun or ended."""

    job_id: int
    ended: tuple[StageRecord, ...]
    current: str | None
    current_before_bytes: int | None
    shares: dict[str, float]
    """Stage to its expected part of the job's time, in the order of the stages."""
    from_last: bool
    cut_off: StageRecord | None = None
    """The stage in which the job was ended before its end."""


class JobEnded(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The job's end: a manifest when it is done, else an error's code and sentence."""

    job_id: int
    manifest: Manifest | None = None
    manifest_path: str | None = None
    error_code: str | None = None
    error: str | None = None
    worker_unusable: bool = False
    """True after a fault that leaves the device context broken: this process must be replaced."""
    oom: OomMoment | None = None
    """What there was, where memory ran out."""


class ActionStepped(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    action_id: int
    step: ReceiptStep


class ActionEnded(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A switch, unload or free ended; the daemon completes the receipt's proof."""

    action_id: int
    receipt: Receipt


class Unloaded(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A switch has given back what it will; it loads once Proceed has come."""

    action_id: int
    expected_bytes: int
    cache_bytes: int
    """Of the allocator's cache, which went before."""
    held_bytes: int
    """Before either went, by the backend's own count: on cpu the process's resident set."""


class WarmChanged(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What of the opened models' files is registered."""

    warm: dict[str, int]
    """`model/component` to bytes; a file that models share counts for each of them."""
    total_bytes: int = 0
    """Of all files, each once."""
    rate: float | None
    """Bytes a second at which pages are registered; None before any were."""
    ring_rate: float | None
    """Bytes a second through pinned buffers; None before that was measured."""
    refusal: str | None
    """Why this host registers nothing."""


class MemoryMoved(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A load or unload inside a job, for the log and the console's last receipt."""

    receipt: Receipt


class Ledgered(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A line of the memory ledger; its number, device, worker and the driver's figures are the daemon's."""

    line: LedgerLine
    began_at: float
    ended_at: float
    """By `time.monotonic()`."""


class WorkerLog(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    level: str
    event: str
    text: str
    job_id: int | None = None
    memory: bool = False


FromWorker = (
    Connected
    | WorkerReady
    | LibrariesLoaded
    | ComponentChanged
    | AllocatorSample
    | JobProgressed
    | JobPreviewed
    | JobStaged
    | JobEnded
    | ActionStepped
    | ActionEnded
    | Unloaded
    | WarmChanged
    | MemoryMoved
    | Inspected
    | Ledgered
    | WorkerLog
)

Sent = TypeVar("Sent")
Received = TypeVar("Received")


class Channel(Generic[Sent, Received]):
    """One end of the pipe. `send` may be called from any thread, `receive` from one.

    Raises:
        EOFError, OSError: the other end is gone.
        msgspec.ValidationError: a message of another build; both ends are started together,
            so this is a bug and not a condition to survive.
    """

    def __init__(self, connection: Connection, received: object) -> None:
        self._connection = connection
        self._decoder: msgspec.json.Decoder[Received] = msgspec.json.Decoder(received)
        self._encoder = msgspec.json.Encoder()
        self._lock = threading.Lock()

    def send(self, message: Sent) -> None:
        data = self._encoder.encode(message)
        with self._lock:
            self._connection.send_bytes(data)

    def receive(self) -> Received:
        return self._decoder.decode(self._connection.recv_bytes())

    def close(self) -> None:
        self._connection.close()
