"""A stretch of a device's memory in columns, as a graph draws it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

from engine.recording.rows import MANY, SUM, Row
from engine.recording.tiers import MEMORY, Tier
from engine.wire import HistoryColumn, PartKind

KINDS: tuple[PartKind, ...] = get_args(PartKind)


def tier_for(width_s: float) -> Tier:
    """The coarsest tier whose rows are no wider than a column."""
    return next(tier for tier in reversed(MEMORY) if tier.width_ms <= max(0.0, width_s * 1000))


def columns_of(rows: Iterable[Row], *, since: float, width_s: float, count: int) -> list[HistoryColumn]:
    """`rows` in `count` columns from `since` on; a row wider than one is in each that it covers."""
    parts: list[dict[PartKind, tuple[int, int]]] = [{} for _ in range(count)]
    samples = [0] * count
    for row in rows:
        at = row.at_ms / 1000
        first = int((at - since) // width_s)
        # A span ends where the next begins; one reading is where it is.
        last = first if not row.width_ms else int((at + row.width_ms / 1000 - 0.001 - since) // width_s)
        sums = by_kind(row)
        for number in range(max(0, first), min(count - 1, last) + 1):
            samples[number] += row.samples
            for kind, (low, high) in sums.items():
                old = parts[number].get(kind, (low, high))
                parts[number][kind] = (min(old[0], low), max(old[1], high))
    return [
        HistoryColumn(at=since + (number + 1) * width_s, samples=samples[number], parts=parts[number])
        for number in range(count)
    ]


def by_kind(row: Row) -> dict[PartKind, tuple[int, int]]:
    """The parts of a row by their kind; of a kind with several parts, what they had together."""
    found: dict[PartKind, tuple[int, int]] = {}
    for (kind, _owner, label, _pid), value in row.values.items():
        name = label if kind == SUM else kind
        if value is not None and name in KINDS and (kind == SUM or name not in MANY):
            found[name] = value
    return found
