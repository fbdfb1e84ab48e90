"""Owns how a panel is drawn cheaply: text rows kept as strips, of which only changed spans are sent.

Textual compares nothing with the picture before: what a widget marks dirty is rendered and sent
again. So a panel here builds its rows as plain segments, compares them with those on the screen
and marks the cells that differ. Everything drawn passes the sanitiser on its way into a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from turbotui import format as formats
from turbotui.format import clip
from turbotui.sanitize import clean

if TYPE_CHECKING:
    from textual.events import Resize

    from turbotui.history import History
    from turbotui.state import ConsoleState, Look
    from turbotui.theme import Paint


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
    making_demo: bool = False
    """The demo models are being made."""
    away_since: float | None = None
    """When the last console was left, where what happened since is news."""
    seen: frozenset[str] = frozenset()
    """Names of the findings that were read."""
    unwatched: bool = False
    """Nobody looks: panels may let a change wait for their `unwatched_s`."""


@lru_cache(4096)
def _clean(text: str) -> str:
    return clean(text)


def safe(text: str) -> str:
    """`text` as it may be given to a terminal."""
    return text if text.isascii() and text.isprintable() else _clean(text)


def width_of(text: str) -> int:
    return len(text) if text.isascii() else cell_len(text)


def wrapped(text: str, cells: int) -> list[str]:
    """`text` in lines of at most `cells` cells; a break of its own ends a line."""
    return [
        line for paragraph in text.splitlines() or [""] for line in formats.wrapped(safe(paragraph), cells)
    ]


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

    unwatched_s: ClassVar[float] = 0.0
    """Seconds between two drawings while nobody looks."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.view: View | None = None
        self._rows: list[list[Segment]] = []
        self._strips: list[Strip] = []
        self._inputs: tuple[object, ...] | None = None
        self._width = 0
        self._drawn_at = 0.0

    def inputs(self, view: View) -> tuple[object, ...]:
        raise NotImplementedError

    def rows(self, view: View, width: int, height: int) -> list[Row]:
        raise NotImplementedError

    def show(self, view: View) -> None:
        """Draw `view`, if it differs from what is on the screen."""
        self.view = view
        inputs = (view.paint, view.look, self.has_focus, *self.inputs(view))
        if inputs == self._inputs:
            return
        if view.unwatched and 0 <= view.monotonic - self._drawn_at < self.unwatched_s:
            return
        self._drawn_at = view.monotonic
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
