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
    "runtime",  # cpu only: Python and libraries of a fresh worker, or all of a helper that `label` names
    "process",  # another process on the device
    "driver",  # the driver's own reserve
    "unseen",  # counted by the driver, attributable to nobody we can see
    "ghost",  # the same where nobody can hide from us: it belongs to nobody
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
    """False when memory moved between the readings it is made of, or they contradict each other."""
    total_bytes: int
    parts: tuple[BalancePart, ...]
    unexplained_bytes: int
    """Total less the known parts: the one remainder, which must be small.

    Negative where the parts claim more than there is: the worker holds less beyond its allocator than
    when its context was measured. In a coherent balance nothing else makes it so.
    """
    moving: str | None = None
    """Why it is not coherent."""


NOBODYS: frozenset[PartKind] = frozenset({"unseen", "ghost"})
"""Kinds of parts that no process owns, whatever that means where they are."""


def nobodys_bytes(balance: Balance | None) -> int | None:
    """What of a device belongs to nobody that can be seen; None where that is not known."""
    sizes = [] if balance is None else [part.bytes for part in balance.parts if part.kind in NOBODYS]
    return None if not sizes or None in sizes else sum(size or 0 for size in sizes)


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
    program: str | None = None
    """What it is by its command line: `ComfyUI`, `vLLM`; None where that tells nothing known."""
    started_at: float | None = None
    start_time: float | None = None
    """Seconds since boot by the kernel's clock: with `pid` an identity, which a kill must name."""
    container: str | None = None
    """Where it runs, as `docker 3f2a9c1b`; None for no container or an unknown one."""
    ours: Literal["worker", "nursery", "daemon", "probe"] | None = None
    tenant: str | None = None
    """The other turbotui engine whose process it is, by its user and pid."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CardStatus(Wire):
    """What a GPU tells beside its memory. What it does not tell is None."""

    driver_version: str | None = None
    nvml_version: str | None = None
    pci_bus_id: str | None = None
    graphics_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    clock_limits: tuple[str, ...] | None = None
    """What slows it down now, in words; empty: nothing."""
    ecc_uncorrected: int | None = None
    """Errors that ECC could not correct since the driver was loaded."""
    persistence_mode: bool | None = None
    mig_mode: bool | None = None
    display_active: bool | None = None
    recovery_action: str | None = None
    """What the driver itself advises, in words; `none` when all is well."""
    condition_age_s: float | None = None
    """Seconds since everything from `ecc_uncorrected` on was read; every ten seconds is usual."""
    xid: int | None = None
    """The newest critical error that the driver announced while this engine ran."""
    xid_text: str | None = None
    xid_age_s: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceView(Wire):
    """Whether we see everybody who may hold the device's memory."""

    complete: bool
    """True: what belongs to nobody we see is a ghost's. False: it may be somebody's."""
    reason: str | None = None
    """Why it is not complete."""


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
    tenant: str | None = None
    """Another turbotui engine that works on it, by its user and pid."""
    balance: Balance | None = None
    processes: tuple[DeviceProcess, ...] = ()
    utilisation_percent: int | None = None
    temperature_c: int | None = None
    power_w: float | None = None
    age_s: float | None = None
    """Seconds since its newest reading: memory, and processes unless `processes_fault` says otherwise."""
    slow_age_s: float | None = None
    """Seconds since utilisation, temperature, power and clocks were read; once a second is usual."""
    processes_fault: str | None = None
    """Why the processes are not known; then `processes` is empty, which says nothing."""
    fault: str | None = None
    """Why the device is not read any more; everything above is as it was then."""
    view: DeviceView | None = None
    """None for the host."""
    reserved_inside_used: bool | None = None
    """Whether this driver counts its own reserve as used; found when the device was first read."""
    card: CardStatus | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class HostStatus(Wire):
    """The host's memory, and what of it is ours."""

    total_bytes: int
    """The machine's memory or the cgroup's limit, whichever is smaller."""
    available_bytes: int
    limited_by_cgroup: bool
    age_s: float
    registered_bytes: int | None = None
    """Weight files that the worker keeps registered, each once; None without a worker that tells."""
    worker_rss_bytes: int | None = None
    """The worker's resident set; mapped weight files count in it."""
    ours_rss_bytes: int = 0
    """Of all our processes; what they share counts in each."""
    swapped_bytes: int | None = None
    """Of all our processes; None where the kernel does not tell."""
    pressure_percent: float | None = None
    """Share of the last 10 s in which somebody waited for memory: in our cgroup where that limits us,
    else on the machine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingRequest(Wire):
    """Read memory at another rate for a while."""

    hz: float
    """Readings a second, at most 500; ten are usual."""
    seconds: float
    """After these the usual rate comes back; 0 brings it back at once."""
