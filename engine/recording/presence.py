"""What readings tell beside figures: processes that come and go, other devices, and silence."""

from __future__ import annotations

from dataclasses import dataclass, replace

from engine.recording.entries import DeviceSeen, Entry, Gap, ProcessCame, ProcessWent
from engine.wire import DeviceProcess, DeviceStatus

GAP_S = 2.0
"""A device is read ten times a second; so long without a reading is told."""


@dataclass(kw_only=True, slots=True)
class _Seen:
    process: DeviceProcess
    came_at: float
    peak_bytes: int | None


class Presence:
    """Compares each reading with the one before it of its device."""

    def __init__(self) -> None:
        self._devices: dict[str, DeviceSeen] = {}
        self._read_at: dict[str, float] = {}
        self._processes: dict[str, dict[tuple[int, float | None], _Seen]] = {}

    def look(self, status: DeviceStatus) -> list[Entry]:
        """What has changed with this reading."""
        if status.balance is None:
            return []
        at, found = status.balance.taken_at, list[Entry]()
        before = self._read_at.get(status.id)
        self._read_at[status.id] = at
        if before is not None and at - before > GAP_S:
            found.append(Entry(at, Gap(since=before, reason="no reading came", device_id=status.id)))
        device = DeviceSeen(
            id=status.id,
            kind=status.kind,
            index=status.index,
            name=status.name,
            total_bytes=status.total_bytes,
            in_use=status.in_use,
        )
        if self._devices.get(status.id) != device:
            self._devices[status.id] = device
            found.append(Entry(at, device))
        return found + self._compare(status, at)

    def now(self, at: float) -> list[Entry]:
        """Every device and process that is there, for a place from which a reader may begin."""
        found: list[Entry] = [Entry(at, device) for device in self._devices.values()]
        for device_id, seen in self._processes.items():
            found += [
                Entry(at, ProcessCame(device_id=device_id, process=one.process, already=True))
                for one in seen.values()
            ]
        return found

    def _compare(self, status: DeviceStatus, at: float) -> list[Entry]:
        first = status.id not in self._processes
        known = self._processes.setdefault(status.id, {})
        found: list[Entry] = []
        present = {(process.pid, process.start_time): process for process in status.processes}
        for identity in [gone for gone in known if gone not in present]:
            seen = known.pop(identity)
            went = ProcessWent(
                device_id=status.id, process=seen.process, came_at=seen.came_at, peak_bytes=seen.peak_bytes
            )
            found.append(Entry(at, went))
        for identity, process in present.items():
            seen_before = known.get(identity)
            if seen_before is None:
                known[identity] = _Seen(process=process, came_at=at, peak_bytes=process.bytes)
                found.append(Entry(at, ProcessCame(device_id=status.id, process=process, already=first)))
                continue
            if process.ours is None and seen_before.process.ours is not None:
                # One of ours that was let go is on the card for a moment more, and nobody else's.
                process = replace(process, ours=seen_before.process.ours)
            seen_before.process = process
            if process.bytes is not None:
                seen_before.peak_bytes = max(process.bytes, seen_before.peak_bytes or 0)
        return found
