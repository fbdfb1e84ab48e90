"""Owns who else came to a device and went from it, as far as anybody looked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from engine.recording.entries import EngineStarted, EngineStopped, Entry, Gap, ProcessCame, ProcessWent
from engine.recording.rows import PROCESS, Key, Row
from engine.wire import DeviceProcess
from turbotui.report.runs import Run

Identity = tuple[str, int, float | None]
"""Device, pid and start."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Visit:
    """A process that came to a device or went from it, and is none of ours."""

    device_id: str
    process: DeviceProcess
    came_at: float | None
    """None: it was there before."""
    went_at: float | None
    """None: it is still there, or was when it was last looked for."""
    lost_at: float | None = None
    """When it was last looked for, where that was not up to the end; it was not seen again."""
    peak_bytes: int | None


def find_visits(
    entries: Sequence[Entry], rows: Sequence[Row], runs: Sequence[Run], since: float, until: float
) -> tuple[Visit, ...]:
    """Those of the stretch; one that was there before and only stayed is not told."""
    found: dict[Identity, Visit] = {}
    missed: set[Identity] = set()
    stopped_at: float | None = None
    heard_at = since
    for entry in entries:
        what = entry.what
        if entry.at > until:
            continue
        if isinstance(what, EngineStopped):
            stopped_at = entry.at
        elif isinstance(what, EngineStarted) or (isinstance(what, Gap) and what.device_id is None):
            # Whoever is there is told again behind it.
            last = what.since if isinstance(what, Gap) else heard_at
            missed |= _lose(found, last if stopped_at is None else max(last, stopped_at))
            stopped_at = None
        elif isinstance(what, (ProcessCame, ProcessWent)) and not what.process.ours:
            identity = (what.device_id, what.process.pid, what.process.start_time)
            found[identity] = _told(found.get(identity), what, entry.at)
            missed.discard(identity)
        heard_at = entry.at
    if runs and runs[-1].end != "runs":
        _lose(found, runs[-1].until)
    told = [
        visit
        for identity, visit in found.items()
        if (visit.came_at or 0.0) >= since
        or (visit.went_at or 0.0) >= since
        or (identity in missed and (visit.lost_at or 0.0) >= since)
    ]
    peaks = _process_peaks(rows, {(visit.device_id, visit.process.pid) for visit in told})
    return tuple(
        visit
        if visit.peak_bytes is not None
        else replace(visit, peak_bytes=peaks.get((visit.device_id, visit.process.pid)))
        for visit in sorted(told, key=lambda visit: visit.came_at or visit.went_at or visit.lost_at or 0.0)
    )


def _told(old: Visit | None, what: ProcessCame | ProcessWent, at: float) -> Visit:
    if isinstance(what, ProcessWent):
        return Visit(
            device_id=what.device_id,
            process=what.process,
            came_at=old.came_at if old is not None else what.came_at,
            went_at=at,
            peak_bytes=what.peak_bytes,
        )
    if old is not None:
        return replace(old, lost_at=None)
    return Visit(
        device_id=what.device_id,
        process=what.process,
        came_at=None if what.already else at,
        went_at=None,
        peak_bytes=None,
    )


def _lose(found: dict[Identity, Visit], at: float) -> set[Identity]:
    """Nobody looked from `at` on; who was there until then."""
    there = {key for key, visit in found.items() if visit.went_at is None and visit.lost_at is None}
    for key in there:
        found[key] = replace(found[key], lost_at=at)
    return there


def _process_peaks(rows: Sequence[Row], wanted: set[tuple[str, int]]) -> dict[tuple[str, int], int]:
    peaks: dict[tuple[str, int], int] = {}
    for row in rows if wanted else ():
        for key, value in row.values.items():
            place = (row.device_id, _pid(key))
            if value is not None and place in wanted:
                peaks[place] = max(peaks.get(place, 0), value[1])
    return peaks


def _pid(key: Key) -> int | None:
    return key[3] if key[0] == PROCESS else None
