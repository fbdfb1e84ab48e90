"""Owns the framed panels of the dashboard, and those whose rows can be walked."""

from __future__ import annotations

import time
from collections.abc import Hashable
from typing import TYPE_CHECKING, ClassVar, Literal

from turbotui.past.axis import cursor_label
from turbotui.text import t
from turbotui.widgets.lines import LinePanel, Row, View, width_of, wrapped

if TYPE_CHECKING:
    from textual.events import Click, MouseScrollDown, MouseScrollUp

Key = Hashable
"""What names a row of a list, whatever its place."""
Bookmark = tuple[Key | None, bool, int, bool, int]
"""Where the cursor of a list is: its row, whether it was walked there, the first row in sight; and of
the log whether it follows, and the newest line that was seen."""


FOLLOW_S = 3.0
"""How long a list's first row stands before the cursor of an unwalked list goes there."""


def as_of_text(view: View) -> str:
    """When the engine last told how things stand, where it tells no more; empty where it does."""
    return "" if view.as_of is None else t("past.as_of", at=cursor_label(view.as_of, 1, view.wall))


class Panel(LinePanel, can_focus=True):
    """A framed LinePanel that can be gone to; title and remark stand in the frame."""

    number: ClassVar[int] = 0
    knows_always: ClassVar[bool] = False
    """Whether it has something to show also of a moment of which it is not known how things stood."""
    told_by: ClassVar[Literal["engine", "probe"] | None] = None
    """Who tells how things stand: the engine, or without one the console's own probe; None: it shows no
    such thing."""

    def title(self, view: View) -> str:
        raise NotImplementedError

    def moment(self, view: View, at: float) -> str:
        """What it says of which moment it is, where that is over."""
        return cursor_label(at, view.cursor.width_s, view.now)

    def _when(self, view: View) -> str:
        """Of which moment it is where that is not now; empty where it is."""
        if view.past_at is not None:
            return self.moment(view, view.past_at)
        known = self.told_by is None or (self.told_by == "probe" and view.state.own_probe)
        return "" if known else as_of_text(view)

    def _why_nothing(self, view: View) -> str | None:
        """Why it has nothing to show of the moment that is looked at; None where it has."""
        if view.unknown is not None:
            return None if self.knows_always else view.unknown
        return view.untold if self.told_by == "engine" else None

    def remark(self, view: View, width: int) -> Row | None:
        """What stands at the right of the frame's top."""
        return None

    def below(self, view: View) -> str:
        """What stands at the right of the frame's bottom."""
        return ""

    def body(self, view: View, width: int, height: int) -> list[Row]:
        raise NotImplementedError

    def rows(self, view: View, width: int, height: int) -> list[Row]:
        paint = view.paint
        edge = paint.focus if self.has_focus else paint.faint
        inner = width - 4
        unknown = self._why_nothing(view)
        if unknown is None:
            body = self.body(view, inner, height - 2)
        else:
            body = [Row(inner).add(line, paint.muted) for line in wrapped(unknown, inner)]
        title = self.title(view)
        moment = f"{when} " if (when := self._when(view)) else ""
        remark = self.remark(view, max(0, width - 12 - width_of(title) - width_of(moment)))
        top = Row(width).add("╭ ", edge)
        if self.number:
            top.add(f"{self.number} ", paint.key)
        top.add(f"{title} ", paint.focus_title if self.has_focus else paint.bold)
        top.add(moment, paint.wait)
        if remark is not None and remark.cells:
            top.to(width - remark.cells - 3, edge, "─").add(" ", edge).extend(remark).add(" ", edge)
        top.to(width - 1, edge, "─").add("╮", edge)
        built = [top]
        for y in range(height - 2):
            row = Row(width).add("│ ", edge)
            if y < len(body):
                row.extend(body[y])
            built.append(row.to(width - 2, paint.text).add(" │", edge))
        below = self.below(view) if unknown is None else ""
        foot = Row(width).add("╰", edge)
        if below:
            foot.to(width - 3 - width_of(below), edge, "─").add(f" {below} ", paint.muted)
        built.append(foot.to(width - 1, edge, "─").add("╯", edge))
        return built


class ListPanel(Panel):
    """A Panel whose rows can be walked: the cursor stays on its key when rows move under it.

    Only the rows in sight are built, so a list may be long.
    """

    tells_above: ClassVar[bool] = True
    """Whether it is worth a word that rows are out of sight above."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.chosen: Key | None = None
        """Key of the row that the cursor is on."""
        self.walked = False
        """Whether the person has put the cursor somewhere; until then it stays on the first row."""
        self._first: Key | None = None
        self._first_since = 0.0
        self.top = 0
        self._keys: list[Key] = []
        self._walkable: list[Key] = []
        self._drawn: list[Key] = []
        """The rows in sight as they were drawn, a pinned one among them; `_lead` rows stand above them."""
        self._lead = 0
        self._room = 1

    def keys(self, view: View) -> list[Key]:
        """The rows in order."""
        raise NotImplementedError

    def walkable(self, key: Key) -> bool:
        """Whether the cursor may be on this row."""
        return True

    def row(self, view: View, key: Key, width: int) -> Row:
        raise NotImplementedError

    def heading(self, view: View, width: int) -> list[Row]:
        """Rows above the list that do not scroll."""
        return []

    def nothing(self, view: View, width: int) -> list[Row]:
        """What is shown when there are no rows."""
        return []

    def pinned(self, view: View) -> Key | None:
        """A row that stays in sight, in the list's first place, wherever the list is scrolled to."""
        return None

    def place_cursor(self) -> None:
        """Choose a row when the chosen one is gone; while nobody walks the list, follow its first row.

        It follows late: a key that is pressed as the list moves must still mean the row it was on.
        """
        first = self._walkable[0] if self._walkable else None
        if first != self._first:
            self._first, self._first_since = first, time.monotonic()
        settled = time.monotonic() - self._first_since > FOLLOW_S
        if self.chosen not in self._walkable or (not self.walked and settled):
            self.chosen = first

    def body(self, view: View, width: int, height: int) -> list[Row]:
        self._keys = self.keys(view)
        self._walkable = [key for key in self._keys if self.walkable(key)]
        self.place_cursor()
        if not self._keys:
            self._room, self._drawn = height, []
            return self.nothing(view, width)
        heading = self.heading(view, width)
        self._lead = len(heading)
        self._room = max(1, height - len(heading))
        if self.chosen is not None:
            cursor = self._keys.index(self.chosen)
            self.top = max(min(self.top, cursor), cursor - self._room + 1)
        self.top = max(0, min(self.top, len(self._keys) - self._room))
        self._drawn = self._keys[self.top : self.top + self._room]
        pinned = self.pinned(view)
        if pinned is not None and pinned not in self._drawn and self._room > 1:
            # It stands upon the first row, which the cursor may be on.
            self.top -= self.chosen == self._drawn[0]
            self._drawn = [pinned, *self._keys[self.top + 1 : self.top + self._room]]
        shown = []
        for key in self._drawn:
            row = self.row(view, key, width)
            if self.has_focus and key == self.chosen:
                row.to(width, view.paint.text).upon(view.paint)
            shown.append(row)
        return heading + shown

    def below(self, view: View) -> str:
        """How many rows are out of sight, and where."""
        more = len(self._keys) - self.top - self._room
        above = len(self._keys) - len(self._drawn) - max(0, more)
        if above > 0 and self.tells_above:
            return t("list.above_more", above=above, count=more) if more > 0 else t("list.above", above=above)
        return t("list.more", count=more) if more > 0 else ""

    def bookmark(self) -> Bookmark:
        """Where its cursor is."""
        return (self.chosen, self.walked, self.top, True, 0)

    def go_to_bookmark(self, mark: Bookmark) -> None:
        self.chosen, self.walked, self.top = mark[:3]

    def _place(self) -> int:
        return self._walkable.index(self.chosen) if self.chosen in self._walkable else 0

    def _go(self, place: int) -> None:
        if self._walkable:
            self.walked = True
            self.chosen = self._walkable[max(0, min(place, len(self._walkable) - 1))]
            self.redraw()

    def move(self, by: int) -> None:
        """Walk `by` rows down, or up when negative."""
        self._go(self._place() + by)

    def move_to_end(self, *, last: bool) -> None:
        self._go(len(self._walkable) if last else 0)

    def page(self, by: int) -> None:
        self.move(by * max(1, self._room // 2))

    def on_click(self, event: Click) -> None:
        place = event.y - 1 - self._lead
        if 0 <= place < len(self._drawn) and self._drawn[place] in self._walkable:
            self.walked = True
            self.chosen = self._drawn[place]
            self.redraw()

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        self.move(1)

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        self.move(-1)
