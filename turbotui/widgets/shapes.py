"""Owns the choice of an aspect ratio: each drawn as an outline in true proportion, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding

from turbotui.widgets.fields import LABEL_CELLS, FieldChanged, FieldSubmitted
from turbotui.widgets.lines import LinePanel, Row, View, width_of

if TYPE_CHECKING:
    from rich.style import Style
    from textual.binding import BindingType
    from textual.events import Click

CELL_RATIO = 2.0
"""A terminal's cell is about twice as high as wide."""
GAP = 2
THIN = "┌─┐│└┘"
THICK = "┏━┓┃┗┛"


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """A row of the model's table."""

    name: str
    """Such as `16:9`."""
    width: int
    """Pixels."""
    height: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """Where a shape's outline stands, in cells."""

    left: int
    width: int
    height: int
    beside: int = 0
    """Cells right of it for a name that has no room inside."""

    @property
    def name_row(self) -> int:
        """Of its rows the one in the middle, with the name."""
        return (self.height - 1) // 2


def boxes(shapes: list[Shape], columns: int, rows: int) -> list[Box]:
    """An outline for each shape, all to one scale: as large as `rows` and `columns` take, never below 3x2.

    A name that has no room inside stands beside, unless the outlines alone take all of `columns`. Where
    all do not fit beside each other at the least size, those beyond `columns` are cut by the row.
    """
    beside = 0
    while True:
        placed = _placed(shapes, columns - beside, rows)
        taken = sum(box.beside for box in placed)
        if not placed or placed[-1].left + placed[-1].width + placed[-1].beside > columns:
            return _placed(shapes, columns, rows, named=False)
        if taken <= beside:
            return placed
        beside = taken  # smaller outlines may have no room for still more names


def _placed(shapes: list[Shape], columns: int, rows: int, *, named: bool = True) -> list[Box]:
    """Outlines that take at most `columns` without what stands beside them."""
    by_height = max((shape.height for shape in shapes), default=0) / rows
    room = max(1, columns - GAP * (len(shapes) - 1))
    by_width = sum(shape.width for shape in shapes) * CELL_RATIO / room
    pixels = max(by_height, by_width, 1.0)
    """To a row; a column has half of them."""
    found, left = [], 0
    for shape in shapes:
        width = max(3, round(shape.width / pixels * CELL_RATIO))
        height = max(2, min(rows, round(shape.height / pixels)))
        name = width_of(shape.name)
        inside = not named or (height > 2 and name <= width - 2)
        found.append(Box(left=left, width=width, height=height, beside=0 if inside else name + 1))
        left += width + found[-1].beside + GAP
    return found


class ShapeField(LinePanel, can_focus=True):
    """Left and right choose; a click on an outline too. The chosen one has a thick outline."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,h", "step(-1)", show=False),
        Binding("right,l,space", "step(1)", show=False),
        Binding("enter", "submit", show=False),
    ]

    def __init__(self, *, id: str, label: str) -> None:
        super().__init__(id=id)
        self._label = label
        self.shapes: list[Shape] = []
        self.value = ""

    def offer(self, shapes: list[Shape], value: str) -> None:
        """What there is to choose from; an unknown `value` becomes the first."""
        self.shapes = shapes
        names = [shape.name for shape in shapes]
        self.value = value if value in names else (names[0] if names else "")

    def inputs(self, view: View) -> tuple[object, ...]:
        return (self.value, tuple(self.shapes))

    def rows(self, view: View, width: int, height: int) -> list[Row]:
        paint = view.paint
        placed = boxes(self.shapes, width - LABEL_CELLS, height)
        rows = []
        # Beside the first one's name, the table's default, and not that of the chosen one: it stands still.
        labelled = height - placed[0].height + placed[0].name_row if placed else 0
        for y in range(height):
            row = Row(width)
            label = self._label if y == labelled else ""
            row.field(label, LABEL_CELLS, paint.focus if self.has_focus else paint.muted)
            for shape, box in zip(self.shapes, placed, strict=True):
                chosen = shape.name == self.value
                style = (paint.key if self.has_focus else paint.bold) if chosen else paint.faint
                text = paint.bold if chosen else paint.muted
                row.to(LABEL_CELLS + box.left, paint.text)
                _line(row, shape, box, y - (height - box.height), THICK if chosen else THIN, style, text)
            rows.append(row)
        return rows

    def action_step(self, by: int) -> None:
        names = [shape.name for shape in self.shapes]
        if len(names) > 1:
            self.value = names[(names.index(self.value) + by) % len(names)]
            self.redraw()
            self.post_message(FieldChanged())

    def action_submit(self) -> None:
        self.post_message(FieldSubmitted())

    def on_click(self, event: Click) -> None:
        placed = boxes(self.shapes, self.size.width - LABEL_CELLS, self.size.height)
        for shape, box in zip(self.shapes, placed, strict=True):
            if 0 <= event.x - LABEL_CELLS - box.left < box.width + box.beside and shape.name != self.value:
                self.value = shape.name
                self.redraw()
                self.post_message(FieldChanged())


def _line(row: Row, shape: Shape, box: Box, y: int, glyphs: str, edge: Style, text: Style) -> None:
    """Row `y` of an outline, with its name inside where there is room for it, else beside it."""
    inner = box.width - 2
    named = y == box.name_row
    if y < 0:
        row.add(" " * box.width, edge)
    elif y in (0, box.height - 1):
        start, end = (glyphs[0], glyphs[2]) if y == 0 else (glyphs[4], glyphs[5])
        row.add(start + glyphs[1] * inner + end, edge)
    elif named and width_of(shape.name) <= inner:
        before = (inner - width_of(shape.name)) // 2
        row.add(glyphs[3] + " " * before, edge).add(shape.name, text)
        row.add(" " * (inner - before - width_of(shape.name)) + glyphs[3], edge)
    else:
        row.add(glyphs[3] + " " * inner + glyphs[3], edge)
    if named and box.beside:
        row.add(f" {shape.name}", text)
