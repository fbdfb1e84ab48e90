"""The past of a device in columns: what is in memory, and before that what was recorded.

The newest minutes come from memory, where each reading is at once; what is older, or was read by
an engine before this one, comes from the disk in the tier that suits the columns' width.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

from engine.daemon.recording import FlightRecorder
from engine.errors import NotFound
from engine.recording.rows import MANY, SUM, Row
from engine.recording.tiers import MEMORY, Tier
from engine.telemetry.recorder import Column, Recorder
from engine.wire import HistoryColumn, MemoryHistory, PartKind

KINDS: tuple[PartKind, ...] = get_args(PartKind)


async def past_of(
    recent: Recorder, recorded: FlightRecorder, device_id: str, seconds: float, columns: int
) -> MemoryHistory:
    """The last `seconds` in `columns` equal spans, oldest first; one without a reading is a gap."""
    spans = recent.history(device_id, seconds, columns)
    found = [_column(span) for span in spans]
    oldest = recent.oldest_at(device_id)
    missing = [number for number, span in enumerate(spans) if oldest is None or span.starts_at < oldest]
    if missing:
        since, until = spans[0].starts_at, spans[missing[-1]].ends_at
        finest = tier_for(seconds / columns)
        try:
            rows = await recorded.ask(
                lambda recording: recording.rows(device_id, since=since, until=until, finest=finest)
            )
        except NotFound:
            rows = []
        old = columns_of(rows, since=since, width_s=seconds / columns, count=len(missing))
        for number in missing:
            found[number] = _together(old[number], found[number])
    return MemoryHistory(device_id=device_id, columns=tuple(found))


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


def _column(span: Column) -> HistoryColumn:
    return HistoryColumn(
        at=span.ends_at,
        samples=span.samples,
        parts={kind: (part.low_bytes, part.high_bytes) for kind, part in span.parts.items()},
    )


def _together(recorded: HistoryColumn, recent: HistoryColumn) -> HistoryColumn:
    """One column of both; the one in which memory begins lies partly on disk only."""
    parts = dict(recorded.parts)
    for kind, (low, high) in recent.parts.items():
        old = parts.get(kind, (low, high))
        parts[kind] = (min(old[0], low), max(old[1], high))
    return HistoryColumn(at=recent.at, samples=max(recorded.samples, recent.samples), parts=parts)
