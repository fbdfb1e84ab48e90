"""What there was when a job ran out of memory: what it asked for, who held the rest, and what would fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from engine.choices import Residency
from engine.wire.base import Wire
from engine.wire.jobs import Stage
from engine.wire.memory import BalancePart

BoundKind: TypeAlias = Literal["budget", "device", "address_space", "cgroup", "host"]
"""What ran out: what the engine lets its jobs hold, the card, what the system lets this process map, or
allows its container, or what the machine has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OomFreeable(Wire):
    """A part that could have been given back."""

    what: str
    """As verdicts name it: `cache`, `fragmented`, `component`, `pinned`, `process`, ..."""
    text: str
    """One sentence."""
    bytes: int | None
    command: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class OomFit(Wire):
    """A request that the same memory would have held, by the estimate as this failure corrects it."""

    text: str
    resolution: str
    aspect_ratio: str
    frames: int
    residency: Residency | None
    peak_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class OomReport(Wire):
    """One failure, whole."""

    job_id: int
    attempt: int
    at: float
    device_id: str
    device_name: str
    stage: Stage
    step: int
    steps: int
    component: str | None
    """That the stage used, as `model/name`."""
    asked_bytes: int | None
    """By the allocator's own word; None where it gave none."""
    free_bytes: int | None
    """Of the device, as the driver or the kernel told then."""
    total_bytes: int
    held_bytes: int
    """By the worker."""
    budget_bytes: int
    """What the engine let this job hold."""
    estimated_bytes: int
    """What the job was expected to take at its peak."""
    parts: tuple[BalancePart, ...]
    freeable: tuple[OomFreeable, ...]
    """The cheapest first."""
    fits: tuple[OomFit, ...]
    lines: tuple[str, ...]
    """All of it in sentences."""
    message: str
    """The library's own first line."""
    bound: BoundKind | None = None
    """The limit that was met, against which `freeable` counts; None in a report of an earlier build."""
    bound_bytes: int | None = None
    """That limit."""
    bound_free_bytes: int | None = None
    """What it left then."""
