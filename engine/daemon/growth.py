"""Who took memory lately: each holder's bytes over the last minute."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from engine.units import MIB
from engine.wire import NOBODYS, DeviceStatus, Growth, Owner

WINDOW_S = 60.0
LEAST_BYTES = 256 * MIB
LEAST_SHARE = 0.005
"""Of the device: what grew by less is not what fills it."""
SHOWN = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """Somebody who holds memory; `started` tells a process from an earlier one of its pid."""

    who: str
    owner: Owner
    pid: int | None = None
    started: float | None = None


def holders_of(device: DeviceStatus) -> dict[Holder, int]:
    """Who holds how much of `device` now, free memory and the driver apart."""
    found: dict[Holder, int] = {}
    if device.kind == "cuda":
        for process in device.processes:
            if process.bytes is None:
                continue
            who = f"our {process.ours}" if process.ours else process.user or process.name or "?"
            holder = Holder(
                who=f"{who} {process.pid}",
                owner="ours" if process.ours else "neighbour",
                pid=process.pid,
                started=process.start_time,
            )
            found[holder] = process.bytes
    parts = () if device.balance is None else device.balance.parts
    for part in parts:
        if part.kind in NOBODYS and part.bytes is not None:
            found[Holder(who="unseen", owner="unseen")] = part.bytes
        elif device.kind == "cpu" and part.kind == "others" and part.bytes is not None:
            found[Holder(who="others on this host", owner="neighbour")] = part.bytes
        elif device.kind == "cpu" and part.kind == "live" and part.bytes is not None:
            found[Holder(who="our worker", owner="ours")] = part.bytes
    return found


class GrowthWatch:
    """The last minute of one device's holders; asked as often as it hears."""

    def __init__(self) -> None:
        self._past: deque[tuple[float, Mapping[Holder, int]]] = deque()

    def heard(self, now: float, sizes: Mapping[Holder, int]) -> None:
        """Who holds what at `now`, on the monotonic clock."""
        self._past.append((now, sizes))
        while self._past[0][0] < now - WINDOW_S:
            self._past.popleft()

    def grew(self, total_bytes: int) -> tuple[Growth, ...]:
        """Who holds more than within the last minute, each since it held least, the most first.

        One that was not there held nothing. `total_bytes` are the device's.
        """
        if not self._past:
            return ()
        now, newest = self._past[-1]
        least = max(LEAST_BYTES, int(total_bytes * LEAST_SHARE))
        found = []
        for holder, size in newest.items():
            # The last of the smallest: growth is told since it began, not since one began to look.
            low, negative_at = min((sizes.get(holder, 0), -at) for at, sizes in self._past)
            if size - low >= least:
                found.append(
                    Growth(
                        who=holder.who,
                        owner=holder.owner,
                        pid=holder.pid,
                        bytes=size - low,
                        over_s=round(now + negative_at, 1),
                    )
                )
        return tuple(sorted(found, key=lambda growth: -growth.bytes)[:SHOWN])
