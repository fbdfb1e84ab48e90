"""Draws how much was used over a log as text: columns of time, or of lines where it has no times."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from turbotui.format import gib
from turbotui.leaklog.course import Point
from turbotui.leaklog.read import LogReport
from turbotui.leaklog.scan import LogFact

HEIGHT = 8
LABEL_CELLS = 7
LEAST_WIDTH = 30
WHOLES = ("used", "reserved", "loaded")
"""In which the allocated part lies; the card's use where that is told, else what is told most often."""
MARKS = {"loaded": ">", "unloaded": "<", "parts_out": "<", "port": "#", "started": "^", "oom": "!"}
"""A column shows the worst of its own, which is the last here."""
RANKS = tuple(MARKS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Glyphs:
    """What the graph is drawn with."""

    allocated: str = "█"
    used: str = "▒"
    axis: str = "┤"
    corner: str = "└"
    line: str = "─"


PLAIN = Glyphs(allocated="#", used=":", axis="|", corner="+", line="-")


@dataclass(kw_only=True, slots=True)
class Column:
    """The most of each in a stretch; what it does not tell is as it was before."""

    used: int = 0
    """Of the device; where no line tells that, of what PyTorch has reserved or what is loaded."""
    allocated: int = 0
    mark: str = " "
    last: tuple[int, int] = (0, 0)
    """Both as they were at its end."""


def graph_lines(report: LogReport, width: int, glyphs: Glyphs = Glyphs(), height: int = HEIGHT) -> list[str]:
    """The graph in lines of at most `width` cells; none where no line tells how much was used."""
    if not layers(report.points):
        return []
    count = max(LEAST_WIDTH, width) - LABEL_CELLS - 1
    columns = _columns(report, count)
    top = max(report.total_bytes or 0, max(max(one.used, one.allocated) for one in columns), 1)
    rows = []
    for y in range(height, 0, -1):
        # A figure at the middle of its row, so that full is the topmost row.
        label = gib(round(top * y / height)) if y % 2 == 0 else ""
        cells = "".join(_cell(column, top * (y - 0.5) / height, glyphs) for column in columns)
        rows.append(f"{label:>{LABEL_CELLS - 1}} {glyphs.axis}{cells}".rstrip())
    marks = "".join(column.mark for column in columns).rstrip()
    if marks:
        rows.append(" " * (LABEL_CELLS + 1) + marks)
    rows.append(" " * LABEL_CELLS + glyphs.corner + _axis(report, count, glyphs))
    return rows


def layers(points: Sequence[Point]) -> tuple[str, ...]:
    """What is drawn, the lower first: what is allocated, and the whole around it."""
    times = {name: sum(getattr(point, name) is not None for point in points) for name in WHOLES}
    told = sorted((name for name in WHOLES if times[name]), key=lambda name: -times[name])
    if times["used"] > 1:
        told = ["used"]
    allocated = any(point.allocated is not None for point in points)
    return (*(("allocated",) if allocated else ()), *told[:1])


def marked(report: LogReport) -> set[str]:
    """The signs that stand under the graph."""
    return {MARKS[fact.event.kind] for fact in report.facts if fact.event.kind in MARKS}


def _cell(column: Column, level: float, glyphs: Glyphs) -> str:
    if column.allocated >= level:
        return glyphs.allocated
    return glyphs.used if column.used >= level else " "


def _by_time(report: LogReport) -> bool:
    return report.begin is not None and report.end is not None and report.end > report.begin


def _place(report: LogReport, thing: Point | LogFact, count: int) -> int:
    """The column of a point or a fact."""
    if _by_time(report):
        assert report.begin is not None and report.end is not None
        at = report.begin if thing.at is None else thing.at
        share = (at - report.begin) / (report.end - report.begin)
    else:
        share = (thing.line - 1) / max(1, report.lines - 1)
    return max(0, min(count - 1, int(share * (count - 1))))


def _columns(report: LogReport, count: int) -> list[Column]:
    found: list[Column | None] = [None] * count
    now, whole = Column(), next((name for name in layers(report.points) if name != "allocated"), None)
    for point in report.points:
        place = _place(report, point, count)
        column = found[place]
        if point.gone and point.allocated is None:
            now.allocated = 0
        most = None if whole is None else getattr(point, whole)
        if most is not None:
            now.used = most
        if point.allocated is not None:
            now.allocated = point.allocated
        if column is None:
            column = found[place] = Column(used=now.used, allocated=now.allocated)
        else:
            column.used, column.allocated = max(column.used, now.used), max(column.allocated, now.allocated)
        column.last = (now.used, now.allocated)
    columns = list(_carried(found, report))
    for fact in report.facts:
        mark = MARKS.get(fact.event.kind)
        if mark is not None:
            column = columns[_place(report, fact, count)]
            worst = max((mark, column.mark), key=lambda one: _rank(one))
            column.mark = worst
    return columns


def _rank(mark: str) -> int:
    return max((place for place, kind in enumerate(RANKS) if MARKS[kind] == mark), default=-1)


def _carried(found: Sequence[Column | None], report: LogReport) -> Iterator[Column]:
    """Between readings it stays as it was last: memory does, until somebody frees it."""
    used, allocated = 0, 0
    for column in found:
        if column is None:
            yield Column(used=used, allocated=allocated)
        else:
            used, allocated = column.last
            yield column


def _axis(report: LogReport, count: int, glyphs: Glyphs) -> str:
    if _by_time(report):
        assert report.begin is not None and report.end is not None
        form = "%m-%d %H:%M" if report.end - report.begin > 86400 else "%H:%M:%S"
        span = report.end - report.begin
        labels = [
            time.strftime(form, time.localtime(report.begin + span * share)) for share in (0.0, 0.5, 1.0)
        ]
    else:
        labels = [str(round(1 + (report.lines - 1) * share)) for share in (0.0, 0.5, 1.0)]
    middle = count // 2 - len(labels[1]) // 2
    line = labels[0].ljust(middle, glyphs.line) + labels[1]
    return line.ljust(count - len(labels[2]), glyphs.line) + labels[2]
