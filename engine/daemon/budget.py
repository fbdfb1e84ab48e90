"""How much a worker may hold on its device: what room there is, and what the settings leave of it."""

from __future__ import annotations

from dataclasses import dataclass

from engine.config import EngineConfig
from engine.telemetry.samples import DeviceReading, HostReading
from engine.units import size_text


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """What the worker may hold on its device, weights and stages together."""

    now_bytes: int
    """Beside everybody else as they are, if all of our own went."""
    empty_bytes: int
    """If nobody else were there."""
    held_by: str
    """Who holds what is missing, in words."""
    limit_bytes: int | None = None
    """What engine.memory_budget_bytes allows, where that is less than the empty device has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """What there is on a device for weights and stages, by one reading and before any setting."""

    total_bytes: int
    """Of the device."""
    now_bytes: int
    """Beside everybody else, and beside what a worker holds that has loaded nothing."""
    empty_bytes: int
    """If nobody else were there."""
    held_by: str
    """Who else is there, in words."""

    def used_at(self, peak_bytes: int) -> int:
        """What would be in use if all of ours went and then a job took `peak_bytes`."""
        return self.total_bytes - self.now_bytes + peak_bytes

    def budget(self, config: EngineConfig) -> Budget:
        """What the settings leave of it."""
        held_by, now_bytes, empty_bytes = self.held_by, self.now_bytes, self.empty_bytes
        if kept := config.keep_free_bytes:
            held_by += f"; engine.keep_free_bytes keeps {size_text(kept)} for others"
        now_bytes -= kept
        limit = config.memory_budget_bytes
        if limit is not None and limit >= empty_bytes:
            limit = None  # to raise it would help nobody
        if limit is not None:
            if limit < now_bytes:
                held_by += f"; engine.memory_budget_bytes is {size_text(limit)}"
            now_bytes, empty_bytes = min(now_bytes, limit), limit
        return Budget(
            now_bytes=max(0, now_bytes),
            empty_bytes=max(0, empty_bytes),
            held_by=held_by,
            limit_bytes=limit,
        )


def room_on_cpu(host: HostReading, *, worker_pid: int | None, baseline_bytes: int) -> Room:
    """Of the host's memory, where a worker that has loaded nothing holds `baseline_bytes`."""
    ours = 0 if worker_pid is None else max(0, host.rss_bytes.get(worker_pid, 0) - baseline_bytes)
    now_bytes = host.available_bytes + ours
    others = max(0, host.total_bytes - now_bytes - baseline_bytes)
    return Room(
        total_bytes=host.total_bytes,
        now_bytes=now_bytes,
        empty_bytes=host.total_bytes - baseline_bytes,
        held_by=f"others on this host hold {size_text(others)}",
    )


def room_on_gpu(
    reading: DeviceReading, *, worker_pid: int | None, held_bytes: int, context_bytes: int
) -> Room:
    """Of a GPU, where the worker holds `held_bytes`, or would hold `context_bytes` of its own."""
    reserve = 0 if reading.reserved_inside_used else (reading.reserved_bytes or 0)
    neighbours = [
        f"{process.user or '?'} {process.pid} {size_text(process.bytes)}"
        for process in reading.processes
        if process.bytes and process.pid != worker_pid
    ]
    return Room(
        total_bytes=reading.total_bytes,
        now_bytes=reading.free_bytes + held_bytes - context_bytes,
        empty_bytes=reading.total_bytes - reserve - context_bytes,
        held_by=", ".join(neighbours) or "nobody that we can see holds the rest",
    )
