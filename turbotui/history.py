"""Owns the recent past of a device's memory: a bounded ring of one-second columns.

Samples come at up to 10 Hz. A column keeps the parts at its highest moment, so that a spike
between two pictures is never lost. Seconds without a sample stay empty: the graph shows a gap
there and never a flat line.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.wire import Balance, HistoryColumn, MemoryHistory

COLUMNS = 3600
"""Seconds that are kept."""

CARRIED_S = 2
"""Seconds that a column may stand for when nothing came after it."""

STACK = ("driver", "others", "unseen", "context", "weights", "live", "fragmented", "cache")
"""The parts from the bottom up: stable owners first, so that ours move on top of them."""

OURS = ("context", "weights", "live", "fragmented", "cache")

KIND_TO_PART = {
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
        name = KIND_TO_PART[part.kind]
        known = found.get(name, 0)
        found[name] = None if known is None or part.bytes is None else known + part.bytes
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One second of one device, or a longer span."""

    second: int
    """Wall-clock second since the epoch at which it begins."""
    stack: tuple[int, ...]
    """Bytes by `STACK` at the highest moment; what is unknown counts 0."""
    total_bytes: int
    low_bytes: int = field(default=0, compare=False)
    """The least that was taken in it; not drawn, so that it alone draws nothing again."""


_SHRINKS = ("cache", "fragmented", "live", "weights")
"""Parts that pass bytes to each other within a span, those first that live the shortest."""


def column_of(span: HistoryColumn, second: int, device_bytes: int | None = None) -> Column | None:
    """A span as the engine or a recording tells it; None where nothing was read in it.

    The most that each part had need not fall together: with `device_bytes` no more is drawn than was
    ever taken at once, which is what the least free memory says.
    """
    if not span.samples:
        return None
    high: dict[str, int] = {}
    low: dict[str, int] = {}
    for kind, (least, most) in span.parts.items():
        name = KIND_TO_PART[kind]
        high[name] = high.get(name, 0) + most
        low[name] = low.get(name, 0) + least
    stack = {name: high.get(name, 0) for name in STACK}
    least_taken = sum(low.get(name, 0) for name in STACK)
    if device_bytes is not None and "free" in high:
        too_much = max(0, sum(stack.values()) - (device_bytes - low["free"]))
        for name in _SHRINKS:
            less = min(too_much, stack[name] - low.get(name, 0))
            stack[name] -= less
            too_much -= less
        least_taken = min(sum(stack.values()), max(least_taken, device_bytes - high["free"]))
    return Column(
        second=second,
        stack=tuple(stack.values()),
        total_bytes=sum(stack.values()),
        low_bytes=least_taken,
    )


def together(columns: Sequence[Column], second: int) -> Column | None:
    """Columns as one that begins at `second`: the highest of them, and the least of all."""
    if not columns:
        return None
    highest = max(columns, key=lambda column: column.total_bytes)
    return replace(highest, second=second, low_bytes=min(column.low_bytes for column in columns))


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
            low = total if old is None else min(total, old.low_bytes)
            if old is not None and old.total_bytes > total:
                if low < old.low_bytes:
                    self._columns[second] = replace(old, low_bytes=low)
                return
            if old is None or old.stack != stack:
                column = Column(second=second, stack=stack, total_bytes=total, low_bytes=low)
                self._columns[second] = column
            while len(self._columns) > self._most:
                self._columns.popitem(last=False)

    def fill(self, past: MemoryHistory) -> None:
        """Take what the engine saw before this viewer came; what was seen here stays."""
        with self._lock:
            for span in past.columns:
                second = int(span.at)
                if second not in self._columns and (column := column_of(span, second)) is not None:
                    self._columns[second] = column

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

    def between(self, first: int, last: int) -> list[Column]:
        """The columns of the seconds `first` to `last` that were sampled, oldest first."""
        with self._lock:
            found = (self._columns.get(second) for second in range(first, last + 1))
            return [column for column in found if column is not None]

    def highest(self, parts: tuple[str, ...] = STACK) -> int:
        """The most that these parts took together in anything kept; 0 before the first sample."""
        chosen = [STACK.index(part) for part in parts]
        with self._lock:
            return max(
                (sum(column.stack[index] for index in chosen) for column in self._columns.values()), default=0
            )
