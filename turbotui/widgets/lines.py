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
from turbotui.past.cursor import Cursor
from turbotui.sanitize import clean

if TYPE_CHECKING:
    from textual.events import Resize
    from textual.selection import Selection

    from turbotui.history import History
    from turbotui.past.timeline import Timeline
    from turbotui.state import ConsoleState, Look
    from turbotui.theme import Paint

NOW = Cursor()


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
    cursor: Cursor = NOW
    """Which moment is looked at, and how the graph is zoomed."""
    timeline: Timeline | None = None
    """What the graph is drawn from where that is more than the last minutes."""
    past_at: float | None = None
    """The moment that is shown where it is over; None in a picture of now."""
    now: float = 0.0
    """Wall-clock time outside of the picture, where `past_at` is set."""
    unknown: str | None = None
    """Why nothing is known of that moment; None where something is."""
    untold: str | None = None
    """Why what an engine tells is not known of that moment, where its devices are."""
    unwatched: bool = False
    """Nobody looks: panels may let a change wait for their `unwatched_s`."""

    @property
    def as_of(self) -> float | None:
        """When the engine last told of a picture of now that no engine tells of; None where one does."""
        return None if self.state.link == "connected" or self.past_at is not None else self.state.told_at


@lru_cache(1024)
def _clean(text: str) -> str:
    return clean(text)


def safe(text: str) -> str:
    """`text` as it may be given to a terminal."""
    return text if text.isascii() and text.isprintable() else _clean(text)


def visible(strip: Strip) -> Strip:
    """What is typed, as it may be given to a terminal, in the same cells: what hides in it is shown.

    What a field holds stays as it is. What is shown takes a cell, so that the row's end may be cut off.
    """
    if all(segment.text.isascii() for segment in strip):
        return strip
    segments = [Segment(safe(text), style, control) for text, style, control in strip]
    return Strip(segments).adjust_cell_length(strip.cell_length)


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


GAP = 6
"""Unchanged cells that cost less than to go round them."""


@lru_cache(512)
def _cells(text: str) -> tuple[str, ...]:
    """`text` cell by cell: a wide character is two of them, what takes none belongs to the one before."""
    found: list[str] = []
    for character in text:
        width = cell_len(character)
        if width:
            found += (character, character + ">")[:width]
        elif found:
            found[-1] += character
    return tuple(found)


def changed_spans(old: Sequence[Segment], new: Sequence[Segment]) -> list[tuple[int, int]]:
    """First and past-the-last cells of each stretch in which two rows differ.

    Stretches that lie close to each other are one.
    """
    if old == new:
        return []
    rows: list[list[tuple[str, Style | None]]] = []
    for segments in (old, new):
        row: list[tuple[str, Style | None]] = []
        for text, style, _control in segments:
            cells: Sequence[str] = text if text.isascii() else _cells(text)
            row += [(cell, style) for cell in cells]
        rows.append(row)
    before, after = rows
    if len(before) != len(after):
        return [(0, max(len(before), len(after)))]
    found: list[tuple[int, int]] = []
    for x, (a, b) in enumerate(zip(before, after, strict=True)):
        if a is b or (a[0] == b[0] and (a[1] is b[1] or a[1] == b[1])):
            continue
        if found and x - found[-1][1] <= GAP:
            found[-1] = (found[-1][0], x + 1)
        else:
            found.append((x, x + 1))
    return found


SELECTED = Style(reverse=True)
"""What the mouse has selected; seen without colours too."""


def _selected_cells(selection: Selection, y: int, strip: Strip) -> tuple[int, int] | None:
    """First and past-the-last cell of row `y` that are selected."""
    span = selection.get_span(y)
    if span is None:
        return None
    start, end = span
    end = strip.cell_length if end < 0 else min(end, strip.cell_length)
    return (start, end) if start < end else None


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
        looked_at = (view.past_at, view.unknown, view.untold)
        inputs = (view.paint, view.look, self.has_focus, *looked_at, *self.inputs(view))
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
            for start, end in changed_spans(self._rows[y], row_segments):
                dirty.append(Region(start, y, end - start, 1))
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
            selection = self.text_selection
            return self._strips[y] if selection is None else self._selected(y, selection)
        return Strip.blank(self.size.width, self.view.paint.text if self.view else Style.null())

    def _selected(self, y: int, selection: Selection) -> Strip:
        """A row with what the mouse has selected of it turned round."""
        strip = self._strips[y]
        span = _selected_cells(selection, y, strip)
        if span is None:
            return strip
        before, chosen, after = strip.divide([span[0], span[1], max(span[1], strip.cell_length)])
        return Strip.join([before, chosen.apply_style(SELECTED), after])

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """What is selected, without the frame's sides."""
        rows = []
        for y, strip in enumerate(self._strips):
            if (span := _selected_cells(selection, y, strip)) is not None:
                rows.append(strip.crop(*span).text.strip("│ "))
        return ("\n".join(rows), "\n") if rows else None

    def on_resize(self, event: Resize) -> None:
        self._draw()

    def on_focus(self) -> None:
        self._draw()

    def on_blur(self) -> None:
        self._draw()
