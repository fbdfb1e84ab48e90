"""Other engines on the GPUs, by name: who has claimed a GPU, and which of its processes are that engine's."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from engine.daemon.claims import ClaimHolder, find_holder
from engine.paths import user_name
from engine.telemetry.procfs import NAME_LIMIT, PROC, clean, read_stat

DEPTH = 5
"""A worker is a child of its engine or of that one's nursery; a few more for wrappers."""


class Tenants:
    """Keeps who has claimed what. Event loop's thread only; no look waits for anything."""

    def __init__(
        self,
        *,
        find: Callable[[str], ClaimHolder | None] = find_holder,
        proc: Path = PROC,
        own_pid: int | None = None,
    ) -> None:
        self._find = find
        self._proc = proc
        self._own_pid = os.getpid() if own_pid is None else own_pid
        self._holders: dict[str, ClaimHolder] = {}
        self._names: dict[tuple[str, int, float], str | None] = {}
        self._asked: set[tuple[str, int, float]] = set()
        """Since the last look; who is not asked for any more has left."""

    def look(self, device_ids: Iterable[str]) -> None:
        """Look again who has claimed these GPUs; called once a second."""
        found = {device_id: self._find(device_id) for device_id in device_ids}
        holders = {
            device_id: holder
            for device_id, holder in found.items()
            if holder is not None and holder.pid != self._own_pid
        }
        if holders != self._holders:
            self._names.clear()
        self._names = {key: name for key, name in self._names.items() if key in self._asked}
        self._asked.clear()
        self._holders = holders

    def of_device(self, device_id: str) -> str | None:
        """The other engine that has claimed the GPU, by name."""
        holder = self._holders.get(device_id)
        return None if holder is None else _name(holder)

    def of_process(self, device_id: str, pid: int, start_time: float | None) -> str | None:
        """The other engine whose process this is, by name; None where it is none's, or cannot be known."""
        holder = self._holders.get(device_id)
        if holder is None or start_time is None:
            return None
        key = (device_id, pid, start_time)
        self._asked.add(key)
        if key not in self._names:
            self._names[key] = _name(holder) if self._is_below(pid, holder.pid) else None
        return self._names[key]

    def _is_below(self, pid: int, ancestor: int) -> bool:
        for _ in range(DEPTH):
            if pid == ancestor:
                return pid > 0
            stat = read_stat(pid, self._proc)
            if stat is None:
                return False
            pid = stat.parent
        return False


def _name(holder: ClaimHolder) -> str:
    pid = f", pid {holder.pid}" if holder.pid else ""
    return f"turbotui engine of {clean(user_name(holder.uid), NAME_LIMIT)}{pid}"
