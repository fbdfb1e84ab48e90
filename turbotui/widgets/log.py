"""Owns the log: the lines that tell a leak's story, or all, filtered, followed until one looks back."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.style import Style

from turbotui.format import cell_width, clock, seconds
from turbotui.past.axis import cursor_label
from turbotui.text import t
from turbotui.text.spoken import spoken
from turbotui.widgets.lines import LinePanel, Row, View, safe, wrapped
from turbotui.widgets.panels import Bookmark, Key, ListPanel
from turbotui.widgets.typing_line import edited

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.events import Click, Paste
    from textual.events import Key as KeyEvent

    from engine.wire import LogLine
    from turbotui.foreign_log import ForeignLog, Timing
    from turbotui.theme import Paint

EVENT_CELLS = 10
SEARCHED = 2000
"""Characters of a line in which what was looked for can stand out: more are never in sight."""

DATED_CELLS = 11


def is_today(at: float, now: float) -> bool:
    return time.localtime(at)[:3] == time.localtime(now)[:3]


def when(at: float, now: float) -> str:
    """Time of day to the second; what is not of today has its date and the minute."""
    return clock(at) if is_today(at, now) else time.strftime("%m-%d %H:%M", time.localtime(at))


def began(at: float, now: float) -> str:
    """When something began, and how long ago that is."""
    return f"{when(at, now)}  ({seconds(max(0.0, now - at))})"


def short_when(at: float, now: float) -> str:
    """Time of day to the minute; what is not of today has its date too."""
    return time.strftime("%H:%M" if is_today(at, now) else "%m-%d %H:%M", time.localtime(at))


def log_row(
    paint: Paint,
    line: LogLine,
    now: float,
    width: int,
    *,
    job: bool = True,
    dated: bool = False,
    timing: Timing = "said",
    wanted: str = "",
) -> Row:
    """One line of the log in one row; `dated` leaves room for dates on lines that have none, and what
    is `wanted` stands out in it.
    """
    time_cells = DATED_CELLS if dated else 8
    shown = {"said": when(line.at, now), "read": f"~{short_when(line.at, now)}", "none": ""}[timing]
    row = Row(width).field(shown, time_cells, paint.muted, right=True).add(" ", paint.text)
    row.field(line.event, EVENT_CELLS, _event_style(paint, line)).add(" ", paint.text)
    tail = f"  {t('log.job', id=line.job_id)}" if job and line.job_id is not None else ""
    style = paint.bold if line.level == "error" else paint.text
    text = Row(max(0, row.left - cell_width(tail)))
    for part, found in _parts(safe(line.text), wanted):
        # Underlined, so that it stands out upon the cursor and without colours too.
        text.add(part, paint.key + Style(underline=True, bold=True) if found else style)
    return row.extend(text.to(text.width, style)).add(tail, paint.muted)


def whole_lines(paint: Paint, lines: Sequence[LogLine], now: float, width: int) -> list[Row]:
    """A job's own lines, each in as many rows as its text takes."""
    dated = any(not is_today(line.at, now) for line in lines)
    indent = (DATED_CELLS if dated else 8) + 1 + EVENT_CELLS + 1
    rows: list[Row] = []
    for line in lines:
        first, *rest = wrapped(line.text, width - indent)
        rows.append(log_row(paint, replace(line, text=first), now, width, job=False, dated=dated))
        style = paint.bold if line.level == "error" else paint.text
        rows += [Row(width).to(indent, paint.text).add(text, style) for text in rest]
    return rows


def _parts(text: str, wanted: str) -> list[tuple[str, bool]]:
    """`text` in pieces, each with whether it is what was looked for."""
    if not wanted:
        return [(text, False)]
    parts, at = [], 0
    for found in re.finditer(re.escape(wanted), text[:SEARCHED], re.IGNORECASE):
        parts += [(text[at : found.start()], False), (found.group(), True)]
        at = found.end()
    return [*parts, (text[at:], False)]


def _event_style(paint: Paint, line: LogLine) -> Style:
    if line.event.lower() in ("oom", "unseen", "ghost", "port"):
        return paint.alarm
    if line.level == "error":
        return paint.error
    return paint.wait if line.level == "warning" else paint.key


def _empty(view: View) -> str:
    return t("log.empty") if view.past_at is None else t("past.no_lines")


def _contains(line: LogLine, wanted: str) -> bool:
    folded = wanted.casefold()
    return folded in line.text.casefold() or folded in line.event.casefold()


class LogPanel(ListPanel):
    """Rows are named by the line's place in the engine's log."""

    number = 6
    knows_always = True
    tells_above = False  # it stands at its end, where nearly all of it is above
    unwatched_s = 2.0

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.all_lines = False
        self.following = True
        self.wanted = ""
        """What the lines must contain."""
        self.searching = False
        """All lines are shown, and `n` and `N` go by those that contain it."""
        self.foreign: ForeignLog | None = None
        """Another program's log in place of the engine's."""
        self._frozen: tuple[LogLine, ...] | None = None
        self.editing = False
        self._seen = 0
        """Newest line when following ended."""
        self._dated = False

    def inputs(self, view: View) -> tuple[object, ...]:
        foreign = self.foreign
        source: object = view.state.log
        if foreign is not None:
            source = (foreign, foreign.version if view.paused_at is None else "paused")
        asked = (self.all_lines, self.wanted, self.searching, self.editing)
        return (source, *asked, int(view.wall) // 86400)

    def source(self, view: View) -> tuple[LogLine, ...]:
        """All lines there are, of the engine's log or of the foreign one."""
        if self.foreign is None:
            return view.state.log
        if view.paused_at is None:
            self._frozen = None
            return self.foreign.lines()
        if self._frozen is None:
            self._frozen = self.foreign.lines()
        return self._frozen

    def show_foreign(self, foreign: ForeignLog | None) -> None:
        """Show another log, from its end."""
        self.foreign, self._frozen = foreign, None
        self.chosen, self.following, self.searching, self._seen = None, True, False, 0
        self.redraw()

    def lines(self, view: View) -> list[LogLine]:
        shows_all = self._shows_all(view)
        wanted = "" if self.searching else self.wanted
        return [
            line
            for line in self.source(view)
            if (shows_all or line.memory) and (not wanted or _contains(line, wanted))
        ]

    def _shows_all(self, view: View) -> bool:
        """By choice, or while there is nothing about memory to tell yet."""
        return self.all_lines or not any(line.memory for line in self.source(view))

    def title(self, view: View) -> str:
        lines = t("log.all_lines") if self._shows_all(view) else t("log.memory_lines")
        return f"{t('log.title') if self.foreign is None else self.foreign.path.name}  {lines}"

    def remark(self, view: View, width: int) -> Row | None:
        paint = view.paint
        row = Row(width)
        if self.editing:
            row.add("/", paint.key).add(self.wanted, paint.text).add("▏", paint.key)
        elif self.wanted:
            row.add("/", paint.key).add(self.wanted, paint.wait)
            row.add(f"  {self._found_text(view)}", paint.muted).add("  n N", paint.key)
            row.add(" " + t("log.clears"), paint.muted)
        else:
            row.add("/ ", paint.key).add(t("log.filter"), paint.muted)
        row.add("  A ", paint.key).add(t("log.only" if self.all_lines else "log.all"), paint.muted)
        if self.following:
            return row.add("  " + t("log.following"), paint.muted)
        if new := sum(line.seq > self._seen for line in self.lines(view)):
            row.add("  " + t("log.new", count=new), paint.wait)
        return row.add("  F ", paint.key).add(t("log.follows"), paint.muted)

    def _found_text(self, view: View) -> str:
        """How many lines have it, and which of them the cursor is on."""
        found = self._matches(view)
        if not self.searching or self.chosen not in found:
            return str(len(found))
        return f"{found.index(int(str(self.chosen))) + 1}/{len(found)}"

    def below(self, view: View) -> str:
        foreign = self.foreign
        if foreign is None:
            return super().below(view)
        if foreign.problem is not None:
            return t("foreign.problem", why=spoken(foreign.problem))
        return super().below(view) if foreign.says_times or foreign.reading else t("foreign.no_times")

    def _matches(self, view: View) -> list[int]:
        shows_all = self._shows_all(view)
        return [
            line.seq
            for line in self.source(view)
            if (shows_all or line.memory) and _contains(line, self.wanted)
        ]

    def go_to_match(self, by: int) -> None:
        """On to the next line that contains what was looked for, round the end; the others stay in sight."""
        if self.view is None or not self.wanted:
            return
        found = self._matches(self.view)
        if not found:
            return
        self._stop_following()
        here = int(str(self.chosen)) if self.chosen is not None else 0
        after = [seq for seq in found if seq > here]
        before = [seq for seq in found if seq < here]
        self.searching = True
        if by > 0:
            self.chosen = after[0] if after else found[0]
        else:
            self.chosen = before[-1] if before else found[-1]
        self.redraw()

    def body(self, view: View, width: int, height: int) -> list[Row]:
        self._room = max(1, height)  # of now, not of before a resize: what is in sight decides on dates
        return super().body(view, width, height)

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
        if self.foreign is not None:
            why = self.foreign.problem
            text = t("foreign.reading") if why is None else t("foreign.problem", why=spoken(why))
            if why is None and not self.foreign.reading:
                text = t("foreign.empty")
            return [
                Row(width).add(str(self.foreign.path), view.paint.muted),
                Row(width).add(text, view.paint.wait),
            ]
        return [Row(width).add(_empty(view), view.paint.muted)]

    def row(self, view: View, key: Key, width: int) -> Row:
        line = next(line for line in reversed(self.source(view)) if line.seq == key)
        timing: Timing = "said" if self.foreign is None else self.foreign.timing.get(line.seq, "none")
        wanted = "" if self.editing else self.wanted
        return log_row(view.paint, line, view.wall, width, dated=self._dated, timing=timing, wanted=wanted)

    def chosen_line(self) -> LogLine | None:
        if self.view is None:
            return None
        return next((line for line in self.source(self.view) if line.seq == self.chosen), None)

    def _go(self, place: int) -> None:
        last = len(self._walkable) - 1
        if place >= last:
            self.following = True
        else:
            self._stop_following()
        super()._go(place)

    def _stop_following(self) -> None:
        if self.following:
            self.following = False
            self._seen = int(str(self._walkable[-1])) if self._walkable else 0

    def on_click(self, event: Click) -> None:
        before = self.chosen
        super().on_click(event)
        if self.chosen != before:
            self._go(self._place())

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
        self.editing, self.searching = True, False
        self.redraw()

    def end_filter(self, *, keep: bool) -> None:
        self.editing = False
        if not keep:
            self.wanted, self.searching = "", False
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
        else:
            self.wanted = edited(self.wanted, event)
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
        memory = [line for line in view.state.log if line.memory]
        title = f"{t('log.title')}  {t('log.memory_lines' if memory else 'log.all_lines')}"
        head = Row(width).add("─── ", paint.faint).add("6 ", paint.key).add(title, paint.muted)
        head.add(" ", paint.faint)
        if view.past_at is not None:
            head.add(cursor_label(view.past_at, view.cursor.width_s, view.now) + " ", paint.wait)
        head.to(width, paint.faint, "─")
        rows = [head]
        lines = (memory or list(view.state.log))[-(height - 1) :]
        dated = bool(lines) and not is_today(lines[0].at, view.wall)
        for line in lines:
            text = log_row(paint, line, view.wall, width - 2, dated=dated)
            rows.append(Row(width).add(" ", paint.text).extend(text))
        if not lines:
            rows.append(Row(width).add(" " + _empty(view), paint.muted))
        return rows
