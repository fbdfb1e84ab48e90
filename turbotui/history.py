"""Owns the recent past of a device's memory: a bounded ring of one-second columns.

Samples come at up to 10 Hz. A column keeps the parts at its highest moment, so that a spike
between two pictures is never lost. Seconds without a sample stay empty: the graph shows a gap
there and never a flat line.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.wire import Balance, MemoryHistory

COLUMNS = 3600
"""Seconds that are kept."""

CARRIED_S = 2
"""Seconds that a column may stand for when nothing came after it."""

STACK = ("driver", "others", "unseen", "context", "weights", "live", "fragmented", "cache")
"""The parts from the bottom up: stable owners first, so that ours move on top of them."""

OURS = ("context", "weights", "live", "fragmented", "cache")

_KIND_TO_PART = {
    "weights": "weights",
    "live": "live",
    "awaiting_free": "live",
    "rounding": "live",
    "releasable": "cache",
    "fragmented": "fragmented",
    "context": "context",
    "runtime": "context",
    "process": "others",
    "others": "others",
    "driver": "driver",
    "unseen": "unseen",
    "ghost": "unseen",
    "free": "free",
}


def parts_of(balance: Balance) -> dict[str, int | None]:
    """Bytes for each drawn part; None where a share of it is unknown, absent where there is none of it."""
    found: dict[str, int | None] = {}
    for part in balance.parts:
        name = _KIND_TO_PART[part.kind]
        known = found.get(name, 0)
        found[name] = None if known is None or part.bytes is None else known + part.bytes
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One second of one device."""

    second: int
    """Wall-clock second since the epoch."""
    stack: tuple[int, ...]
    """Bytes by `STACK` at the highest moment; what is unknown counts 0."""
    total_bytes: int


class History:
    """Columns of one device. `add` and the readers may be in different threads."""

    def __init__(self, columns: int = COLUMNS) -> None:
        self._columns: OrderedDict[int, Column] = OrderedDict()
        self._most = columns
        self._lock = Lock()

    def add(self, balance: Balance, at: float) -> None:
        """Take a sample that arrived at `at`, wall-clock."""
        parts = parts_of(balance)
        stack = tuple(parts.get(name) or 0 for name in STACK)
        total = sum(stack)
        second = int(at)
        with self._lock:
            old = self._columns.get(second)
            if old is not None and old.total_bytes > total:
                return
            if old is None or old.stack != stack:
                self._columns[second] = Column(second=second, stack=stack, total_bytes=total)
            while len(self._columns) > self._most:
                self._columns.popitem(last=False)

    def fill(self, past: MemoryHistory) -> None:
        """Take what the engine saw before this viewer came; what was seen here stays."""
        with self._lock:
            for span in past.columns:
                parts: dict[str, int] = {}
                for kind, (_low, high) in span.parts.items():
                    name = _KIND_TO_PART[kind]
                    parts[name] = parts.get(name, 0) + high
                second = int(span.at)
                if span.samples and second not in self._columns:
                    stack = tuple(parts.get(name, 0) for name in STACK)
                    self._columns[second] = Column(second=second, stack=stack, total_bytes=sum(stack))

    def window(self, last_second: int, count: int) -> list[Column | None]:
        """The `count` seconds up to `last_second`, oldest first; None where nothing was sampled.

        A second or two without a sample are filled from the one before: an engine at rest says
        little, and its silence counts only once it makes the picture stale.
        """
        found: list[Column | None] = []
        known: Column | None = None
        with self._lock:
            for second in range(last_second - count + 1 - CARRIED_S, last_second + 1):
                column = self._columns.get(second)
                if column is not None:
                    known = column
                elif known is not None and second - known.second > CARRIED_S:
                    known = None
                found.append(known)
        return found[CARRIED_S:]

    def highest(self, parts: tuple[str, ...] = STACK) -> int:
        """The most that these parts took together in anything kept; 0 before the first sample."""
        chosen = [STACK.index(part) for part in parts]
        with self._lock:
            return max(
                (sum(column.stack[index] for index in chosen) for column in self._columns.values()), default=0
            )
