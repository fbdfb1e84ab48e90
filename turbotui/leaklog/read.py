"""Reads a log into its report: the facts in order, how much was used, and the verdicts. One pass."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from engine.errors import InvalidRequest
from engine.wire import Trend, Verdict
from turbotui.leaklog.course import Course, Point
from turbotui.leaklog.scan import LogFact, Program, Scan
from turbotui.leaklog.story import Story
from turbotui.leaklog.verdicts import ALL

FIRST_FACTS = 500
LAST_FACTS = 3500
"""Kept of more; those between are counted."""
READINGS = frozenset({"memory", "allocated", "cache", "models"})
LOADS = frozenset({"loaded", "unloaded", "parts_out", "started"})
LEAST_CHANGE = 0.02
"""Of the card: a reading that is nearer to the one that is kept tells nothing new."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LogReport:
    """What a log tells, whole."""

    path: str
    bytes: int
    lines: int
    program: Program
    begin: float | None
    end: float | None
    """Wall clock of the first and the last fact; None where the log has no times."""
    facts: tuple[LogFact, ...]
    told: int
    """Lines that told something."""
    omitted: int
    """Facts between the first ones and the last that are not kept."""
    points: tuple[Point, ...]
    total_bytes: int | None
    trends: tuple[Trend, ...]
    verdicts: tuple[Verdict, ...]
    """Leaks first, the largest first."""

    @property
    def leaks(self) -> bool:
        return any(verdict.leak for verdict in self.verdicts)


def read_log(path: Path, *, on_progress: Callable[[int, int], None] | None = None) -> LogReport:
    """The report on the log at `path`.

    Raises:
        InvalidRequest: it cannot be read.
    """
    scan, story, course = Scan(path, on_progress=on_progress), Story(), Course()
    detectors = [make() for make in ALL]
    first: list[LogFact] = []
    last: deque[LogFact] = deque(maxlen=LAST_FACTS)
    told = kept = 0
    begin = end = None
    before: dict[str, object] = {}
    try:
        for fact in scan.facts():
            told += 1
            begin, end = fact.at if begin is None else begin, fact.at if fact.at is not None else end
            for detector in detectors:
                detector.see(fact, story)
            story.take(fact)
            course.take(_point(fact, story))
            if _is_news(fact, before, story.total_bytes):
                kept += 1
                (first if len(first) < FIRST_FACTS else last).append(fact)
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}; give a log's file") from error
    story.program = scan.program
    verdicts = [verdict for detector in detectors for verdict in detector.verdicts(story)]
    shift = scan.shift_s
    return LogReport(
        path=str(path),
        bytes=scan.bytes,
        lines=scan.lines,
        program=scan.program,
        begin=None if begin is None else begin + shift,
        end=None if end is None else end + shift,
        facts=tuple(_shifted(fact, shift) for fact in (*first, *last)),
        told=told,
        omitted=kept - len(first) - len(last),
        points=tuple(
            replace(point, at=None if point.at is None else point.at + shift)
            for point in course.points
            if point.tells
        ),
        total_bytes=story.total_bytes,
        trends=tuple(trend for detector in detectors for trend in detector.trends()),
        verdicts=tuple(
            sorted(verdicts, key=lambda one: (not one.leak, one.bytes is None, -(one.bytes or 0)))
        ),
    )


def _shifted(fact: LogFact, shift_s: float) -> LogFact:
    return fact if fact.at is None or not shift_s else replace(fact, at=fact.at + shift_s)


def _point(fact: LogFact, story: Story) -> Point:
    event = fact.event
    used = event.used_bytes if event.kind in ("memory", "oom") else None
    return Point(
        line=fact.line,
        at=fact.at,
        used=used,
        allocated=event.allocated_bytes,
        reserved=event.reserved_bytes,
        loaded=story.loaded_bytes if event.kind in LOADS else None,
        gone=event.kind in ("unloaded", "parts_out", "started"),
        oom=event.kind == "oom",
    )


def _is_news(fact: LogFact, before: dict[str, object], total_bytes: int | None) -> bool:
    """Whether a reading differs from the one of its kind that is kept, or anything happened since."""
    event = fact.event
    if event.kind not in READINGS:
        before.clear()
        return True
    now: object = event.models
    if event.kind != "models":
        now = event.used_bytes if event.kind != "allocated" else event.allocated_bytes
    old = before.get(event.kind)
    if event.kind not in before or type(old) is not type(now):
        before[event.kind] = now
        return True
    if isinstance(now, int) and isinstance(old, int):
        if abs(now - old) <= LEAST_CHANGE * (total_bytes or max(now, 1)):
            return False
    elif now == old:
        return False
    before[event.kind] = now
    return True
