"""Owns the GPU strip: one row with a group of cells for each GPU of the host, of which one is looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from textual.events import Click

from turbotui.format import UNKNOWN, gib
from turbotui.gpus import GpuFigures, Holder, figures_of
from turbotui.text import t
from turbotui.widgets.history import EIGHTHS
from turbotui.widgets.lines import LinePanel, Row, View, safe, width_of

if TYPE_CHECKING:
    from rich.style import Style

    from engine.wire import DeviceStatus
    from turbotui.theme import Paint

USED_CELLS = 3
LEAST_WHO = 5
"""Cells for who holds it below which a group gives up the room around its index."""
MOST = 72
"""Cells beyond which a group would only be stretched."""
GAP = 2
HINT_CELLS = 8


class Columns(NamedTuple):
    """What a group of so many cells shows; the same in each, so that the figures stand in columns."""

    cells: int
    digits: int
    tight: bool
    total: bool
    holders: int
    """Cells for who holds it."""
    facts: tuple[tuple[str, int], ...]
    """Further figures by field name, and their cells."""


def columns_for(figures: tuple[GpuFigures, ...], cells: int) -> Columns:
    """The most telling columns that `cells` hold: who holds it first, then how it does, then what it is."""
    digits = max(len(one.number) for one in figures)
    left = cells - digits - 2 - 1 - USED_CELLS - 1 - GAP
    if left < LEAST_WHO:
        return Columns(cells, digits, tight=True, total=False, holders=max(0, left + 1 + GAP), facts=())
    chosen: dict[str, int] = {}
    for name, least in (("utilisation", 9), ("temperature", 9), ("power", 12), ("name", 18)):
        widest = max(width_of(getattr(one, name)) for one in figures)
        room = max(widest, {"utilisation": 4, "temperature": 4, "power": 4}.get(name, 0)) + 1
        if widest and left - room >= least:
            chosen[name] = room
            left -= room
    total = left - 8 >= 18
    order = ("name", "temperature", "power", "utilisation")
    facts = tuple((name, chosen[name]) for name in order if name in chosen)
    return Columns(cells, digits, tight=False, total=total, holders=left - 8 * total, facts=facts)


class GpuStrip(LinePanel):
    """There where a host has several GPUs.

    Args:
        on_choose: What to do with the id of a GPU that was clicked.
    """

    unwatched_s = 2.0

    def __init__(self, *, id: str, on_choose: Callable[[str], None], key_of: Callable[[str], str]) -> None:
        super().__init__(id=id)
        self._on_choose = on_choose
        self._key_of = key_of
        self._known: dict[str, tuple[DeviceStatus, GpuFigures]] = {}
        self._spans: list[tuple[int, int, str]] = []

    def inputs(self, view: View) -> tuple[object, ...]:
        own = view.state.elsewhere
        return (self._figures(view), view.state.device and view.state.device.id, own and own.id)

    def _figures(self, view: View) -> tuple[GpuFigures, ...]:
        """Of each GPU; those of a device that was not read since are the same ones."""
        for device in view.state.gpus:
            before = self._known.get(device.id)
            if before is None or before[0] is not device:
                self._known[device.id] = (device, figures_of(device))
        return tuple(self._known[device.id][1] for device in view.state.gpus)

    def rows(self, view: View, width: int, height: int) -> list[Row]:
        row, self._spans = Row(width), []
        figures = self._figures(view)
        if not figures or view.state.device is None:
            return [row]
        looked_at = view.state.device.id
        own = view.state.elsewhere
        shown = _in_sight(figures, looked_at, width)
        columns = columns_for(figures, min(MOST, width // len(shown)))
        for one in shown:
            start = row.cells
            mark = "[" if one.id == looked_at else "●" if own is not None and one.id == own.id else " "
            row.extend(_group(view.paint, one, columns, mark)).to(start + columns.cells, view.paint.text)
            self._spans.append((start, row.cells, one.id))
        hint = f"{self._key_of('gpu_previous')} {self._key_of('gpu_next')}"
        if row.left >= HINT_CELLS:
            row.tail(hint + " ", view.paint.key)
        return [row]

    def on_click(self, event: Click) -> None:
        for start, end, device_id in self._spans:
            if start <= event.x < end:
                self._on_choose(device_id)


def _in_sight(figures: tuple[GpuFigures, ...], looked_at: str, width: int) -> tuple[GpuFigures, ...]:
    """All, or where they are too many for the row a stretch of them with the one looked at."""
    least = max(len(one.number) for one in figures) + 2 + 1 + USED_CELLS
    fitting = max(1, width // least)
    place = next((place for place, one in enumerate(figures) if one.id == looked_at), 0)
    first = min(place // fitting * fitting, max(0, len(figures) - fitting))
    return figures[first : first + fitting]


def _group(paint: Paint, one: GpuFigures, columns: Columns, mark: str) -> Row:
    row = Row(columns.cells)
    looked_at = mark == "["
    index = f"{mark}{one.number:>{columns.digits}}"
    row.add(index + ("]" if looked_at else ""), paint.bold if looked_at else _mark_style(paint, mark))
    if not columns.tight:
        row.to(columns.digits + 2, paint.text)
    row.add(EIGHTHS[one.level], _meter_style(paint, one))
    row.field(one.used, USED_CELLS, paint.text if one.level > 1 else paint.muted, right=True)
    if columns.total:
        row.field(f"/{one.total} GiB", 8, paint.muted)
    row.add(" ", paint.text)
    # A group in brackets is a cell wider at its head, which the gap behind it gives.
    room = columns.holders - (columns.tight and not looked_at)
    start = row.cells
    row.extend(_who(paint, one, max(0, min(room, row.left)), tight=columns.tight)).to(
        start + room, paint.text
    )
    for name, cells in columns.facts:
        value = getattr(one, name)
        if name == "name":
            row.add(" ", paint.text).field(value, cells - 1, paint.muted)
        else:
            row.field(value, cells, paint.muted if value in ("0%", "") else paint.text, right=True)
    return row


def _mark_style(paint: Paint, mark: str) -> Style:
    return paint.ours if mark == "●" else paint.muted


def _meter_style(paint: Paint, one: GpuFigures) -> Style:
    """In the hue of whoever holds most of it."""
    if one.level <= 1 and not one.holders:
        return paint.faint
    largest = one.holders[0].part if one.holders else "driver"
    return paint.edge(largest, None)


def _style_of(paint: Paint, part: str) -> Style:
    return {"weights": paint.ours, "unseen": paint.alarm}.get(part, paint.others)


def _who(paint: Paint, one: GpuFigures, room: int, *, tight: bool) -> Row:
    """Who holds it, in the longest form that fits; what is wrong with the card goes before."""
    if one.trouble:
        text = f"! {one.trouble}" if width_of(one.trouble) + 2 <= room or room > 6 else "!"
        return Row(room).add(text, paint.alarm)
    if one.holders is None:
        return Row(room).add(UNKNOWN, paint.muted)
    if not one.holders:
        free = "" if tight else t("strip.free")
        return Row(room).add(free if width_of(free) <= room else "", paint.muted)
    forms = [] if tight else [_all(paint, one.holders, sizes=True), _all(paint, one.holders, sizes=False)]
    for row in (*forms, _largest(paint, one.holders, more=True), _largest(paint, one.holders, more=False)):
        if row.cells <= room:
            return Row(room).extend(row)
    largest = one.holders[0]
    return Row(room).add(_beginning(safe(largest.name), room), _style_of(paint, largest.part))


def _all(paint: Paint, held: tuple[Holder, ...], *, sizes: bool) -> Row:
    row = Row(1000)
    for place, holder in enumerate(held):
        row.add(" " * (2 if sizes else 1) if place else "", paint.text)
        row.add(holder.name, _style_of(paint, holder.part))
        if sizes and len(held) > 1 and holder.bytes is not None:  # of one it is what is used
            row.add(f" {gib(holder.bytes)}", paint.text)
    return row


def _largest(paint: Paint, held: tuple[Holder, ...], *, more: bool) -> Row:
    """`me+1?`: the largest by name, how many others there are, and whether nobody is seen to hold some."""
    named = [holder for holder in held if holder.part != "unseen"]
    row = Row(1000)
    if not named:
        return row.add("?", paint.alarm)
    row.add(named[0].name, _style_of(paint, named[0].part))
    if more and len(named) > 1:
        row.add(f"+{len(named) - 1}", paint.muted)
    return row.add("?", paint.alarm) if more and len(named) < len(held) else row


def _beginning(text: str, cells: int) -> str:
    """As much of `text` as `cells` hold: two letters of a name tell more than an ellipsis."""
    while text and width_of(text) > cells:
        text = text[:-1]
    return text
