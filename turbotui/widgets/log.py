"""Owns the log: the lines that tell a leak's story, or all, filtered, followed until one looks back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from turbotui.format import cell_width, clock
from turbotui.past.axis import cursor_label
from turbotui.text import t
from turbotui.widgets.lines import LinePanel, Row, View
from turbotui.widgets.panels import Bookmark, Key, ListPanel

if TYPE_CHECKING:
    from rich.style import Style
    from textual.events import Key as KeyEvent
    from textual.events import Paste

    from engine.wire import LogLine
    from turbotui.theme import Paint

EVENT_CELLS = 10


DATED_CELLS = 11


def is_today(at: float, now: float) -> bool:
    return time.localtime(at)[:3] == time.localtime(now)[:3]


def when(at: float, now: float) -> str:
    """Time of day to the second; what is not of today has its date and the minute."""
    return clock(at) if is_today(at, now) else time.strftime("%m-%d %H:%M", time.localtime(at))


def short_when(at: float, now: float) -> str:
    """Time of day to the minute; what is not of today has its date too."""
    return time.strftime("%H:%M" if is_today(at, now) else "%m-%d %H:%M", time.localtime(at))


def log_row(
    paint: Paint, line: LogLine, now: float, width: int, *, job: bool = True, dated: bool = False
) -> Row:
    """One line of the log in one row; `dated` leaves room for dates on lines that have none."""
    time_cells = DATED_CELLS if dated else 8
    row = Row(width).field(when(line.at, now), time_cells, paint.muted, right=True).add(" ", paint.text)
    row.field(line.event, EVENT_CELLS, _event_style(paint, line)).add(" ", paint.text)
    tail = f"  {t('log.job', id=line.job_id)}" if job and line.job_id is not None else ""
    style = paint.bold if line.level == "error" else paint.text
    row.field(line.text, max(0, row.left - cell_width(tail)), style)
    return row.add(tail, paint.muted)


def _event_style(paint: Paint, line: LogLine) -> Style:
    if line.event.lower() in ("oom", "unseen", "ghost"):
        return paint.alarm
    if line.level == "error":
        return paint.error
    return paint.wait if line.level == "warning" else paint.key


def _empty(view: View) -> str:
    return t("log.empty") if view.past_at is None else t("past.no_lines")


class LogPanel(ListPanel):
    """Rows are named by the line's place in the engine's log."""

    number = 6
    knows_always = True
    unwatched_s = 2.0

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.all_lines = False
        self.following = True
        self.wanted = ""
        """What the lines must contain."""
        self.editing = False
        self._seen = 0
        """Newest line when following ended."""
        self._dated = False

    def inputs(self, view: View) -> tuple[object, ...]:
        return (view.state.log, self.all_lines, self.wanted, self.editing, int(view.wall) // 86400)

    def lines(self, view: View) -> list[LogLine]:
        wanted = self.wanted.casefold()
        shows_all = self._shows_all(view)
        return [
            line
            for line in view.state.log
            if (shows_all or line.memory)
            and (not wanted or wanted in line.text.casefold() or wanted in line.event.casefold())
        ]

    def _shows_all(self, view: View) -> bool:
        """By choice, or while there is nothing about memory to tell yet."""
        return self.all_lines or not any(line.memory for line in view.state.log)

    def title(self, view: View) -> str:
        return t("log.title_all") if self._shows_all(view) else t("log.title")

    def remark(self, view: View, width: int) -> Row | None:
        paint = view.paint
        row = Row(width)
        if self.editing:
            row.add("/", paint.key).add(self.wanted, paint.text).add("▏", paint.key)
        elif self.wanted:
            row.add("/", paint.key).add(self.wanted, paint.wait).add(t("log.clears"), paint.muted)
        else:
            row.add("/ ", paint.key).add(t("log.filter"), paint.muted)
        row.add("  A ", paint.key).add(t("log.only" if self.all_lines else "log.all"), paint.muted)
        if self.following:
            return row.add("  " + t("log.following"), paint.muted)
        new = sum(line.seq > self._seen for line in self.lines(view))
        return row.add("  " + t("log.new", count=new), paint.wait).add("  F", paint.key)

    def keys(self, view: View) -> list[Key]:
        lines = self.lines(view)
        # As the newest rows are in sight mostly, an old line far above must not widen them.
        self._dated = bool(lines) and not is_today(lines[max(0, len(lines) - self._room)].at, view.wall)
        return [line.seq for line in lines]

    def place_cursor(self) -> None:
        if self.following:
            self.chosen = self._walkable[-1] if self._walkable else None
        elif self.chosen not in self._walkable and self._walkable:
            # The line itself is filtered or gone: stay near it.
            seq = self.chosen if isinstance(self.chosen, int) else 0
            self.chosen = min(self._walkable, key=lambda key: abs(int(str(key)) - seq))

    def nothing(self, view: View, width: int) -> list[Row]:
        if self.wanted:
            return [Row(width).add(t("log.no_match", text=self.wanted), view.paint.muted)]
        return [Row(width).add(_empty(view), view.paint.muted)]

    def row(self, view: View, key: Key, width: int) -> Row:
        line = next(line for line in reversed(view.state.log) if line.seq == key)
        return log_row(view.paint, line, view.wall, width, dated=self._dated)

    def chosen_line(self) -> LogLine | None:
        if self.view is None:
            return None
        return next((line for line in self.view.state.log if line.seq == self.chosen), None)

    def _go(self, place: int) -> None:
        last = len(self._walkable) - 1
        if place >= last:
            self.following = True
        elif self.following:
            self.following = False
            self._seen = int(str(self._walkable[-1])) if self._walkable else 0
        super()._go(place)

    def bookmark(self) -> Bookmark:
        return (*super().bookmark()[:3], self.following, self._seen)

    def go_to_bookmark(self, mark: Bookmark) -> None:
        super().go_to_bookmark(mark)
        self.following, self._seen = mark[3:]

    def toggle_all(self) -> None:
        self.all_lines = not self.all_lines
        self.redraw()

    def follow(self) -> None:
        """Go to the newest line and stay with it."""
        self.following = True
        self.redraw()

    def edit_filter(self) -> None:
        self.editing = True
        self.redraw()

    def end_filter(self, *, keep: bool) -> None:
        self.editing = False
        if not keep:
            self.wanted = ""
        self.redraw()

    def on_key(self, event: KeyEvent) -> None:
        if not self.editing:
            return
        # Letters are letters while the filter is being written.
        event.stop()
        event.prevent_default()
        if event.key == "enter":
            self.end_filter(keep=True)
        elif event.key == "escape":
            self.end_filter(keep=False)
        elif event.key in ("backspace", "ctrl+h"):
            self.wanted = self.wanted[:-1]
        elif event.key == "ctrl+u":
            self.wanted = ""
        elif event.is_printable and event.character:
            self.wanted += event.character
        self.redraw()

    def on_paste(self, event: Paste) -> None:
        if self.editing:
            event.stop()
            self.wanted += event.text.splitlines()[0] if event.text else ""
            self.redraw()

    def on_blur(self) -> None:
        self.editing = False
        super().on_blur()


class LogTail(LinePanel):
    """The newest memory lines, where the log itself is not in sight."""

    def inputs(self, view: View) -> tuple[object, ...]:
        return (view.state.log, int(view.wall) // 86400)

    def rows(self, view: View, width: int, height: int) -> list[Row]:
        paint = view.paint
        head = Row(width).add("─── ", paint.faint).add("6 ", paint.key).add(t("log.title"), paint.muted)
        head.add(" ", paint.faint)
        if view.past_at is not None:
            head.add(cursor_label(view.past_at, view.cursor.width_s, view.now) + " ", paint.wait)
        head.to(width, paint.faint, "─")
        lines = [line for line in view.state.log if line.memory] or list(view.state.log)
        rows = [head]
        lines = lines[-(height - 1) :]
        dated = bool(lines) and not is_today(lines[0].at, view.wall)
        for line in lines:
            text = log_row(paint, line, view.wall, width - 2, dated=dated)
            rows.append(Row(width).add(" ", paint.text).extend(text))
        if not lines:
            rows.append(Row(width).add(" " + _empty(view), paint.muted))
        return rows
