"""What was recorded, as the engine serves it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from engine.wire.base import Wire

RecordedTierName: TypeAlias = Literal["readings", "seconds", "spans", "events"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedTier(Wire):
    """What there is of one kind of block."""

    name: RecordedTierName
    since: float
    until: float
    blocks: int
    bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordingStatus(Wire):
    """What the flight recorder keeps."""

    folder: str
    max_bytes: int
    """`engine.recording_bytes`; 0 keeps nothing."""
    tiers: tuple[RecordedTier, ...]
    problem: str | None = None
    """Why nothing is kept just now."""
    remarks: tuple[str, ...] = ()
    """What lies there and cannot be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedPart(Wire):
    """What one part of a device's memory did in a span."""

    kind: str
    """As in BalancePart; `#unexplained`, `#total`; `#process` for a process by the list of
    processes; `#utilisation`, `#temperature` and `#power` in percent, degrees Celsius and watts;
    `#moving` is 1 where a reading was not coherent."""
    owner: str
    label: str
    pid: int | None
    low: int | None
    """Smallest bytes; None where it was not known."""
    high: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedSpan(Wire):
    """What a device's memory did in a span; a span without readings is absent."""

    device_id: str
    at: float
    """Its start."""
    width_s: float
    """0 for a single reading."""
    samples: int
    parts: tuple[RecordedPart, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedEvent(Wire):
    """Something that happened."""

    at: float
    kind: str
    """As the events of `/events`; or `started`, `stopped`, `gap`, `came`, `went`, `device`."""
    data: dict[str, Any]
