"""A device's memory in parts that add up to its total: readings and counters in, a Balance out.

Pure, and imports neither pynvml nor psutil, so the daemon composes here what the probe and the
worker said. What is not known is a part of None with its reason and lies in the remainder.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from types import MappingProxyType

from engine.telemetry.samples import DeviceReading, HostReading, ProcessReading
from engine.wire import Balance, BalancePart, Owner, PartKind
from engine.worker.channel import AllocatorSample

DRIVER_FLOOR_BYTES = 64 * 2**20
"""What a driver may count as used in no process's name: nothing on an H200 that is at rest, 37 MiB beside
one context."""


def gpu_balance(
    reading: DeviceReading,
    before: AllocatorSample | None,
    after: AllocatorSample | None,
    context_bytes: int | None,
    our_pids: Collection[int],
    *,
    wall_offset_s: float | None = None,
) -> Balance:
    """The balance of a GPU.

    `before` and `after` are our worker's counters from either side of the reading: it is
    coherent when the worker took nothing from the driver and gave nothing back in between, no other
    process did while it was read, and no part had to be cut off at 0, which would be a contradiction.
    Without any counters our process is one part, by NVML. `context_bytes` was measured; None
    leaves context and libraries in the remainder. `our_pids` are the worker's on this device.
    `wall_offset_s` turns the reading's monotonic time into wall time (None: this host's now).
    """
    counters = after or before
    reserve = reading.reserved_bytes
    cut: list[str] = []
    parts: list[BalancePart] = []
    if counters is not None:
        parts += _allocator_parts(counters, cut)
        parts.append(
            _part("context", "ours", context_bytes, reason="not measured yet: the worker has not been idle")
        )
    for process in reading.processes:
        if process.pid not in our_pids:
            parts.append(_process_part(process, "neighbour"))
        elif counters is None:
            parts.append(_process_part(process, "ours"))
    parts.append(_part("driver", "driver", reserve, reason="this driver does not tell its own reserve"))
    parts.append(_unseen_part(reading, counters, context_bytes, our_pids, cut))
    parts.append(_part("free", "free", reading.free_bytes))
    moving = why_moving(reading, before, after) or (cut[0] if cut else None)
    return _balance(
        device_id=reading.device_id,
        taken_at=reading.taken_at,
        wall_offset_s=wall_offset_s,
        moving=moving,
        total_bytes=reading.total_bytes,
        parts=parts,
    )


def cpu_balance(
    host: HostReading,
    allocator: AllocatorSample | None,
    worker_rss: int | None,
    baseline_rss: int | None,
    *,
    helpers: Mapping[str, tuple[int, int]] = MappingProxyType({}),
    wall_offset_s: float | None = None,
) -> Balance:
    """The balance of a host without a GPU, where the worker's weights and tensors lie in host memory.

    `worker_rss` is the worker's resident set, `baseline_rss` that of a fresh one; both None when
    there is no worker. File pages that the worker maps count as its own and not as free, though
    the kernel could take them back. `helpers` are our other processes, role to pid and resident set;
    what the nursery shares with the worker, which is forked from it, counts as the worker's.
    """
    weights = allocator.weights if allocator is not None else {}
    weights_bytes = sum(weights.values())
    parts = [_part("weights", "ours", num_bytes, label=label) for label, num_bytes in sorted(weights.items())]
    in_use = max(0, host.total_bytes - host.available_bytes)
    moving: str | None = None
    beside = 0
    for role, (pid, rss) in sorted(helpers.items()):
        shared = min(rss, baseline_rss or 0) if role == "nursery" and worker_rss is not None else 0
        # Of pages that several map each counts them all: together never more than there is beside the worker.
        own = max(0, min(rss - shared, host.total_bytes - (worker_rss or 0) - beside))
        parts.append(_part("runtime", "ours", own, label=role, pid=pid))
        beside += own
    if worker_rss is not None:
        beyond_weights = worker_rss - weights_bytes
        # Weights that are not in its RSS were swapped out, or counted before or after it was read.
        if beyond_weights < 0:
            moving = "the worker's weights are more than its resident set"
        runtime = live = None
        if baseline_rss is not None:
            runtime = max(0, min(baseline_rss, beyond_weights))
            live = max(0, beyond_weights - runtime)
        reason = "the RSS of a fresh worker was not measured"
        parts.append(_part("runtime", "ours", runtime, reason=reason))
        parts.append(_part("live", "ours", live, reason=reason))
        others: int | None = max(0, in_use - worker_rss - beside)
        free = max(0, min(host.available_bytes, host.total_bytes - worker_rss - beside))
    else:
        # With weights but no RSS, what others hold cannot be told from what the worker holds.
        others = max(0, in_use - beside) if allocator is None else None
        free = max(0, min(host.available_bytes, host.total_bytes - beside))
    parts.append(_part("others", "neighbour", others, reason="the worker's RSS is not known"))
    parts.append(_part("free", "free", free))
    return _balance(
        device_id="cpu",
        taken_at=host.taken_at,
        wall_offset_s=wall_offset_s,
        moving=moving,
        total_bytes=host.total_bytes,
        parts=parts,
    )


def _allocator_parts(counters: AllocatorSample, cut: list[str]) -> list[BalancePart]:
    """What the caching allocator holds, in parts that add up to its reserved bytes.

    A part that would be negative is 0, and `cut` says so.

    allocated is part of active, active of reserved. Blocks between active and allocated wait
    for another stream; of what is reserved and not active, the inactive part of split segments
    cannot be given back.
    """
    weights_bytes = sum(counters.weights.values())
    parts = [_part("weights", "ours", size, label=label) for label, size in sorted(counters.weights.items())]
    reason = "this allocator does not count it"

    def less(whole: int | None, part: int | None) -> int | None:
        found = _less(whole, part)
        if found is not None and found < 0:
            cut.append("the worker's counters contradict each other")
        return None if found is None else max(0, found)

    rounding = less(counters.allocated_bytes, counters.requested_bytes)
    # Without a figure for rounding, it is part of the live blocks.
    live = less(_less(counters.allocated_bytes, rounding or 0), weights_bytes)
    cached = less(counters.reserved_bytes, counters.active_bytes)
    return [
        *parts,
        _part("live", "ours", live, reason=reason),
        _part("rounding", "ours", rounding, reason=reason),
        _part("awaiting_free", "ours", less(counters.active_bytes, counters.allocated_bytes), reason=reason),
        _part("releasable", "ours", less(cached, counters.inactive_split_bytes), reason=reason),
        _part("fragmented", "ours", counters.inactive_split_bytes, reason=reason),
    ]


def _unseen_part(
    reading: DeviceReading,
    counters: AllocatorSample | None,
    context_bytes: int | None,
    our_pids: Collection[int],
    cut: list[str],
) -> BalancePart:
    """What the driver counts as used beyond every process that it shows us.

    A ghost only where nobody can hide from us, and beyond what a driver keeps for itself.
    """
    if reading.processes_fault is not None:
        return _part(
            "unseen", "unseen", None, reason=f"the processes cannot be listed: {reading.processes_fault}"
        )
    silent = [process.pid for process in reading.processes if process.bytes is None]
    if silent:
        pids = ", ".join(str(pid) for pid in silent)
        return _part("unseen", "unseen", None, reason=f"NVML does not tell the bytes of pid {pids}")
    used = reading.used_bytes
    if reading.reserved_inside_used:
        used -= reading.reserved_bytes or 0
    shown = sum(process.bytes or 0 for process in reading.processes)
    if counters is not None and not any(process.pid in our_pids for process in reading.processes):
        # Ours is not listed (another PID namespace): its own counters stand for it.
        if counters.reserved_bytes is None:
            return _part("unseen", "unseen", None, reason="NVML does not list our worker's process")
        shown += counters.reserved_bytes + (context_bytes or 0)
    beyond = used - shown
    if beyond < 0:
        cut.append("processes hold more than the device: memory moved, or two share some")
    ghost = reading.view_gap is None and beyond > DRIVER_FLOOR_BYTES
    return _part("ghost" if ghost else "unseen", "unseen", max(0, beyond))


def why_moving(
    reading: DeviceReading, before: AllocatorSample | None, after: AllocatorSample | None
) -> str | None:
    """Why memory may have moved between the readings; None where none did."""
    if not reading.still:
        return "memory of the device moved while its processes were read"
    if before is None and after is None:
        return None  # one source alone cannot disagree with itself
    if before is None or after is None:
        return "the worker's counters did not come"
    began_at = reading.taken_at if reading.began_at is None else reading.began_at
    if not (until(before) <= began_at and reading.taken_at <= after.taken_at):
        return "the worker's counters do not enclose the reading"
    # Segments that grow in place are not counted as taken, so what is reserved is compared as well.
    if (before.device_allocs, before.reserved_bytes) != (after.device_allocs, after.reserved_bytes):
        return "the worker took memory or gave it back"
    return None


def until(counters: AllocatorSample) -> float:
    """When the counters had been read."""
    return counters.taken_at if counters.read_at is None else counters.read_at


def _process_part(process: ProcessReading, owner: Owner) -> BalancePart:
    return _part(
        "process",
        owner,
        process.bytes,
        label=process.name,
        pid=process.pid,
        reason="NVML does not tell this process's bytes here",
    )


def _less(whole: int | None, part: int | None) -> int | None:
    """Whole less part; None when either is unknown."""
    return None if whole is None or part is None else whole - part


def _part(
    kind: PartKind,
    owner: Owner,
    num_bytes: int | None,
    *,
    label: str = "",
    pid: int | None = None,
    reason: str | None = None,
) -> BalancePart:
    """A part; `reason` is kept only where the bytes are not known."""
    return BalancePart(
        kind=kind,
        owner=owner,
        bytes=num_bytes,
        label=label,
        pid=pid,
        reason=reason if num_bytes is None else None,
    )


def _balance(
    *,
    device_id: str,
    taken_at: float,
    wall_offset_s: float | None,
    moving: str | None,
    total_bytes: int,
    parts: list[BalancePart],
) -> Balance:
    if wall_offset_s is None:
        wall_offset_s = time.time() - time.monotonic()
    return Balance(
        device_id=device_id,
        taken_at=taken_at + wall_offset_s,
        coherent=moving is None,
        moving=moving,
        total_bytes=total_bytes,
        parts=tuple(parts),
        unexplained_bytes=total_bytes - sum(part.bytes for part in parts if part.bytes is not None),
    )
