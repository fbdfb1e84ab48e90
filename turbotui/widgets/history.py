"""Owns the history graph: the device's parts stacked over time, a column for each second.

The axis is labelled and changes only by key. The rightmost column grows while its second lasts;
once a second the picture moves left by one. Columns are rendered once and kept.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from rich.style import Style

from turbotui.format import GIB, bytes_text
from turbotui.history import OURS, STACK, Column, parts_of
from turbotui.text import t
from turbotui.theme import GLYPHS
from turbotui.widgets.lines import Row, View, width_of
from turbotui.widgets.panels import Panel

if TYPE_CHECKING:
    from turbotui.theme import Paint

MIB = 2**20
EIGHTHS = " ▁▂▃▄▅▆▇█"
LABEL_CELLS = 6
"""Figure, then the axis itself."""
TICK_S = 15

AxisMode = Literal["fit", "full", "ours"]
AXIS_MODES: tuple[AxisMode, ...] = ("fit", "full", "ours")
_STEPS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100, 120, 150, 200, 250, 300, 400, 500)

Cell = tuple[str, Style]


def row_step(highest: int, rows: int) -> int:
    """Bytes for each row of the graph, a round figure, so that `rows` of them hold `highest`."""
    unit = GIB if highest > 2 * GIB else MIB
    for _ in range(3):
        for step in _STEPS:
            if step * unit * rows >= highest:
                return step * unit
        unit *= 1024
    return max(1, -(-highest // rows))


@lru_cache(512)
def column_cells(
    paint: Paint, stack: tuple[int, ...], parts: tuple[str, ...], step: int, rows: int
) -> tuple[Cell, ...]:
    """One column from the bottom up: full cells in their part's pattern, edges in eighths."""
    edges: list[tuple[int, str]] = []
    total = 0
    for name in parts:
        count = stack[STACK.index(name)]
        if count > 0:
            total += count
            edge = round(total / step * 8)
            if edge > (edges[-1][0] if edges else 0):
                edges.append((edge, name))
    cells: list[Cell] = []
    for row in range(rows):
        low, high = row * 8, row * 8 + 8
        place = next((index for index, (edge, _name) in enumerate(edges) if edge > low), None)
        if place is None:
            cells.append((" ", paint.text))
            continue
        edge, name = edges[place]
        if edge >= high:
            cells.append((GLYPHS[name], paint.part[name]))
        else:
            above = edges[place + 1][1] if place + 1 < len(edges) else None
            if paint.whole_cells:
                owner = name if edge - low >= 4 else above
                cells.append((" ", paint.text) if owner is None else (GLYPHS[owner], paint.part[owner]))
            else:
                cells.append((EIGHTHS[edge - low], paint.edge(name, above)))
    return tuple(cells)


class HistoryPanel(Panel):
    """Its axis is chosen once there is something to measure, and then by key alone."""

    number = 2
    unwatched_s = 5.0

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.mode: AxisMode | None = None
        self.limit = 0
        """Bytes that the axis must hold; 0 before the first sample."""

    def inputs(self, view: View) -> tuple[object, ...]:
        columns = () if view.history is None else tuple(view.history.window(int(view.wall), 2))
        return (int(view.wall), columns, view.state.marks, view.paused_at, self.mode, self.limit)

    def next_axis(self) -> None:
        """Fit what there was, the whole device, ours alone, and again."""
        if self.view is None or self.mode is None:
            return
        self._measure(self.view, AXIS_MODES[(AXIS_MODES.index(self.mode) + 1) % len(AXIS_MODES)])
        self.redraw()

    def _measure(self, view: View, mode: AxisMode, *, room: int = 0) -> None:
        device, history = view.state.device, view.history
        if device is None or history is None:
            return
        self.mode = mode
        if mode == "full":
            self.limit = device.total_bytes
        else:
            highest = history.highest(OURS if mode == "ours" else STACK)
            self.limit = min(device.total_bytes, max(highest, room, MIB))

    def _first_measure(self, view: View) -> None:
        device = view.state.device
        if device is None or device.balance is None:
            return
        # Room for the largest model beside all that is there, or the first load would be cut off.
        largest = max((model.bytes for model in view.state.models), default=0)
        parts = parts_of(device.balance)
        mode: AxisMode = "ours" if device.kind == "cpu" else "fit"
        counted = OURS if mode == "ours" else STACK
        # Without a GPU a worker's libraries alone take half a GiB, and none may run yet.
        room = sum(parts.get(name) or 0 for name in counted if name != "weights") + largest
        if mode == "ours":
            room = max(GIB, room + room // 4)
        self._measure(view, mode, room=room)

    def title(self, view: View) -> str:
        if view.paused_at is not None:
            return t("history.paused")
        return t("history.title")

    def remark(self, view: View, width: int) -> Row | None:
        row = Row(width)
        if view.paused_at is not None:
            return row.add(t("history.goes_on"), view.paint.wait)
        if self.mode is None or view.history is None or view.state.device is None:
            return row
        step = self._step()
        top = step * self._graph_rows()
        whole = view.state.device.total_bytes
        highest = view.history.highest(OURS if self.mode == "ours" else STACK)
        if highest > top:
            row.add(t("history.above", bytes=bytes_text(highest)) + "  ", view.paint.wait)
        unit, name = (GIB, "GiB") if top > 2 * GIB else (MIB, "MiB")
        # The rows go in round steps and may reach beyond the device, of which there is no more to show.
        reach = bytes_text(whole) if top >= whole else f"{top // unit} {name}"
        if self.mode == "ours":
            text = t("history.axis_ours", top=reach)
        else:
            text = t("history.axis", top=reach, whole=bytes_text(whole))
        following = AXIS_MODES[(AXIS_MODES.index(self.mode) + 1) % len(AXIS_MODES)]
        return (
            row.add(text, view.paint.muted)
            .add("  z ", view.paint.key)
            .add(t(f"history.z_{following}"), view.paint.muted)
        )

    def _graph_rows(self) -> int:
        return max(1, self.size.height - 4)

    def _step(self) -> int:
        return row_step(self.limit, self._graph_rows())

    def body(self, view: View, width: int, height: int) -> list[Row]:
        if self.mode is None and view.history is not None:
            self._first_measure(view)
        if self.mode is None or view.history is None:
            return [Row(width).add(t("history.none"), view.paint.muted)]
        paint, rows, step = view.paint, height - 2, self._step()
        count = width - LABEL_CELLS
        last = int(view.wall)
        window = view.history.window(last, count)
        parts = OURS if self.mode == "ours" else STACK
        columns = [_cells(paint, column, parts, step, rows) for column in window]
        unit, sign = (GIB, "") if step * rows > 2 * GIB else (MIB, "M")
        built = []
        for place in range(rows - 1, -1, -1):
            label = f"{step * (place + 1) // unit}{sign}┤"
            row = Row(width).field(label, LABEL_CELLS, paint.muted, right=True)
            _merge(row, [cells[place] for cells in columns])
            built.append(row)
        built.append(_marks_row(view, width, last, count))
        built.append(_time_row(view, width, count))
        return built


def _cells(
    paint: Paint, column: Column | None, parts: tuple[str, ...], step: int, rows: int
) -> tuple[Cell, ...]:
    if column is None:
        return ((" ", paint.text),) * rows
    return column_cells(paint, column.stack, parts, step, rows)


def _merge(row: Row, cells: list[Cell]) -> None:
    """Append cells, neighbours of one style as one segment."""
    text, style = "", None
    for glyph, cell_style in cells:
        if cell_style is not style and style is not None:
            row.add(text, style)
            text = ""
        text, style = text + glyph, cell_style
    if style is not None:
        row.add(text, style)


def _marks_row(view: View, width: int, last: int, count: int) -> Row:
    symbols: dict[int, str] = {}
    for mark in view.state.marks:
        column = count - 1 - (last - int(mark.at))
        if 0 <= column < count:
            # Of two in one second the job's end matters more than what it unloaded.
            symbols[column] = mark.symbol if symbols.get(column) not in ("■", "!") else symbols[column]
    row = Row(width).to(LABEL_CELLS, view.paint.text)
    for column in sorted(symbols):
        style = view.paint.alarm if symbols[column] == "!" else view.paint.text
        row.to(LABEL_CELLS + column, view.paint.text).add(symbols[column], style)
    return row


def _time_row(view: View, width: int, count: int) -> Row:
    row = Row(width).to(LABEL_CELLS - 1, view.paint.text).add("└", view.paint.muted)
    ticks = range(TICK_S * ((count - 1) // TICK_S), -1, -TICK_S)
    for ago in ticks:
        label = t("history.now") if ago == 0 else _ago(ago)
        end = LABEL_CELLS + count - ago
        start = end - width_of(label)
        if start > row.cells or ago == 0:
            row.to(start, view.paint.faint, "─").add(label, view.paint.muted)
    return row


def _ago(seconds: int) -> str:
    return f"-{seconds}s" if seconds < 120 or seconds % 60 else f"-{seconds // 60}m"
