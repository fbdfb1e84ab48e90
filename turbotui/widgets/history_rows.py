"""Owns what stands in and under the graph beside its columns: marks, times, the cursor and told gaps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.style import Style

from turbotui.format import cell_width
from turbotui.past.axis import Label, ago_labels, cursor_label, time_labels
from turbotui.past.marks import reason_text
from turbotui.widgets.lines import Row, View, safe, width_of

if TYPE_CHECKING:
    from turbotui.history import Column
    from turbotui.marks import Mark
    from turbotui.past.marks import Silence
    from turbotui.theme import Paint

LABEL_CELLS = 6
"""Figure, then the axis itself."""
CURSOR = "│"
UNMARKED = "▴"

Cell = tuple[str, Style]


def upon_cursor(paint: Paint, cells: tuple[Cell, ...]) -> tuple[Cell, ...]:
    """A column that the cursor is on: a line above what is taken, and the patterns in the line's colour."""
    return tuple(
        (CURSOR, paint.bold) if glyph == " " else (glyph, paint.upon_cursor(style)) for glyph, style in cells
    )


def tell_gaps(
    paint: Paint,
    columns: list[tuple[Cell, ...]],
    window: Sequence[Column | None],
    silences: Sequence[Silence],
    last: int,
    width_s: int,
) -> None:
    """Write why nothing is known into the gaps that are wide enough for it."""
    first = last - len(window) + 1
    for silence in silences:
        begin = max(0, int(silence.since // width_s) - first)
        end = min(len(window), int(silence.until // width_s) + 1 - first)
        gap = [place for place in range(begin, end) if window[place] is None]
        text = safe(reason_text(silence.reason))
        cells = cell_width(text)
        if len(gap) < cells + 2 or gap[-1] - gap[0] + 1 != len(gap):
            continue
        place = gap[0] + (len(gap) - cells) // 2
        middle = len(columns[place]) // 2
        for character in text:
            for offset in range(cell_width(character)):
                written = list(columns[place + offset])
                # The second cell of a wide character is the first one's.
                written[middle] = (character if offset == 0 else "", paint.muted)
                columns[place + offset] = tuple(written)
            place += cell_width(character)


def marks_row(view: View, width: int, marks: Mapping[int, Sequence[Mark]], last: int, count: int) -> Row:
    """A sign for each column in which something happened."""
    paint, cursor, first = view.paint, view.cursor, last - count + 1
    symbols = {column - first: found[0].symbol for column, found in marks.items()}
    here = None if cursor.column is None else cursor.column - first
    row = Row(width).to(LABEL_CELLS, paint.text)
    for column in sorted({*symbols, *(() if here is None else (here,))}):
        if not 0 <= column < count:
            continue
        symbol = symbols.get(column)
        style = paint.alarm if symbol in ("!", "?") else paint.text
        if column == here:
            style = paint.bold if symbol is None else paint.chosen_tab
        row.to(LABEL_CELLS + column, paint.text).add(symbol or UNMARKED, style)
    return row


def time_row(view: View, width: int, last: int, count: int) -> Row:
    """The times of the columns, the cursor's own among them."""
    paint, cursor = view.paint, view.cursor
    row = Row(width).to(LABEL_CELLS - 1, paint.text).add("└", paint.muted)
    if cursor.at is None and cursor.width_s == 1:
        labels = [(place, text, False) for place, text in ago_labels(count)]
    else:
        labels = _with_cursor(view, list(time_labels(last, count, cursor.width_s, view.wall)), last, count)
    for place, text, own in labels:
        start = LABEL_CELLS + place + 1 - width_of(text)
        if start > row.cells or place == count - 1:
            row.to(start, paint.faint, "─").add(text, paint.chosen_tab if own else paint.muted)
    return row.to(width, paint.faint, "─") if cursor.last is not None or cursor.width_s > 1 else row


def _with_cursor(view: View, labels: list[Label], last: int, count: int) -> list[tuple[int, str, bool]]:
    """The labels with the cursor's, which stands about under its column and before all others."""
    cursor = view.cursor
    found = [(place, text, False) for place, text in labels]
    if cursor.at is None or cursor.column is None:
        return found
    text = f" {cursor_label(cursor.at, cursor.width_s, view.wall)} "
    cells = width_of(text)
    place = cursor.column - (last - count + 1)
    end = max(cells - 1, min(count - 1, place + cells // 2))
    free = [one for one in found if one[0] < end - cells or one[0] - width_of(one[1]) > end]
    return sorted([*free, (end, text, True)])
