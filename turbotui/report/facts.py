"""Owns what a report holds: who ran, what became of the jobs, what the memory did, what was not seen.

Pure functions over a recording's entries and rows. Entries from before the stretch say how things
stood when it began.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from engine.recording.entries import DeviceSeen, EngineStarted, Entry
from engine.recording.rows import Row
from engine.wire import (
    NOBODYS,
    TERMINAL_STATES,
    Job,
    JobChanged,
    Logged,
    LogLine,
    Receipt,
    ReceiptAction,
    ReceiptIssued,
    Snapshot,
)
from turbotui.report.runs import SILENT_S, Run, Silence, find_gaps, find_runs, last_heard
from turbotui.report.visits import Visit, find_visits

UNSEEN_BYTES = 256 * 2**20
"""Unseen memory below this is the driver's own unevenness."""
UNEVEN_BYTES = 64 * 2**20
"""What a driver keeps on a card on which nobody is: no residue of an action that is proved by all of it."""
ENDINGS = frozenset({"kill", "cleanup", "park", "reset", "full_cleanup"})
"""Actions of a person that end somebody."""
ACTIONS: frozenset[str] = frozenset(get_args(ReceiptAction))
"""Their failures are told as receipts; the log has a line of each as well."""
_ASKED = re.compile(r"SIG[A-Z]+, asked by (.+?), to (process (\d+) .*)")
_REFUSED = re.compile(r"kill of process \d+, asked by .+ is refused: ")


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
class Ended:
    """An action that ended a process, and did."""

    receipt: Receipt
    asked_by: str | None = None
    """None where the log does not tell."""
    whom: str | None = None
    """The process and its owner, in the log's words; None where that does not tell."""


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
    ended: tuple[Ended, ...]
    """What a person ended, with success."""
    refused: tuple[LogLine, ...]
    """What a person wanted to end and was not let."""
    peaks: tuple[Peak, ...]
    visits: tuple[Visit, ...]
    unseen: tuple[Unseen, ...]
    findings: tuple[LogLine, ...]
    """Warnings and errors of the log, and what `check` found."""
    gaps: tuple[Silence, ...]


def find_facts(entries: Sequence[Entry], rows: Sequence[Row], *, since: float, until: float) -> Report:
    """The report of a stretch; `entries` from `CONTEXT_S` before it on, both in order of time."""
    within = [entry for entry in entries if since <= entry.at <= until]
    heard = last_heard(entries, rows)
    runs = find_runs(entries, heard, since, until)
    jobs = _ended_jobs(entries, since, until)
    receipts = [entry.what.receipt for entry in within if isinstance(entry.what, ReceiptIssued)]
    lines = [entry.what.line for entry in within if isinstance(entry.what, Logged)]
    switches = [receipt for receipt in receipts if receipt.action == "switch"]
    failures = tuple(job for job in jobs if job.status in ("failed", "interrupted"))
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
        failures=failures,
        ooms=tuple(line for line in lines if line.event == "oom"),
        switches=len(switches),
        worst_switch=max(switches, key=lambda receipt: receipt.elapsed_s, default=None),
        doubtful=tuple(receipt for receipt in receipts if _is_doubtful(receipt)),
        ended=tuple(
            _ended(receipt, lines)
            for receipt in receipts
            if receipt.action in ENDINGS and not _is_doubtful(receipt)
        ),
        refused=tuple(line for line in lines if _REFUSED.match(line.text)),
        peaks=_peaks(rows, _devices(entries)),
        visits=find_visits(entries, rows, runs, since, until),
        unseen=_unseen(rows, since, until),
        findings=tuple(line for line in lines if _is_finding(line, failures)),
        gaps=find_gaps(entries, runs, since, until),
    )


# ------------------------------------------------------------------ what was done and said


def _is_doubtful(receipt: Receipt) -> bool:
    least = UNEVEN_BYTES if receipt.proof == "device-delta" else 1
    return not receipt.ok or (receipt.residue_bytes or 0) >= least


def _ended(receipt: Receipt, lines: Sequence[LogLine]) -> Ended:
    """A kill with who asked for it and whom it ended, by what the log says before its receipt."""
    ended = Ended(receipt=receipt)
    for line in lines if receipt.action == "kill" else ():
        found = _ASKED.match(line.text) if line.event == "audit" and line.at <= receipt.at else None
        if found is not None and receipt.target.split(" ")[0] == found[3]:
            ended = Ended(receipt=receipt, asked_by=found[1], whom=found[2])
    return ended


def _is_finding(line: LogLine, failures: Sequence[Job]) -> bool:
    """A warning or an error that no other section tells, or what `check` found."""
    if line.event == "oom" or line.event in ACTIONS or _REFUSED.match(line.text):
        return False
    failed = next((job for job in failures if job.id == line.job_id), None)
    if line.event == "job" and failed is not None and failed.error and failed.error in line.text:
        return False
    return line.level in ("warning", "error") or line.event == "check"


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
