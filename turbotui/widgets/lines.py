"""Owns how a panel is drawn cheaply: text rows kept as strips, of which only changed spans are sent.

Textual compares nothing with the picture before: what a widget marks dirty is rendered and sent
again. So a panel here builds its rows as plain segments, compares them with those on the screen
and marks the cells that differ. Everything drawn passes the sanitiser on its way into a row.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from turbotui.format import clip
from turbotui.sanitize import clean
from turbotui.text import t

if TYPE_CHECKING:
    from textual.events import Click, MouseScrollDown, MouseScrollUp, Resize

    from turbotui.history import History
    from turbotui.state import ConsoleState, Look
    from turbotui.theme import Paint


Key = Hashable
"""What names a row of a list, whatever its place."""


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """What a panel draws from: the state of one moment and how it is being looked at."""

    state: ConsoleState
    history: History | None
    paint: Paint
    wall: float
    monotonic: float
    look: Look
    read_only: bool = False
    paused_at: float | None = None
    """Wall-clock time of the frozen picture, or None."""

    @property
    def acting(self) -> bool:
        """Whether keys that change something do anything now."""
        return not self.read_only and self.look in ("live", "stale")


@lru_cache(4096)
def _clean(text: str) -> str:
    return clean(text)


def safe(text: str) -> str:
    """`text` as it may be given to a terminal."""
    return text if text.isascii() and text.isprintable() else _clean(text)


def width_of(text: str) -> int:
    return len(text) if text.isascii() else cell_len(text)


def wrapped(text: str, cells: int) -> list[str]:
    """`text` in lines of at most `cells` cells, broken at spaces where there are any near the end."""
    lines: list[str] = []
    for paragraph in text.splitlines() or [""]:
        rest = safe(paragraph)
        while width_of(rest) > cells > 0:
            fit = 0
            used = 0
            while fit < len(rest) and used + cell_len(rest[fit]) <= cells:
                used += cell_len(rest[fit])
                fit += 1
            fit = max(1, fit)
            space = rest.rfind(" ", 0, fit + 1)
            if space > fit // 2:
                fit = space
            lines.append(rest[:fit])
            rest = rest[fit:].lstrip(" ")
        lines.append(rest)
    return lines


class Row:
    """One row being written, left to right; it never grows past its width."""

    __slots__ = ("cells", "segments", "width")

    def __init__(self, width: int) -> None:
        self.width = width
        self.cells = 0
        self.segments: list[Segment] = []

    @property
    def left(self) -> int:
        """Cells still free."""
        return self.width - self.cells

    def add(self, text: str, style: Style) -> Row:
        """Append, clipped to what is free."""
        text = safe(text)
        cells = width_of(text)
        if cells > self.left:
            text = clip(text, self.left)
            cells = width_of(text)
        if text:
            # Neighbours of one style are one run to the terminal: fewer colours on the wire.
            if self.segments and self.segments[-1].style is style:
                self.segments[-1] = Segment(self.segments[-1].text + text, style)
            else:
                self.segments.append(Segment(text, style))
            self.cells += cells
        return self

    def field(self, text: str, cells: int, style: Style, *, right: bool = False) -> Row:
        """Append in exactly `cells` cells."""
        cells = min(cells, self.left)
        text = clip(safe(text), cells)
        fill = " " * (cells - width_of(text))
        return self.add(fill + text if right else text + fill, style)

    def to(self, column: int, style: Style, fill: str = " ") -> Row:
        """Fill up to `column`."""
        return self.add(fill * max(0, min(column, self.width) - self.cells), style)

    def tail(self, text: str, style: Style) -> Row:
        """Put `text` against the right edge, if it fits after what is there."""
        cells = width_of(safe(text))
        if cells <= self.left:
            self.to(self.width - cells, style).add(text, style)
        return self

    def extend(self, other: Row) -> Row:
        for text, style, _control in other.segments:
            self.add(text, style or Style.null())
        return self

    def plain(self) -> str:
        return "".join(segment.text for segment in self.segments)

    def upon(self, paint: Paint) -> Row:
        """The same row as the selected one."""
        self.segments = [
            Segment(text, paint.upon_selection(style or paint.text))
            for text, style, _control in self.segments
        ]
        return self


def changed_span(old: Sequence[Segment], new: Sequence[Segment]) -> tuple[int, int] | None:
    """First and past-the-last cell in which two rows of one width differ, or None.

    Exact to the segment, and to the character where only the text of a segment changed.
    """
    if old == new:
        return None
    start = first = 0
    for before, after in zip(old, new, strict=False):
        if before != after:
            break
        start += width_of(after.text)
        first += 1
    end_old, end_new = len(old), len(new)
    same_tail = 0
    while end_old > first and end_new > first and old[end_old - 1] == new[end_new - 1]:
        end_old, end_new = end_old - 1, end_new - 1
        same_tail += width_of(new[end_new].text)
    total = max(sum(width_of(s.text) for s in old), sum(width_of(s.text) for s in new))
    if end_old == end_new == first + 1:
        before, after = old[first], new[first]
        if before.style == after.style and before.text.isascii() and after.text.isascii():
            a, b = before.text, after.text
            if len(a) == len(b):
                lead = next(i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y)
                trail = next(i for i, (x, y) in enumerate(zip(a[::-1], b[::-1], strict=True)) if x != y)
                return start + lead, start + len(b) - trail
    return start, total - same_tail


class LinePanel(Widget):
    """A widget of fixed size whose rows come from `rows`; `show` redraws what changed.

    Subclasses give `inputs`: the values that their rows depend on. While those are the same
    objects or equal, nothing is built at all.
    """

    DEFAULT_CSS: ClassVar[str] = ""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.view: View | None = None
        self._rows: list[list[Segment]] = []
        self._strips: list[Strip] = []
        self._inputs: tuple[object, ...] | None = None
        self._width = 0

    def inputs(self, view: View) -> tuple[object, ...]:
        raise NotImplementedError

    def rows(self, view: View, width: int, height: int) -> list[Row]:
        raise NotImplementedError

    def show(self, view: View) -> None:
        """Draw `view`, if it differs from what is on the screen."""
        self.view = view
        inputs = (view.paint, view.look, self.has_focus, *self.inputs(view))
        if inputs != self._inputs:
            self._inputs = inputs
            self._draw()

    def redraw(self) -> None:
        """Draw the same view again, since something of the panel's own has changed."""
        self._draw()

    def _draw(self) -> None:
        width, height = self.size
        view = self.view
        if view is None or not width or not height:
            return
        built = self.rows(view, width, height)
        new = [row.to(width, view.paint.text).segments for row in built[:height]]
        while len(new) < height:
            new.append([Segment(" " * width, view.paint.text)])
        whole = len(new) != len(self._rows) or width != self._width
        dirty: list[Region] = []
        for y, row_segments in enumerate(new):
            if whole:
                break
            span = changed_span(self._rows[y], row_segments)
            if span is not None:
                dirty.append(Region(span[0], y, span[1] - span[0], 1))
        self._width = width
        if not whole and not dirty:
            return
        old_strips = self._strips
        changed = {region.y for region in dirty}
        self._rows = new
        self._strips = [
            old_strips[y] if not whole and y not in changed else Strip(segments, width)
            for y, segments in enumerate(new)
        ]
        if whole:
            self.refresh()
        else:
            self.refresh(*dirty)

    def render_line(self, y: int) -> Strip:
        if y < len(self._strips):
            return self._strips[y]
        return Strip.blank(self.size.width, self.view.paint.text if self.view else None)

    def on_resize(self, event: Resize) -> None:
        self._draw()

    def on_focus(self) -> None:
        self._draw()

    def on_blur(self) -> None:
        self._draw()


class Panel(LinePanel, can_focus=True):
    """A framed LinePanel that can be gone to; title and remark stand in the frame."""

    number: ClassVar[int] = 0

    def title(self, view: View) -> str:
        raise NotImplementedError

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
        body = self.body(view, inner, height - 2)
        remark = self.remark(view, max(0, width - 12 - width_of(self.title(view))))
        top = Row(width).add("╭ ", edge)
        if self.number:
            top.add(f"{self.number} ", paint.key)
        top.add(f"{self.title(view)} ", paint.focus_title if self.has_focus else paint.bold)
        if remark is not None and remark.cells:
            top.to(width - remark.cells - 3, edge, "─").add(" ", edge).extend(remark).add(" ", edge)
        top.to(width - 1, edge, "─").add("╮", edge)
        built = [top]
        for y in range(height - 2):
            row = Row(width).add("│ ", edge)
            if y < len(body):
                row.extend(body[y])
            built.append(row.to(width - 2, paint.text).add(" │", edge))
        below = self.below(view)
        foot = Row(width).add("╰", edge)
        if below:
            foot.to(width - 3 - width_of(below), edge, "─").add(f" {below} ", paint.muted)
        built.append(foot.to(width - 1, edge, "─").add("╯", edge))
        return built


class ListPanel(Panel):
    """A Panel whose rows can be walked: the cursor stays on its key when rows move under it.

    Only the rows in sight are built, so a list may be long.
    """

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.chosen: Key | None = None
        """Key of the row that the cursor is on."""
        self.top = 0
        self._keys: list[Key] = []
        self._walkable: list[Key] = []
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

    def place_cursor(self) -> None:
        """Choose a row when the chosen one is gone."""
        if self.chosen not in self._walkable:
            self.chosen = self._walkable[0] if self._walkable else None

    def body(self, view: View, width: int, height: int) -> list[Row]:
        self._keys = self.keys(view)
        self._walkable = [key for key in self._keys if self.walkable(key)]
        self.place_cursor()
        if not self._keys:
            self._room = height
            return self.nothing(view, width)
        heading = self.heading(view, width)
        self._room = max(1, height - len(heading))
        if self.chosen is not None:
            cursor = self._keys.index(self.chosen)
            self.top = max(min(self.top, cursor), cursor - self._room + 1)
        self.top = max(0, min(self.top, len(self._keys) - self._room))
        shown = []
        for key in self._keys[self.top : self.top + self._room]:
            row = self.row(view, key, width)
            if self.has_focus and key == self.chosen:
                row.to(width, view.paint.text).upon(view.paint)
            shown.append(row)
        return heading + shown

    def below(self, view: View) -> str:
        more = len(self._keys) - self.top - self._room
        return t("list.more", count=more) if more > 0 else ""

    def _place(self) -> int:
        return self._walkable.index(self.chosen) if self.chosen in self._walkable else 0

    def _go(self, place: int) -> None:
        if self._walkable:
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
        if self.view is None:
            return
        index = self.top + event.y - 1 - len(self.heading(self.view, self.size.width - 4))
        if self.top <= index < len(self._keys) and self._keys[index] in self._walkable:
            self.chosen = self._keys[index]
            self.redraw()

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        self.move(1)

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        self.move(-1)
