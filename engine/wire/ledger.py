"""The memory ledger: what each load, unload, switch, job and stage held before, at most and after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from engine.wire.base import Wire
from engine.wire.leaks import Trend

LedgerKind: TypeAlias = Literal["load", "unload", "switch", "cleanup", "job", "stage"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Held(Wire):
    """Bytes of one kind over the length of a line; None where they could not be read."""

    before: int | None = None
    peak: int | None = None
    after: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LedgerLine(Wire):
    """One action or stage that may change what the worker holds."""

    id: int
    """Grows with time."""
    at: float
    """Wall clock, of its end."""
    kind: LedgerKind
    target: str
    """`wan-demo-small/dit`, `job 12`, or of a stage its name: `denoise dit.high`."""
    device_id: str
    worker: str
    """Tells one worker process from the next: pid and start."""
    model: str | None = None
    job_id: int | None = None
    shape: str | None = None
    """Of a job and its stages what makes two of them alike: `832x480x81x4`."""
    ok: bool = True
    elapsed_s: float
    weights: Held = Held()
    """Of resident components."""
    kept_bytes: int = 0
    """Of a stage: live tensors that its job still needs after it, such as embeddings and latents."""
    allocated: Held = Held()
    """Live tensors by the device's allocator; on cpu the arenas and what is counted beside them."""
    reserved: Held = Held()
    """What the allocator holds of the driver."""
    device: Held = Held()
    """The worker's entry of the driver's list."""
    rss: Held = Held()
    """The worker's own host memory: anonymous pages, and shared ones that are not pinned; no mapped files."""
    pinned: Held = Held()
    """Host memory that the driver holds in place, without registered weight files."""

    @property
    def floor_bytes(self) -> int | None:
        """Live tensors at its end that nothing needs: what a job should leave as it found it."""
        if self.allocated.after is None or self.weights.after is None:
            return None
        return self.allocated.after - self.weights.after - self.kept_bytes

    @property
    def floor_before_bytes(self) -> int | None:
        """The same at its begin, of an action or of a job's first stage."""
        if self.allocated.before is None or self.weights.before is None:
            return None
        return self.allocated.before - self.weights.before

    @property
    def outside_bytes(self) -> int | None:
        """What the worker holds of the device beyond its allocator: context, code, workspaces."""
        if self.device.after is None or self.reserved.after is None:
            return None
        return self.device.after - self.reserved.after


@dataclass(frozen=True, kw_only=True, slots=True)
class LedgerPage(Wire):
    """Some of the memory ledger, the newest first, and how the floors move."""

    lines: tuple[LedgerLine, ...]
    older: bool
    """Whether more of what was asked for comes before the last one."""
    trends: tuple[Trend, ...] = ()
    """Of the newest worker, whatever lines were asked for."""
    worker: str | None = None
    """Whose they are; None before any line."""
    problem: str | None = None
    """Why lines are not kept, or not all that were written can be read."""
