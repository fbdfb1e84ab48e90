"""What a worker saw at the moment in which memory ran out: figures and text alone. Imports no torch."""

from __future__ import annotations

import msgspec

from engine.wire import BoundKind, Stage


class OomBound(msgspec.Struct, frozen=True, kw_only=True):
    """The limit that was met."""

    kind: BoundKind
    limit_bytes: int | None = None
    free_bytes: int | None = None
    """What it still left then; None where `OomMoment.free_bytes` tells, or nobody does."""


class OomMoment(msgspec.Struct, frozen=True, kw_only=True):
    """Read before anything was given back."""

    at: float
    """Wall clock."""
    message: str
    """First line of what was raised."""
    stage: Stage = "start"
    step: int = 0
    steps: int = 0
    component: str | None = None
    """That the stage used, as `model/name`."""
    asked_bytes: int | None = None
    held_bytes: int
    """By this process: of a GPU what its allocator has reserved, else its resident set."""
    total_bytes: int
    free_bytes: int | None = None
    """Of the device, by the driver or the kernel."""
    bound: OomBound
    weights: dict[str, int] = {}
    """`model/component` to resident bytes."""
    live_bytes: int
    """Other live tensors; on cpu all of the process beyond a fresh one and its weights."""
    baseline_bytes: int = 0
    """On cpu: the resident set of a fresh worker."""
    releasable_bytes: int | None = None
    fragmented_bytes: int | None = None
    awaiting_bytes: int | None = None
    pinned_bytes: int | None = None
    """Host memory in torch's pinned blocks."""
    pinned_used_bytes: int | None = None
    """Of them what tensors lie in."""
    pinned_reason: str | None = None
    """Why that was not counted, where it was not."""
