"""What the probe says and is asked: tagged msgspec structs, one JSON object a line.

The probe is a process of its own (`python -P -m engine.telemetry.probe`): it writes FromProbe
lines to its standard output and reads ToProbe lines from its standard input, and ends when
that closes. Imports neither pynvml nor psutil, so the daemon can read it.
"""

from __future__ import annotations

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


ToProbe = Watch | Trace


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


class DeviceReading(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A GPU's memory and processes; 10 a second. Slow-moving fields keep their last value."""

    taken_at: float
    """`time.monotonic()`."""
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
    utilisation_percent: int | None = None
    temperature_c: int | None = None
    power_w: float | None = None


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


FromProbe = DeviceReading | HostReading | Traced | ProbeFault
