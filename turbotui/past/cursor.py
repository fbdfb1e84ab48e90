"""Owns which moment of the past is looked at, and how much time a column of the graph stands for: pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

WIDTHS_S = (1, 10, 60, 600)
"""Seconds that a column may stand for."""
FARTHEST_S = 30 * 86400.0
"""As far back as a recording goes."""
WITHIN_S = 0.001
"""A column's moment is its last one, at which all that happened in it is true."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cursor:
    """Columns are numbered from the epoch on by their width."""

    width_s: int = 1
    at: float | None = None
    """The moment that is looked at, wall-clock; None for now."""
    last: int | None = None
    """The newest column in sight; None for that of now, with which the picture moves on."""

    def last_column(self, now: float) -> int:
        return int(now // self.width_s) if self.last is None else self.last

    @property
    def column(self) -> int | None:
        """The one that the cursor is on."""
        return None if self.at is None else int(self.at // self.width_s)


def moved(cursor: Cursor, by: int, *, now: float, count: int) -> Cursor:
    """The cursor `by` columns on, or back when negative, in a graph of `count` columns; now at its end."""
    column = int(now // cursor.width_s) if cursor.column is None else cursor.column
    return at_column(cursor, column + by, now=now, count=count)


def at_column(cursor: Cursor, column: int, *, now: float, count: int) -> Cursor:
    """The cursor on a column; on that of now, or after it, the picture is of now again."""
    return at_moment(cursor, (column + 1) * cursor.width_s - WITHIN_S, now=now, count=count)


def at_moment(cursor: Cursor, at: float, *, now: float, count: int) -> Cursor:
    """The cursor at a moment, with its column in sight; what is in sight stays where it is if it can."""
    at = max(at, now - FARTHEST_S)
    newest = int(now // cursor.width_s)
    column = int(at // cursor.width_s)
    if at >= now or column >= newest:
        return Cursor(width_s=cursor.width_s)
    last = cursor.last_column(now)
    if column > last:
        last = column + count // 3
    elif column <= last - count:
        # A third of the picture at once, so that not each step sends all of it anew.
        last = column - count // 3 + count - 1
    return replace(cursor, at=at, last=min(last, newest))


def zoomed(cursor: Cursor, by: int, *, now: float, count: int) -> Cursor:
    """Wider columns, or narrower ones when negative; the moment stays about where it is in sight."""
    place = WIDTHS_S.index(cursor.width_s) + by
    width_s = WIDTHS_S[max(0, min(place, len(WIDTHS_S) - 1))]
    if cursor.at is None or cursor.column is None:
        return Cursor(width_s=width_s)
    right = max(0, min(cursor.last_column(now) - cursor.column, count - 1))
    last = min(int(cursor.at // width_s) + right, int(now // width_s))
    return at_moment(Cursor(width_s=width_s, last=last), cursor.at, now=now, count=count)
