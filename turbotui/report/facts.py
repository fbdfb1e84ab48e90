"""Owns what a report holds: who ran, what became of the jobs, what the memory did, what was not seen.

Pure functions over a recording's entries and rows. Entries from before the stretch say how things
stood when it began.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from engine.recording.entries import (
    NOT_RUN,
    DeviceSeen,
    EngineStarted,
    EngineStopped,
    Entry,
    Gap,
    ProcessCame,
    ProcessWent,
)
from engine.recording.rows import PROCESS, Key, Row
from engine.wire import (
    NOBODYS,
    TERMINAL_STATES,
    DeviceProcess,
    Job,
    JobChanged,
    Logged,
    LogLine,
    Receipt,
    ReceiptIssued,
    Snapshot,
)

UNSEEN_BYTES = 256 * 2**20
"""Unseen memory below this is the driver's own unevenness."""
SILENT_S = 15.0
"""An engine that recorded nothing for so long before the end of the stretch is not running."""


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
class Peak:
    """A device at its fullest."""

    device_id: str
    name: str
    index: int | None
    total_bytes: int
    used_bytes: int
    at: float
    within_s: float
    """The peak lies in so many seconds from `at` on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unseen:
    """Memory that the driver counts and nobody is seen to hold."""

    device_id: str
    bytes: int
    since: float
    until: float
    still: bool
    """It is there at the end of the stretch."""
    from_before: bool
    """It was there when the stretch began."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Visit:
    """A process that came to a device or went from it, and is none of ours."""

    device_id: str
    process: DeviceProcess
    came_at: float | None
    """None: it was there before."""
    went_at: float | None
    """None: it is still there."""
    peak_bytes: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Silence:
    """A time of which nothing is known."""

    since: float
    until: float
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """A stretch of a recording."""

    since: float
    until: float
    host: str | None
    user: str | None
    runs: tuple[Run, ...]
    counts: dict[str, int]
    """Jobs that ended, by how; `oom` are those of `failed` for want of memory."""
    models: dict[str, int]
    """Jobs that ended, by model."""
    failures: tuple[Job, ...]
    ooms: tuple[LogLine, ...]
    """Times at which memory ran out, also where the job went on."""
    switches: int
    worst_switch: Receipt | None
    doubtful: tuple[Receipt, ...]
    """Receipts with a residue, or that failed."""
    peaks: tuple[Peak, ...]
    visits: tuple[Visit, ...]
    unseen: tuple[Unseen, ...]
    findings: tuple[LogLine, ...]
    """Warnings and errors of the log, and what `check` found."""
    gaps: tuple[Silence, ...]


def find_facts(entries: Sequence[Entry], rows: Sequence[Row], *, since: float, until: float) -> Report:
    """The report of a stretch; `entries` from `CONTEXT_S` before it on, both in order of time."""
    within = [entry for entry in entries if since <= entry.at <= until]
    heard = _last_heard(entries, rows)
    runs = _runs(entries, heard, since, until)
    jobs = _ended_jobs(entries, since, until)
    receipts = [entry.what.receipt for entry in within if isinstance(entry.what, ReceiptIssued)]
    lines = [entry.what.line for entry in within if isinstance(entry.what, Logged)]
    switches = [receipt for receipt in receipts if receipt.action == "switch"]
    counts = Counter[str](job.status for job in jobs)
    counts["oom"] = sum(job.error_code == "out_of_memory" for job in jobs)
    hello = next((entry.what for entry in reversed(entries) if isinstance(entry.what, EngineStarted)), None)
    return Report(
        since=since,
        until=until,
        host=hello.host if hello is not None else None,
        user=hello.user if hello is not None else None,
        runs=runs,
        counts=dict(counts),
        models=dict(Counter(job.spec.model for job in jobs).most_common()),
        failures=tuple(job for job in jobs if job.status in ("failed", "interrupted")),
        ooms=tuple(line for line in lines if line.event == "oom"),
        switches=len(switches),
        worst_switch=max(switches, key=lambda receipt: receipt.elapsed_s, default=None),
        doubtful=tuple(receipt for receipt in receipts if receipt.residue_bytes or not receipt.ok),
        peaks=_peaks(rows, _devices(entries)),
        visits=_visits(entries, rows, since, until),
        unseen=_unseen(rows, since, until),
        findings=tuple(
            line
            for line in lines
            if (line.level in ("warning", "error") or line.event == "check") and line.event != "oom"
        ),
        gaps=_gaps(within, runs, since, until),
    )


# ------------------------------------------------------------------ who ran


def _last_heard(entries: Sequence[Entry], rows: Sequence[Row]) -> list[float]:
    """Every moment at which an engine certainly ran, in order."""
    return sorted([entry.at for entry in entries] + [(row.at_ms + row.width_ms) / 1000 for row in rows])


def _runs(entries: Sequence[Entry], heard: Sequence[float], since: float, until: float) -> tuple[Run, ...]:
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


def _gaps(entries: Sequence[Entry], runs: Sequence[Run], since: float, until: float) -> tuple[Silence, ...]:
    found = [
        Silence(
            since=entry.what.since,
            until=entry.at,
            reason=f"{entry.what.device_id}: {entry.what.reason}"
            if entry.what.device_id
            else entry.what.reason,
        )
        for entry in entries
        if isinstance(entry.what, Gap)
    ]
    if runs and runs[-1].end != "runs":
        found.append(Silence(since=runs[-1].until, until=until, reason=NOT_RUN))
    if runs and runs[0].since > since:
        found.append(Silence(since=since, until=runs[0].since, reason="no engine is known to have run"))
    return tuple(sorted(found, key=lambda gap: gap.since))


# ------------------------------------------------------------------ what became of the jobs


def _ended_jobs(entries: Sequence[Entry], since: float, until: float) -> list[Job]:
    """Jobs that ended in the stretch, as they were last told of, in the order of their ends."""
    last: dict[int, Job] = {}
    for entry in entries:
        if entry.at > until:
            continue
        told = entry.what.jobs if isinstance(entry.what, Snapshot) else ()
        if isinstance(entry.what, JobChanged):
            told = (entry.what.job,)
        last.update((job.id, job) for job in told)
    ended = [
        job
        for job in last.values()
        if job.status in TERMINAL_STATES and job.finished_at is not None and since <= job.finished_at <= until
    ]
    return sorted(ended, key=lambda job: job.finished_at or 0.0)


# ------------------------------------------------------------------ what the memory did


def _devices(entries: Sequence[Entry]) -> dict[str, DeviceSeen]:
    return {entry.what.id: entry.what for entry in entries if isinstance(entry.what, DeviceSeen)}


def _figure(row: Row, kind: str, *, low: bool = False) -> int | None:
    value = next((value for key, value in row.values.items() if key[0] == kind), None)
    return None if value is None else value[0 if low else 1]


def _peaks(rows: Sequence[Row], devices: dict[str, DeviceSeen]) -> tuple[Peak, ...]:
    peaks: dict[str, Peak] = {}
    for row in rows:
        total, free = _figure(row, "#total"), _figure(row, "free", low=True)
        if total is None or free is None:
            continue
        old = peaks.get(row.device_id)
        if old is None or total - free > old.used_bytes:
            device = devices.get(row.device_id)
            peaks[row.device_id] = Peak(
                device_id=row.device_id,
                name=device.name if device is not None else row.device_id,
                index=device.index if device is not None else None,
                total_bytes=total,
                used_bytes=total - free,
                at=row.at_ms / 1000,
                within_s=row.width_ms / 1000,
            )
    return tuple(sorted(peaks.values(), key=lambda peak: (peak.index is None, peak.index, peak.device_id)))


def _nobodys(row: Row) -> int | None:
    """The most that nobody held in a span: what had one name for it at one moment had another at the next."""
    sizes = [value[1] for key, value in row.values.items() if key[0] in NOBODYS and value is not None]
    return max(sizes, default=None)


def _unseen(rows: Sequence[Row], since: float, until: float) -> tuple[Unseen, ...]:
    """The last time that each device had unseen memory without a break."""
    found: list[Unseen] = []
    for device_id in dict.fromkeys(row.device_id for row in rows):
        stretch: list[Row] = []
        over = False
        own = [row for row in rows if row.device_id == device_id and _nobodys(row) is not None]
        for row in own:
            if (_nobodys(row) or 0) >= UNSEEN_BYTES:
                if over:
                    stretch = []
                stretch.append(row)
                over = False
            else:
                over = True
        if stretch:
            last = (stretch[-1].at_ms + stretch[-1].width_ms) / 1000
            found.append(
                Unseen(
                    device_id=device_id,
                    bytes=max(_nobodys(row) or 0 for row in stretch),
                    since=stretch[0].at_ms / 1000,
                    until=last,
                    still=stretch[-1] is own[-1] and until - last < SILENT_S,
                    from_before=stretch[0] is own[0] and stretch[0].at_ms / 1000 - since < SILENT_S,
                )
            )
    return tuple(found)


def _visits(entries: Sequence[Entry], rows: Sequence[Row], since: float, until: float) -> tuple[Visit, ...]:
    found: dict[tuple[str, int, float | None], Visit] = {}
    for entry in entries:
        what = entry.what
        if not isinstance(what, (ProcessCame, ProcessWent)) or entry.at > until or what.process.ours:
            continue
        process = what.process
        identity = (what.device_id, process.pid, process.start_time)
        old = found.get(identity)
        if isinstance(what, ProcessCame):
            if old is None:
                came_at = None if what.already else entry.at
                found[identity] = Visit(
                    device_id=what.device_id, process=process, came_at=came_at, went_at=None, peak_bytes=None
                )
            continue
        came_at = old.came_at if old is not None else what.came_at
        found[identity] = Visit(
            device_id=what.device_id,
            process=process,
            came_at=came_at,
            went_at=entry.at,
            peak_bytes=what.peak_bytes,
        )
    told = [
        visit
        for visit in found.values()
        if (visit.came_at or 0.0) >= since or (visit.went_at is not None and visit.went_at >= since)
    ]
    peaks = _process_peaks(rows, {(visit.device_id, visit.process.pid) for visit in told})
    return tuple(
        visit if visit.peak_bytes is not None else _with_peak(visit, peaks)
        for visit in sorted(told, key=lambda visit: visit.came_at or visit.went_at or 0.0)
    )


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


def _with_peak(visit: Visit, peaks: dict[tuple[str, int], int]) -> Visit:
    return Visit(
        device_id=visit.device_id,
        process=visit.process,
        came_at=visit.came_at,
        went_at=visit.went_at,
        peak_bytes=peaks.get((visit.device_id, visit.process.pid)),
    )
