"""A device's memory: its parts now, its past, and who holds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from engine.wire.base import Wire

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
    start_time: float | None = None
    """Seconds since boot by the kernel's clock: with `pid` an identity, which a kill must name."""
    container: str | None = None
    """Where it runs, as `docker 3f2a9c1b`; None for no container or an unknown one."""
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
