"""Owns who ran, and of what times nothing is known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from engine.recording.entries import NOT_RUN, EngineStarted, EngineStopped, Entry, Gap
from engine.recording.rows import Row
from engine.wire import Snapshot

SILENT_S = 15.0
"""An engine that recorded nothing for so long before the end of the stretch is not running."""
NOT_KNOWN = "no engine is known to have run"
LEAST_S = 0.05
"""What is left between two gaps that touch is no gap."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """An engine's life, as far as it lies in the stretch."""

    instance: str
    build: str
    since: float
    """When it started, also where that lies before the stretch."""
    until: float
    """Its end, or the last that was heard of it."""
    end: Literal["stopped", "died", "runs"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Silence:
    """A time of which nothing is known."""

    since: float
    until: float
    reason: str


def last_heard(entries: Sequence[Entry], rows: Sequence[Row]) -> list[float]:
    """Every moment at which an engine certainly ran, in order."""
    return sorted([entry.at for entry in entries] + [(row.at_ms + row.width_ms) / 1000 for row in rows])


def find_runs(
    entries: Sequence[Entry], heard: Sequence[float], since: float, until: float
) -> tuple[Run, ...]:
    begun: dict[str, tuple[str, float]] = {}
    stopped: dict[str, float] = {}
    for entry in entries:
        if isinstance(entry.what, EngineStarted):
            begun.setdefault(entry.what.instance, (entry.what.build, entry.at))
        elif isinstance(entry.what, Snapshot):
            engine = entry.what.status.engine
            begun.setdefault(engine.instance, (engine.build, engine.started_at))
        elif isinstance(entry.what, EngineStopped):
            stopped[entry.what.instance] = entry.at
    silences = [
        entry.what for entry in entries if isinstance(entry.what, Gap) and entry.what.reason == NOT_RUN
    ]
    found = []
    ordered = sorted(begun.items(), key=lambda one: one[1][1])
    for number, (instance, (build, began)) in enumerate(ordered):
        following = ordered[number + 1][1][1] if number + 1 < len(ordered) else None
        last = max((at for at in heard if following is None or at < following), default=began)
        if following is not None:
            # The engine that came next saw on the disk how far this one had come.
            last = next((gap.since for gap in silences if began <= gap.since <= following), last)
        end: Literal["stopped", "died", "runs"] = "died"
        if instance in stopped:
            last, end = stopped[instance], "stopped"
        elif following is None and until - last < SILENT_S:
            end = "runs"
        last = max(began, min(last, until))
        if last >= since and began <= until:
            found.append(Run(instance=instance, build=build, since=began, until=last, end=end))
    return tuple(found)


def find_gaps(
    entries: Sequence[Entry], runs: Sequence[Run], since: float, until: float
) -> tuple[Silence, ...]:
    """The times of the stretch of which nothing is known, each once; `entries` may begin before it."""
    stops = [entry.at for entry in entries if isinstance(entry.what, EngineStopped)]
    whole, single = list[Silence](), list[Silence]()
    for entry in entries:
        if not isinstance(entry.what, Gap) or not since <= entry.at <= until:
            continue
        gap, begin = entry.what, entry.what.since
        if gap.device_id:
            single.append(Silence(since=begin, until=entry.at, reason=f"{gap.device_id}: {gap.reason}"))
            continue
        if gap.reason == NOT_RUN:
            # It counts from the last reading, after which an engine that was stopped ran on a little.
            begin = max((stop for stop in stops if begin <= stop <= entry.at), default=begin)
        whole.append(Silence(since=begin, until=entry.at, reason=gap.reason))
    if runs and runs[-1].end != "runs":
        whole.append(Silence(since=runs[-1].until, until=until, reason=NOT_RUN))
    if runs and runs[0].since > since and not any(gap.since < runs[0].since for gap in whole):
        whole.append(Silence(since=since, until=runs[0].since, reason=NOT_KNOWN))
    told = _apart(whole, since)
    by_device: dict[str, list[Silence]] = {}
    for one in single:
        by_device.setdefault(one.reason, []).append(one)
    told += [
        silence
        for silences in by_device.values()
        for silence in _apart(silences, since)
        if not any(one.since <= silence.since and silence.until <= one.until + SILENT_S for one in told)
    ]
    return tuple(sorted(told, key=lambda silence: silence.since))


def _apart(gaps: Iterable[Silence], since: float) -> list[Silence]:
    """The same times from `since` on, none of them twice: of two that overlap the one that began first."""
    found: list[Silence] = []
    end = since
    for gap in sorted(gaps, key=lambda gap: (gap.since, -gap.until)):
        begin = max(gap.since, end)
        if gap.until - begin > LEAST_S:
            found.append(replace(gap, since=begin))
            end = gap.until
    return found
