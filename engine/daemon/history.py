"""The past of a device in columns: what is in memory, and before that what was recorded.

The newest minutes come from memory, where each reading is at once; what is older, or was read by
an engine before this one, comes from the disk in the tier that suits the columns' width.
"""

from __future__ import annotations

from engine.daemon.recording import FlightRecorder
from engine.errors import NotFound
from engine.recording.columns import columns_of, tier_for
from engine.telemetry.recorder import Column, Recorder
from engine.wire import HistoryColumn, MemoryHistory


async def past_of(
    recent: Recorder, recorded: FlightRecorder, device_id: str, seconds: float, columns: int
) -> MemoryHistory:
    """The last `seconds` in `columns` equal spans, oldest first; one without a reading is a gap.

    Raises:
        NotFound: the device was never read by this engine.
    """
    if device_id not in recent.device_ids:
        known = ", ".join(recent.device_ids) or "none yet"
        raise NotFound(f"no device {device_id!r} has been read; known: {known}")
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
