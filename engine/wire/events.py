"""What the engine tells everybody who listens: its log, and what happens as it does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from engine.wire.base import Wire
from engine.wire.findings import CheckReport
from engine.wire.jobs import Job
from engine.wire.memory import DeviceStatus
from engine.wire.models import ModelStatus
from engine.wire.overview import Background, Pressure
from engine.wire.receipts import Receipt, ReceiptStep
from engine.wire.status import EngineStatus, Status, WorkerStatus


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
class PreviewMade(Wire):
    """A job can be seen as it is after a step: `/jobs/{id}/preview?step=`."""

    job_id: int
    step: int


@dataclass(frozen=True, kw_only=True, slots=True)
class JobsReordered(Wire):
    """The waiting jobs, in their new order."""

    job_ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ActionProgressed(Wire):
    """A step of a running switch, load or unload ended, or has come a little further."""

    action: str
    target: str
    step: ReceiptStep


@dataclass(frozen=True, kw_only=True, slots=True)
class ReceiptIssued(Wire):
    receipt: Receipt


@dataclass(frozen=True, kw_only=True, slots=True)
class BackgroundChanged(Wire):
    """Something came to the device or left it, and has settled."""

    background: Background


@dataclass(frozen=True, kw_only=True, slots=True)
class PressureChanged(Wire):
    """A level changed; while there is pressure, its figures too, at most once a second."""

    pressure: tuple[Pressure, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Logged(Wire):
    line: LogLine


@dataclass(frozen=True, kw_only=True, slots=True)
class FindingsChanged(Wire):
    """A check found something new, or what was found before is gone."""

    report: CheckReport


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
    | PreviewMade
    | JobsReordered
    | ActionProgressed
    | ReceiptIssued
    | BackgroundChanged
    | PressureChanged
    | Logged
    | FindingsChanged
    | Heartbeat
    | Goodbye
)

EVENT_TYPES: dict[str, type[Event]] = {
    "snapshot": Snapshot,
    "memory": MemorySampled,
    "engine": EngineChanged,
    "models": ModelsChanged,
    "job": JobChanged,
    "preview": PreviewMade,
    "order": JobsReordered,
    "action": ActionProgressed,
    "receipt": ReceiptIssued,
    "background": BackgroundChanged,
    "pressure": PressureChanged,
    "log": Logged,
    "findings": FindingsChanged,
    "heartbeat": Heartbeat,
    "goodbye": Goodbye,
}
"""The SSE `event:` names and what their `data:` decodes to."""

EVENT_NAMES: dict[type[Event], str] = {model: name for name, model in EVENT_TYPES.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class EventFrame(Wire):
    """An event with its place in the engine's stream."""

    seq: int
    event: Event = field(repr=False)
