"""Owns the history graph: the device's parts stacked over time, a column for each second.

The axis is labelled and changes only by key. The rightmost column grows while its second lasts;
once a second the picture moves left by one. Columns are rendered once and kept.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, cast

from turbotui.format import GIB, bytes_text, clip, clock, seconds
from turbotui.history import OURS, STACK, Column, parts_of
from turbotui.past.axis import cursor_label
from turbotui.past.marks import by_column, mark_text, reason_text
from turbotui.text import t
from turbotui.theme import GLYPHS
from turbotui.widgets.card import short_age
from turbotui.widgets.history_rows import LABEL_CELLS, Cell, marks_row, tell_gaps, time_row, upon_cursor
from turbotui.widgets.lines import Row, View, safe, width_of
from turbotui.widgets.panels import Panel

if TYPE_CHECKING:
    from textual.events import Click, MouseScrollDown, MouseScrollUp

    from turbotui.app import TurboApp
    from turbotui.marks import Mark
    from turbotui.past.timeline import Timeline
    from turbotui.theme import Paint

MIB = 2**20
EIGHTHS = " ▁▂▃▄▅▆▇█"
AxisMode = Literal["fit", "full", "ours"]
AXIS_MODES: tuple[AxisMode, ...] = ("fit", "full", "ours")
_STEPS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100, 120, 150, 200, 250, 300, 400, 500)


def row_step(highest: int, rows: int, whole: int) -> int:
    """Bytes for each row of the graph, so that `rows` of them hold `highest`: a round figure, or where
    `rows` of it would end above the device's `whole` bytes, of which there are no more, their share of those.
    """
    step = _round_step(highest, rows)
    return step if step * rows <= whole else max(1, -(-whole // rows))


def _round_step(highest: int, rows: int) -> int:
    unit = GIB if highest > 2 * GIB else MIB
    for _ in range(3):
        for step in _STEPS:
            if step * unit * rows >= highest:
                return step * unit
        unit *= 1024
    return max(1, -(-highest // rows))


def row_label(count: int, step: int, top: int) -> str:
    """What stands beside the axis at `count` bytes: whole units, and tenths where steps are small."""
    unit, sign = (GIB, "") if top > 2 * GIB else (MIB, "M")
    tenths = step < 4 * unit and step % unit != 0
    return f"{count / unit:.{int(tenths)}f}{sign}"


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
    """Its axis is chosen once there is something to measure, and then by key alone.

    Args:
        on_point: Called with the number of a column that was clicked.
        on_turn: Called with 1 or -1 as the mouse's wheel turns.
    """

    number = 2
    knows_always = True
    unwatched_s = 5.0

    def __init__(self, *, id: str, on_point: Callable[[int], None], on_turn: Callable[[int], None]) -> None:
        super().__init__(id=id)
        self.mode: AxisMode | None = None
        self.limit = 0
        """Bytes that the axis must hold; 0 before the first sample."""
        self._whole = 0
        """Bytes of the device that it was measured for."""
        self._measured: str | None = None
        """The device that it was measured for."""
        self._on_point = on_point
        self._on_turn = on_turn
        self._count = 60
        self._highest = 0
        """Of what is in sight."""
        self._in_column: tuple[Mark, ...] = ()
        """What happened in the cursor's column, what is drawn of it first."""
        self._under: Column | None = None

    @property
    def count(self) -> int:
        """How many columns are in sight, or were when it was last drawn."""
        width = self.size.width
        return width - 4 - LABEL_CELLS if width > 4 + LABEL_CELLS else self._count

    def inputs(self, view: View) -> tuple[object, ...]:
        last = view.cursor.last_column(view.wall)
        timeline = self._timeline(view)
        version = None if timeline is None else timeline.version
        tail = tuple(self._window(view, last, 2))
        device = view.state.device and view.state.device.id
        marks = (device, view.state.marks, view.paused_at, self.mode, self.limit)
        return (view.cursor, last, int(view.wall // view.cursor.width_s), version, tail, *marks)

    def _timeline(self, view: View) -> Timeline | None:
        """What is asked where the picture is not of the last minutes, which were seen here."""
        plain = view.cursor.at is None and view.cursor.width_s == 1
        return None if plain else view.timeline

    def _window(self, view: View, last: int, count: int) -> list[Column | None]:
        if view.history is None:
            return []
        timeline = self._timeline(view)
        if timeline is None:
            return view.history.window(last, count)
        return timeline.window(last, count, view.cursor.width_s, view.wall)

    def on_click(self, event: Click) -> None:
        place = event.x - 2 - LABEL_CELLS
        if self.view is not None and 0 <= place < self.count:
            self._on_point(self.view.cursor.last_column(self.view.wall) - self.count + 1 + place)

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        self._on_turn(1)

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        self._on_turn(-1)

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
        self.mode, self._measured, self._whole = mode, device.id, device.total_bytes
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
        if view.paused_at is not None and view.past_at is None:
            return t("history.paused")
        if view.cursor.width_s > 1:
            return t("history.zoomed", width=seconds(view.cursor.width_s).replace("m00s", " min"))
        device = view.state.device
        if device is not None and len(view.state.gpus) > 1:
            return t("history.title_gpu", index=device.index)
        return t("history.title")

    def moment(self, view: View, at: float) -> str:
        return t("past.ago", at=super().moment(view, at), ago=short_age(view.now - at))

    def below(self, view: View) -> str:
        """What happened where the cursor is, or how much was taken; without it, the keys."""
        room = max(0, self.size.width - 6)
        if view.cursor.at is None:
            # In ASCII the arrows would be two other keys of this panel.
            arrows = " ".join(map(cast("TurboApp", self.app).symbols.key, "←→"))
            return clip(t("history.keys", arrows=arrows), room) if self.has_focus and room > 40 else ""
        if self._in_column:
            more = len(self._in_column) - 1
            rest = f"  {t('past.more', count=more)}" if more else ""
            first = self._in_column[0]
            text = f"{clock(first.at)} {safe(mark_text(first))}"
            return clip(text, max(0, room - width_of(rest))) + rest
        column = self._under
        if column is None:
            return clip(self._silence(view, view.cursor.at), room)
        if column.low_bytes == column.total_bytes:
            return t("past.taken", bytes=bytes_text(column.total_bytes))
        high, low = bytes_text(column.total_bytes), bytes_text(column.low_bytes)
        return clip(t("past.between", low=low, high=high), room)

    def _silence(self, view: View, at: float) -> str:
        timeline, width_s = self._timeline(view), view.cursor.width_s
        last = view.cursor.last_column(view.wall)
        for silence in () if timeline is None else timeline.silences(last, self.count, width_s):
            if silence.since - width_s <= at <= silence.until + width_s:
                since, until = (cursor_label(one, 1, view.wall) for one in (silence.since, silence.until))
                return t("past.silent", since=since, until=until, reason=reason_text(silence.reason))
        return t("past.nothing")

    def remark(self, view: View, width: int) -> Row | None:
        if view.paused_at is not None:
            return Row(width).add(t("history.goes_on"), view.paint.wait)
        if self.mode is None or view.history is None or view.state.device is None:
            return None
        step = self._step()
        top = step * self._graph_rows()
        whole = view.state.device.total_bytes
        highest = max(self._highest, view.history.highest(OURS if self.mode == "ours" else STACK))
        above = Row(40)
        if highest > top:
            above.add(t("history.above", bytes=bytes_text(highest)) + "  ", view.paint.wait)
        unit, name = (GIB, "GiB") if top > 2 * GIB else (MIB, "MiB")
        reach = bytes_text(whole) if top >= whole else f"{top // unit} {name}"
        if self.mode == "ours":
            text = t("history.axis_ours", top=reach)
        else:
            axis_text = "history.axis_whole" if top >= whole else "history.axis"
            text = t(axis_text, top=reach, whole=bytes_text(whole))
        following = AXIS_MODES[(AXIS_MODES.index(self.mode) + 1) % len(AXIS_MODES)]
        key = Row(40).add("  z ", view.paint.key).add(t(f"history.z_{following}"), view.paint.muted)
        axis = Row(60).add(text, view.paint.muted)
        # Beside a moment there is less room; that something is cut off matters most.
        for pieces in ((above, axis, key), (above, key), (above,)):
            if sum(piece.cells for piece in pieces) <= width:
                row = Row(width)
                for piece in pieces:
                    row.extend(piece)
                return row
        return None

    def _graph_rows(self) -> int:
        return max(1, self.size.height - 4)

    def _step(self) -> int:
        return row_step(self.limit, self._graph_rows(), self._whole)

    def body(self, view: View, width: int, height: int) -> list[Row]:
        if self.mode is None and view.history is not None:
            self._first_measure(view)
        elif self.mode is not None and view.state.device and view.state.device.id != self._measured:
            # The person went to another device. An empty one has room for somebody to come.
            self._measure(view, self.mode, room=view.state.device.total_bytes // 8)
        if self.mode is None or view.history is None:
            return [Row(width).add(t("history.none"), view.paint.muted)]
        paint, rows, step = view.paint, height - 2, self._step()
        count = self._count = width - LABEL_CELLS
        cursor, last = view.cursor, view.cursor.last_column(view.wall)
        window = self._window(view, last, count)
        parts = OURS if self.mode == "ours" else STACK
        chosen = [STACK.index(part) for part in parts]
        self._highest = max(
            (sum(column.stack[index] for index in chosen) for column in window if column is not None),
            default=0,
        )
        place = None if cursor.column is None else cursor.column - (last - count + 1)
        marks = self._marks(view, last, count)
        self._look_under(view, window, marks, place)
        columns = [_cells(paint, column, parts, step, rows) for column in window]
        timeline = self._timeline(view)
        if timeline is not None:
            silences = timeline.silences(last, count, cursor.width_s)
            tell_gaps(paint, columns, window, silences, last, cursor.width_s)
        if place is not None and 0 <= place < count:
            columns[place] = upon_cursor(paint, columns[place])
        built = []
        for number in range(rows - 1, -1, -1):
            label = row_label(step * (number + 1), step, step * rows)
            row = Row(width).field(f"{label}┤", LABEL_CELLS, paint.muted, right=True)
            _merge(row, [cells[number] for cells in columns])
            built.append(row)
        built.append(marks_row(view, width, marks, last, count))
        built.append(time_row(view, width, last, count))
        return built

    def _marks(self, view: View, last: int, count: int) -> dict[int, list[Mark]]:
        if view.state.elsewhere is not None:
            return {}  # what the engine did is no news of another device
        timeline, width_s = self._timeline(view), view.cursor.width_s
        if timeline is not None:
            return timeline.marks(last, count, width_s, view.wall, view.state.marks)
        return by_column((mark for mark in view.state.marks if last - count < int(mark.at) <= last), 1)

    def _look_under(
        self, view: View, window: list[Column | None], marks: dict[int, list[Mark]], place: int | None
    ) -> None:
        """What there is to say of the cursor's column; of an event that was gone to, that one first."""
        cursor = view.cursor
        self._under = window[place] if place is not None and 0 <= place < len(window) else None
        here = [] if cursor.column is None else marks.get(cursor.column, [])
        self._in_column = tuple(sorted(here, key=lambda mark: mark.at != cursor.at))


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
