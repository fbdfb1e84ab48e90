"""What the probe says and is asked: tagged msgspec structs, one JSON object a line.

The probe is a process of its own (`python -P -m engine.telemetry.probe`): it writes FromProbe
lines to its standard output and reads ToProbe lines from its standard input, and ends when
that closes. Imports neither pynvml nor psutil, so the daemon can read it.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class Watch(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Our own processes, whose RSS and device bytes are read with every sample."""

    pids: dict[str, int]
    """Role (`daemon`, `nursery`, `worker:<device>`) to pid."""


class Trace(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Read one pid's bytes at 1 kHz for an action's length, to prove a receipt.

    Answered by one Traced: as soon as the process holds at most `until_bytes` (its RSS on
    cpu, its device bytes on a GPU), or after `timeout_s`.
    """

    trace_id: int
    pid: int
    device_id: str
    until_bytes: int
    timeout_s: float


class ReadNow(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Read the GPUs once more, beside the beat: memory moved under the last reading."""


class Pace(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Read at another rate for a while, as a benchmark asks."""

    period_s: float
    for_s: float


ToProbe = Watch | Trace | ReadNow | Pace


class ProcessReading(msgspec.Struct, frozen=True, kw_only=True):
    """One process on a GPU as NVML and /proc show it."""

    pid: int
    bytes: int | None
    user: str | None = None
    name: str = ""
    command: str = ""
    started_at: float | None = None
    start_time: float | None = None
    """Seconds since boot by the kernel's clock: with `pid`, an identity."""
    container: str | None = None


class CardReading(msgspec.Struct, frozen=True, kw_only=True):
    """What a card tells beside its memory. What it does not tell is None."""

    driver_version: str | None = None
    nvml_version: str | None = None
    pci_bus_id: str | None = None
    graphics_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    clock_limits: tuple[str, ...] | None = None
    """What slows it down now, in words; empty: nothing."""
    condition_at: float | None = None
    """`time.monotonic()` of what follows, which is read every few seconds."""
    ecc_uncorrected: int | None = None
    persistence_mode: bool | None = None
    mig_mode: bool | None = None
    display_active: bool | None = None
    recovery_action: str | None = None
    """What the driver advises, in words; `none` when all is well."""


class DeviceReading(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A GPU's memory and processes; 10 a second. Slow-moving fields keep their last value."""

    taken_at: float
    """`time.monotonic()` when memory and processes had been read."""
    began_at: float | None = None
    """... and when that began; None: at the same moment."""
    still: bool = True
    """Whether the device's used bytes were the same before and after its processes were read."""
    device_id: str
    index: int
    name: str
    total_bytes: int
    used_bytes: int
    reserved_bytes: int | None
    """The driver's own reserve (NVML v2); None where NVML has only v1."""
    reserved_inside_used: bool
    """Which identity holds on this driver, found at start."""
    free_bytes: int
    processes: tuple[ProcessReading, ...]
    processes_fault: str | None = None
    """Why the processes are not known; then `processes` is empty, which says nothing."""
    view_gap: str | None = "nobody has looked"
    """Why memory of nobody we see may belong to somebody all the same; None: it belongs to nobody."""
    slow_at: float | None = None
    """`time.monotonic()` of what follows."""
    utilisation_percent: int | None = None
    temperature_c: int | None = None
    power_w: float | None = None
    card: CardReading = CardReading()


class HostReading(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Host memory and our processes' RSS; 10 a second."""

    taken_at: float
    total_bytes: int
    """The machine's memory or the cgroup's limit, whichever is smaller."""
    available_bytes: int
    """MemAvailable or the cgroup's headroom, whichever is smaller."""
    limited_by_cgroup: bool
    rss_bytes: dict[int, int]
    """Watched pid to RSS; a pid that is gone is absent."""
    swapped_bytes: dict[int, int] = {}
    """Watched pid to what of it was swapped out; read once a second."""
    pressure_percent: float | None = None
    """Share of the last 10 s in which somebody waited for memory: in our cgroup where that limits us,
    else on the machine. None where the kernel does not tell."""


class Traced(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Answer to Trace."""

    trace_id: int
    start_bytes: int | None
    end_bytes: int | None
    elapsed_s: float
    reached: bool


class ProbeFault(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Something that cannot be read, once for each kind: NVML missing, a GPU lost."""

    kind: str
    detail: str
    device_id: str | None = None
    """Of the one device that it concerns."""


class DeviceNews(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Something happened on a device that a person should know of."""

    device_id: str
    kind: Literal["xid", "recovery_action", "back"]
    """`back`: it was lost and answers again."""
    detail: str
    number: int = 0
    """The Xid."""


FromProbe = DeviceReading | HostReading | Traced | ProbeFault | DeviceNews
