"""Owns what a mark under the graph says, and which marks and silences a recording tells of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from turbotui.marks import Mark, came_mark, job_marks, line_marks, receipt_marks, went_mark
from turbotui.text import known
from turbotui.text.spoken import spoken

if TYPE_CHECKING:
    from engine.recording.entries import Entry
    from engine.recording.reader import Recording
    from engine.wire import Job

MARKED = frozenset({"job", "receipt", "log", "came", "went", "started", "stopped"})
"""What is called so in a recording leaves a mark."""
SILENT = frozenset({"gap", "started", "stopped"})
"""And what is called so tells of a silence."""
STOPPED = "the engine was stopped"
SAME_S = 2.0
"""What console and recorder each noticed at most so far apart is one event."""
RANK = "!?⇄■x▶+-"
"""Where several marks fall into one column, the first of these is shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Silence:
    """Nothing is known between two moments."""

    since: float
    until: float
    reason: str
    device_id: str | None = None
    """None: of all of them, and of what happened too."""


def mark_text(mark: Mark) -> str:
    """What happened, in the person's language."""
    word = known(mark.word, mark.word.removeprefix("receipt.did_").replace("_", " "))
    return word.format(what=mark.what) if "{what}" in word else f"{word} {mark.what}".rstrip()


def reason_text(reason: str) -> str:
    """Why nothing is known, in the person's language where it is a reason of the recorder's own."""
    return known(f"reason.{reason.replace(' ', '_')}", spoken(reason))


def shown_first(marks: Iterable[Mark]) -> list[Mark]:
    """The marks of one column, the one that is drawn first."""
    return sorted(marks, key=lambda mark: RANK.find(mark.symbol) % (len(RANK) + 1))


def by_column(marks: Iterable[Mark], width_s: int) -> dict[int, list[Mark]]:
    """Marks by the number of their column, in each the one that is drawn first."""
    found: dict[int, list[Mark]] = {}
    for mark in marks:
        found.setdefault(int(mark.at // width_s), []).append(mark)
    return {column: shown_first(here) for column, here in found.items()}


def marks_of(entries: Iterable[Entry], device_id: str | None = None) -> list[Mark]:
    """What entries of a recording leave under the graph, in order of time."""
    from engine.recording.entries import EngineStarted, EngineStopped, ProcessCame, ProcessWent
    from engine.wire import JobChanged, Logged, ReceiptIssued

    found: list[Mark] = []
    jobs: dict[int, Job] = {}
    for entry in entries:
        match entry.what:
            case JobChanged(job=job):
                # Of a job that began earlier its beginning is told again with each change.
                began = [mark for mark in job_marks(jobs.get(job.id), job) if mark.at > entry.at - SAME_S]
                found += began
                jobs[job.id] = job
            case ReceiptIssued(receipt=receipt):
                found += receipt_marks(receipt, entry.at)
            case Logged(line=line):
                found += line_marks(line)
            case ProcessCame(process=process, already=False) as came:
                if process.ours is None and came.device_id in (device_id or came.device_id,):
                    found.append(came_mark(process, entry.at))
            case ProcessWent(process=process) as went:
                if process.ours is None and went.device_id in (device_id or went.device_id,):
                    found.append(went_mark(process, entry.at))
            case EngineStarted(build=build, pid=pid):
                found.append(
                    Mark(at=entry.at, symbol="•", word="mark.engine_began", what=f"{build}, pid {pid}")
                )
            case EngineStopped():
                found.append(Mark(at=entry.at, symbol="•", word="mark.engine_ended"))
    return found


def happened_by(old: Job | None, job: Job, moment: float) -> bool:
    """Whether a job had become what it is by `moment`: what is told of it comes after it happened."""
    found = job_marks(old, job)
    return bool(found) and all(mark.at <= moment for mark in found)


def both(recorded: Sequence[Mark], seen: Iterable[Mark]) -> list[Mark]:
    """What was recorded and what was seen, each event once, in order of time."""
    known_at: dict[tuple[str, str, str], list[float]] = {}
    for mark in recorded:
        known_at.setdefault((mark.symbol, mark.word, mark.what), []).append(mark.at)
    new = [
        mark
        for mark in seen
        if all(abs(mark.at - at) > SAME_S for at in known_at.get((mark.symbol, mark.word, mark.what), ()))
    ]
    return sorted((*recorded, *new), key=lambda mark: mark.at)


def nearest(
    recording: Recording, device_id: str | None, at: float, direction: int, limit: float
) -> float | None:
    """When the mark before `at` was made, or with a `direction` of 1 the one after it; None up to `limit`."""
    length_s = 1800.0
    edge = at
    while edge > limit if direction < 0 else edge < limit:
        end = max(limit, edge - length_s) if direction < 0 else min(limit, edge + length_s)
        entries = recording.entries(min(edge, end), max(edge, end), names=MARKED)
        moments = [mark.at for mark in marks_of(entries, device_id)]
        if direction < 0 and (before := [moment for moment in moments if moment < at]):
            return max(before)
        if direction > 0 and (after := [moment for moment in moments if at < moment <= limit]):
            return min(after)
        edge, length_s = end, length_s * 4
    return None


def silences_of(entries: Iterable[Entry], until: float) -> list[Silence]:
    """The stretches of which a recording says itself that it knows nothing; the last may go on."""
    from engine.recording.entries import EngineStarted, EngineStopped, Gap

    found: list[Silence] = []
    stopped: float | None = None
    for entry in entries:
        match entry.what:
            case Gap(since=since, reason=reason, device_id=device_id):
                found.append(Silence(since=since, until=entry.at, reason=reason, device_id=device_id))
                stopped = stopped if device_id is not None else None  # an engine runs again
            case EngineStopped():
                stopped = entry.at
            case EngineStarted():
                stopped = None
    if stopped is not None:
        found.append(Silence(since=stopped, until=until, reason=STOPPED))
    return found
