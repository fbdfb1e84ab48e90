"""How a recording thins out with age: readings, then seconds, then spans of ten, each with its bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from engine.recording.rows import Row, joined

TierName: TypeAlias = Literal["readings", "seconds", "spans", "events"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tier:
    """What one kind of block holds and how long it stays."""

    code: int
    """In the file; never given to another tier."""
    name: TierName
    width_ms: int
    """Of a row; 0 for single readings and for events."""
    keep_s: float
    segment_s: float
    """A file is closed after this long, so that what is too old can go with its file."""
    flush_s: float
    """A block is written at least this often while there is something to write."""
    share: int
    """Per cent of the bound that it may keep when all are full."""


READINGS = Tier(code=1, name="readings", width_ms=0, keep_s=900, segment_s=120, flush_s=1.0, share=15)
SECONDS = Tier(
    code=2, name="seconds", width_ms=1000, keep_s=48 * 3600, segment_s=3600, flush_s=10.0, share=35
)
SPANS = Tier(
    code=3, name="spans", width_ms=10_000, keep_s=30 * 86400, segment_s=86400, flush_s=60.0, share=30
)
EVENTS = Tier(code=4, name="events", width_ms=0, keep_s=30 * 86400, segment_s=86400, flush_s=1.0, share=20)
TIERS: tuple[Tier, ...] = (READINGS, SECONDS, SPANS, EVENTS)
CONTEXT_S = 7500.0
"""How far before a moment the events must be known that say how things stood: all of it is written
down once an hour."""
MEMORY: tuple[Tier, ...] = (READINGS, SECONDS, SPANS)
"""From the finest to the coarsest."""


class Rollup:
    """Joins the rows of every device into spans of `width_ms` that begin at whole multiples of it."""

    def __init__(self, width_ms: int) -> None:
        self._width_ms = width_ms
        self._open: dict[str, Row] = {}

    def add(self, row: Row) -> Row | None:
        """Take a row; the span before it, if this one begins another."""
        start = row.at_ms // self._width_ms * self._width_ms
        old = self._open.get(row.device_id)
        if old is not None and old.at_ms == start:
            self._open[row.device_id] = joined((old, row), at_ms=start, width_ms=self._width_ms)
            return None
        self._open[row.device_id] = joined((row,), at_ms=start, width_ms=self._width_ms)
        return old

    def close(self) -> list[Row]:
        """The spans that are not over yet, as far as they are known."""
        rows = list(self._open.values())
        self._open.clear()
        return rows
