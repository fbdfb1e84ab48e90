"""What a check rests on: gathered once, then only read. No detector asks the system anything."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from engine.wire import DeviceProcess, DeviceStatus, LogLine, Receipt, Trend, WorkerStatus
from engine.worker.channel import AllocatorSample

EngineRole = Literal["worker", "nursery", "probe", "demo-maker", "daemon"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessFact:
    """A process that matters to a check, as /proc shows it."""

    pid: int
    start_time: float
    """Seconds since boot by the kernel's clock."""
    uid: int
    name: str
    state: str
    parent: int
    parent_name: str = ""
    command: str = ""
    """Cleaned; empty where it was not asked for or cannot be read."""
    role: EngineRole | None = None
    """What it is of an engine, by its title or command line."""
    under_daemon: bool = False
    """Whether an engine's daemon is among its ancestors."""
    left: bool = False
    """Whether it is an engine's child and the engine that it was tied to is gone."""
    holds_gpu: bool | None = None
    """Whether it has a GPU's file open; None where we may not look."""
    has_terminal: bool = False
    listens: bool | None = None
    """Whether it listens on a TCP port; None where that cannot be known."""
    stuck_in: str | None = None
    """The kernel's function that it waits in where no signal reaches (state D), at two looks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CardChange:
    """A process that came to a GPU or left it."""

    at: float
    """Wall clock."""
    device_id: str
    process: DeviceProcess
    came: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """Everything that one check knows."""

    at: float
    """Wall clock."""
    since_boot: float
    """The kernel's clock now, in which processes tell their start."""
    host: str = "this host"
    uid: int
    user: str
    devices: tuple[DeviceStatus, ...] = ()
    workers: tuple[WorkerStatus, ...] = ()
    counters: AllocatorSample | None = None
    versions: dict[str, str] | None = None
    """Of the worker's libraries; None without a worker."""
    allocator_asked: str = ""
    allocator_environment: dict[str, str] = field(default_factory=dict)
    """PYTORCH_ALLOC_CONF and its alias in the environment of the engine, where they are set."""
    nursery_state: str = ""
    nursery_detail: str | None = None
    nursery_device_files: tuple[str, ...] = ()
    probe_age_s: float | None = None
    host_total_bytes: int | None = None
    host_available_bytes: int | None = None
    host_limited_by_cgroup: bool = False
    receipts: tuple[Receipt, ...] = ()
    """The newest last."""
    log: tuple[LogLine, ...] = ()
    """The newest last."""
    growing: tuple[Trend, ...] = ()
    """Floors of the live worker that grow with its jobs or switches."""
    processes: tuple[ProcessFact, ...] = ()
    changes: tuple[CardChange, ...] = ()
    """Who came to the GPUs and left them lately, the newest last."""
    unseen_since: dict[str, float] = field(default_factory=dict)
    """Device to when its unseen memory rose to what it is, where that was recorded."""
    scanned: bool = True
    """Whether /proc was looked through to its end."""

    def process(self, pid: int) -> ProcessFact | None:
        return next((process for process in self.processes if process.pid == pid), None)

    @property
    def gpus(self) -> tuple[DeviceStatus, ...]:
        return tuple(device for device in self.devices if device.kind == "cuda")


def gpu_name(device: DeviceStatus) -> str:
    """As sentences name it: `GPU 0`."""
    return f"GPU {device.index}" if device.index is not None else device.id


def who(process: DeviceProcess) -> str:
    """As sentences name it: `liwei 90112 (ComfyUI)`."""
    what = process.program or process.name
    return f"{process.user or 'an unknown user'} {process.pid}" + (f" ({what})" if what else "")
