"""The engine's own processes, and the whole picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from engine.wire.base import Wire
from engine.wire.memory import DeviceStatus, HostStatus
from engine.wire.models import ModelStatus
from engine.wire.overview import Background, Pressure


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
    """Why nothing is started although jobs wait, or None."""
    resumable: bool = True
    """Whether `POST /queue/resume` clears it; else it ends by itself with its cause."""


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
    max_prompt_chars: int | None = None
    """The longest prompt that it accepts; None of an older engine, which does not tell."""


WorkerState: TypeAlias = Literal["starting", "idle", "loading", "running", "silent", "stopping"]
"""`silent`: it has said nothing for seconds where a healthy one speaks 10 times a second."""


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
    host: HostStatus | None = None
    """None before the first reading."""
    background: Background | None = None
    """Of the device in use."""
    pressure: tuple[Pressure, ...] = ()
    """Of the device in use, and of the host's memory beside a GPU; empty before a reading."""
