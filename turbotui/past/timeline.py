"""Owns the graph's columns and marks over all that is known: seen here, else recorded before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from turbotui.history import Column, History, together
from turbotui.past.archive import PAGE, Archive, Page
from turbotui.past.marks import Silence, both, by_column

if TYPE_CHECKING:
    from turbotui.marks import Mark

SETTLED_S = 3
"""A column that ended so long ago does not change any more."""
MOST_JOINED = 4000


class Timeline:
    """One device's, for the console's loop."""

    def __init__(self, device_id: str, history: History, archive: Archive, total_bytes: int) -> None:
        self.device_id = device_id
        self.history = history
        self._archive = archive
        self._total_bytes = total_bytes
        self._joined: dict[tuple[int, int], Column] = {}
        self._marks: tuple[tuple[int, ...], tuple[Mark, ...], dict[int, list[Mark]]] | None = None

    @property
    def version(self) -> int:
        return self._archive.version

    def window(self, last: int, count: int, width_s: int, now: float) -> list[Column | None]:
        """`count` columns of `width_s` up to number `last`, oldest first; None where nothing is known."""
        first = last - count + 1
        if width_s == 1:
            found = self.history.window(last, count)
        else:
            found = [self._own(number, width_s, now) for number in range(first, last + 1)]
        for place in range(count):
            ended = (first + place + 1) * width_s
            # What was seen in part only is joined with what was recorded of it.
            if ended < now - SETTLED_S and (found[place] is None or width_s > 1):
                page = self._page(first + place, width_s)
                recorded = None if page is None else page.columns.get(first + place)
                known = [column for column in (found[place], recorded) if column is not None]
                found[place] = together(known, known[0].second) if known else None
        return found

    def marks(
        self, last: int, count: int, width_s: int, now: float, seen: tuple[Mark, ...]
    ) -> dict[int, list[Mark]]:
        """What happened up to `now` in each of the columns up to number `last`, as it is shown.

        A day of short jobs has thousands, so they are put together once for one picture.
        """
        wanted = (self.version, last, count, width_s, int(now // width_s))
        if self._marks is None or self._marks[0] != wanted or self._marks[1] is not seen:
            since, until = (last - count + 1) * width_s, min((last + 1) * width_s, now)
            recorded = [mark for page in self._pages(last, count, width_s) for mark in page.marks]
            found = [mark for mark in both(recorded, seen) if since <= mark.at < until]
            self._marks = (wanted, seen, by_column(found, width_s))
        return self._marks[2]

    def knows(self, last: int, count: int, width_s: int) -> bool:
        """Whether all that happened within these columns has been read."""
        return len(self._pages(last, count, width_s)) == last // PAGE - (last - count + 1) // PAGE + 1

    def silences(self, last: int, count: int, width_s: int) -> list[Silence]:
        """Why nothing is known of stretches within the columns up to number `last`."""
        found = [silence for page in self._pages(last, count, width_s) for silence in page.silences]
        return list(dict.fromkeys(found))

    def _pages(self, last: int, count: int, width_s: int) -> list[Page]:
        numbers = range((last - count + 1) // PAGE, last // PAGE + 1)
        return [page for number in numbers if (page := self._page(number * PAGE, width_s)) is not None]

    def _page(self, column: int, width_s: int) -> Page | None:
        return self._archive.page(self.device_id, width_s, column // PAGE, self._total_bytes)

    def _own(self, number: int, width_s: int, now: float) -> Column | None:
        """What was seen here of a column."""
        known = self._joined.get((width_s, number))
        if known is not None:
            return known
        start = number * width_s
        column = together(self.history.between(start, start + width_s - 1), start)
        if column is not None and start + width_s < now - SETTLED_S:
            if len(self._joined) > MOST_JOINED:
                self._joined.clear()
            self._joined[width_s, number] = column
        return column
