"""Owns the widget that shows a picture in cells, and sends only the cells that changed.

A picture costs a terminal up to 44 bytes a cell, where a row of text costs 100 bytes in all. So the
changed runs of each row are marked one by one, and what hardly changed between two frames of a
clip is left as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from turbotui.picture.cells import Cell, cells_of, kept_where_alike, price, segments_of
from turbotui.picture.colours import colours_of
from turbotui.picture.raster import Picture, cells_for
from turbotui.widgets.lines import Row, width_of, wrapped
from turbotui.widgets.pixels import Pixels, graphics_of

if TYPE_CHECKING:
    from textual.events import Resize

    from turbotui.theme import Paint

ALIKE = 14
"""Of 255 steps: what moves less between two frames of a clip is not sent."""
APART = 3
"""Cells between two changed runs that are cheaper to send along."""


class PictureView(Widget):
    """One picture in the middle of its place, or a sentence where there is none."""

    DEFAULT_CSS = """
    PictureView { width: 1; height: 1; }
    """

    in_the_middle: ClassVar[bool] = True
    """Of its place; else in its upper left corner."""

    def __init__(self, *, id: str = "picture") -> None:
        super().__init__(id=id)
        self._paint: Paint | None = None
        self._picture: Picture | None = None
        self._words = ""
        self._rows: int | None = None
        self._above = 0
        self._cells: list[list[Cell]] = []
        self._strips: list[Strip] = []
        self._key: tuple[object, ...] | None = None
        self._pixels = Pixels()
        self.spent_bytes = 0
        """About what the newest change costs the terminal."""

    @property
    def picture(self) -> Picture | None:
        return self._picture

    def show(
        self,
        paint: Paint,
        picture: Picture | None,
        words: str = "",
        *,
        clip: bool = False,
        rows: int | None = None,
        above: int = 0,
    ) -> None:
        """Draw `picture`, or `words` without one; `clip`: it is a frame after the one on the screen.

        Its place has `rows`, else as many as the widget; the first `above` of them are out of sight.
        """
        self._paint, self._picture, self._words = paint, picture, words
        self._rows, self._above = rows, above
        self._draw(clip=clip)

    def _draw(self, *, clip: bool = False) -> None:
        width, seen = self.size
        paint, picture, above = self._paint, self._picture, self._above
        if paint is None or not width or not seen:
            return
        height = seen if self._rows is None else self._rows
        colours = colours_of(self.app)
        # A clip in pixels would cost a hundred times its half-blocks, and pixels end at no row.
        whole = picture is not None and colours == "true" and not clip and not above
        pixels = graphics_of(self.app) if whole else "none"
        key = (picture, self._words, pixels, paint, width, seen, height, above, colours)
        if key == self._key:
            return
        same_place = self._key is not None and self._key[2:] == key[2:] and len(self._strips) == seen
        self._key = key
        if picture is None:
            rows = [[Segment(" " * width, paint.text)] for _ in range(height)]
            lines = wrapped(self._words, max(1, width - 2))[:height]
            for y, line in enumerate(lines, max(0, (height - len(lines)) // 2)):
                row = Row(width).to(max(0, (width - width_of(line)) // 2), paint.muted).add(line, paint.muted)
                rows[y] = row.to(width, paint.text).segments
            self._cells = []
            self._pixels.forget(self)
        else:
            columns, lines_ = cells_for(picture.width, picture.height, width, height)
            cells = cells_of(picture, columns, lines_)
            if clip and same_place and self._cells:
                cells = kept_where_alike(cells, self._cells, ALIKE)
            self._cells = cells
            middle = self.in_the_middle
            left, top = ((width - columns) // 2, (height - lines_) // 2) if middle else (0, 0)
            drawn = self._pixels.draw(self, pixels, picture, Region(left, top, columns, lines_), paint.text)
            rows = []
            for y in range(height):
                row_segments = [Segment(" " * width, paint.text)]
                if top <= y < top + lines_:
                    dark = paint.palette.dark
                    row_segments = (
                        drawn[y - top]
                        if drawn
                        else segments_of(cells[y - top], y - top, colours, paint.text, dark=dark)
                    )
                    right = width - left - columns
                    row_segments = [
                        *([Segment(" " * left, paint.text)] if left else []),
                        *row_segments,
                        *([Segment(" " * right, paint.text)] if right else []),
                    ]
                rows.append(row_segments)
        rows = rows[above : above + seen]
        strips = [Strip(row, width) for row in rows]
        if not same_place:
            self._strips = strips
            self.spent_bytes = sum(price(row, colours) for row in rows)
            self.refresh()
            return
        dirty: list[Region] = []
        spent = 0
        for y, (old, new) in enumerate(zip(self._strips, strips, strict=True)):
            for start, end in changed_runs(old, new):
                dirty.append(Region(start, y, end - start, 1))
                spent += price(list(new.crop(start, end)), colours)
        self._strips = strips
        self.spent_bytes = spent
        if dirty:
            self.refresh(*dirty)

    def on_unmount(self) -> None:
        self._pixels.forget(self)

    def render_line(self, y: int) -> Strip:
        self._pixels.repainted(self)
        if y < len(self._strips):
            return self._strips[y]
        return Strip.blank(self.size.width, self._paint.text if self._paint else Style.null())

    def on_resize(self, event: Resize) -> None:
        self._draw()


def changed_runs(old: Strip, new: Strip) -> list[tuple[int, int]]:
    """First and past-the-last cells of what differs between two rows of one width."""
    if old == new:
        return []
    before, after = _by_cell(old), _by_cell(new)
    runs: list[tuple[int, int]] = []
    for x, (a, b) in enumerate(zip(before, after, strict=False)):
        if a == b:
            continue
        if runs and x - runs[-1][1] <= APART:
            runs[-1] = (runs[-1][0], x + 1)
        else:
            runs.append((x, x + 1))
    return runs or [(0, new.cell_length)]


def _by_cell(strip: Strip) -> list[tuple[str, object]]:
    """Character and style of each cell; a wide character counts for both of its cells."""
    found: list[tuple[str, object]] = []
    for text, style, _control in strip:
        for character in text:
            found += [(character, style)] * max(1, width_of(character))
    return found
