"""What the verdicts rest on: gathered once by whoever asks, then only read. No detector asks anybody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from engine.leaks.holders import merged
from engine.wire import BalancePart, DeviceStatus, Finding, PartKind, Trend, WorkerStatus
from engine.worker.leaks.facts import Findings, LiveTensors

What: TypeAlias = Literal["device", "host", "pinned"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ComponentUse:
    """A resident component, and what is known of who needs it."""

    model: str
    component: str
    bytes: int
    leased: bool
    """A running stage uses it."""
    wanted: bool
    """Its model is the active one, or a job that waits asks for it."""
    used_at: float | None = None
    """Wall clock, of its model's last use; None where this engine never saw one."""
    jobs_since: int = 0
    """Jobs of other models that have ended after that."""

    @property
    def label(self) -> str:
        return f"{self.model}/{self.component}"


@dataclass(frozen=True, kw_only=True, slots=True)
class HostMemory:
    """Host memory that the worker's allocators hold; None where one of them does not tell."""

    pinned_bytes: int | None = None
    """Blocks that the driver holds in place for torch, in use or not; weight files are not among them."""
    pinned_used_bytes: int | None = None
    """Of these, in tensors."""
    heap_free_bytes: int | None = None
    """Freed by the program and kept by the C library's heap."""
    shared_bytes: int | None = None
    """Pages of shared mappings and of files in /dev/shm, without pinned blocks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """Everything that one look knows."""

    at: float
    """Wall clock."""
    device: DeviceStatus | None = None
    """The one in use."""
    worker: WorkerStatus | None = None
    components: tuple[ComponentUse, ...] = ()
    look: Findings | None = None
    """Into the worker; None without one, or where it did not answer."""
    trends: tuple[Trend, ...] = ()
    """Of the worker that runs now."""
    host: HostMemory = HostMemory()
    checked: tuple[Finding, ...] = ()
    """What the baseline check found."""
    awaited_before: tuple[tuple[str, int], ...] = ()
    """By stream, what waited for it at the look before this one, as the worker was already idle."""
    uid_user: str | None = None
    """Whose engine this is."""

    @property
    def idle(self) -> bool:
        """No job runs, so that nothing but what is kept on purpose is needed."""
        running = self.worker is not None and self.worker.job_id is not None
        return not running and (self.look is None or self.look.job_id is None)

    @property
    def name(self) -> str:
        """The device as sentences name it."""
        if self.device is None or self.device.kind == "cpu":
            return "the host"
        return f"GPU {self.device.index}" if self.device.index is not None else self.device.id

    @property
    def device_id(self) -> str | None:
        return None if self.device is None else self.device.id

    def parts(self, kind: PartKind) -> tuple[BalancePart, ...]:
        """Of a balance that adds up; nothing is said by another."""
        balance = None if self.device is None else self.device.balance
        if balance is None or not balance.coherent:
            return ()
        return tuple(part for part in balance.parts if part.kind == kind)

    def part_bytes(self, kind: PartKind) -> int:
        return sum(part.bytes or 0 for part in self.parts(kind))

    def growing(self, what: What) -> Trend | None:
        """The trend of `what` that grows, the steeper one where it does over jobs and over switches."""
        found = [trend for trend in self.trends if trend.what == what and trend.grows]
        return max(found, key=lambda trend: trend.bytes_each or 0.0, default=None)

    def held(self) -> tuple[LiveTensors, ...]:
        """Tensors that Python holds and the engine does not need, by their holder.

        What a running call holds goes when that ends, in a job. Where none runs, a thread waits with it.
        """
        if self.look is None:
            return ()
        return merged(item for item in self.look.tensors if self.idle or not item.running)
