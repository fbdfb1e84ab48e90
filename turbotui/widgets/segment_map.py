"""Draws what the allocator took from the driver as a map of cells, in the patterns of the theme."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

from turbotui.format import bytes_text, short_bytes
from turbotui.text import t
from turbotui.theme import GLYPHS
from turbotui.widgets.lines import Row, View, width_of, wrapped

if TYPE_CHECKING:
    from rich.style import Style

    from engine.wire import Segment
    from turbotui.theme import Paint

State: TypeAlias = Literal["live", "awaiting", "fragmented", "cache"]
STATES: tuple[State, ...] = ("live", "awaiting", "fragmented", "cache")
"""The first one names a cell where several share it alike."""
BETWEEN = "│"
LEAST_CELLS = 3
"""A segment of fewer has no line before it: many small ones would be lines alone."""
AWAITING = "~"
"""Of the memory's parts it is live; here it is told apart."""


def block_states(segment: Segment) -> Iterator[tuple[State, int]]:
    """Each block in order. What is free beside something live cannot be given back: it is fragmented."""
    torn = any(state != "free" for state, _bytes in segment.blocks)
    for state, num_bytes in segment.blocks:
        yield ("fragmented" if torn else "cache") if state == "free" else state, num_bytes


def sums(segments: Sequence[Segment]) -> dict[State, int]:
    """Bytes by state."""
    found: Counter[State] = Counter()
    for segment in segments:
        for state, num_bytes in block_states(segment):
            found[state] += num_bytes
    return {state: found[state] for state in STATES if found[state]}


def map_rows(view: View, segments: Sequence[Segment], width: int, height: int) -> list[Row]:
    """The map in at most `height` rows, with what each pattern is and how much a cell."""
    paint = view.paint
    if not segments:
        return [Row(width).add(line, paint.muted) for line in wrapped(t("leaks.no_segments"), width)]
    total = sum(segment.bytes for segment in segments)
    head = t("leaks.segments_of", bytes=bytes_text(total), count=len(segments))
    rows = [Row(width).add(head, paint.muted)]
    legend = _legend(view, sums(segments), width)
    room = max(1, height - 1 - len(legend))
    # The largest first: what can be given back whole stands together, and small ones at the end.
    ordered = sorted(segments, key=lambda segment: -segment.bytes)
    cells = list(_cells(ordered, total, width * room))[: width * room]
    for start in range(0, len(cells), width):
        row = Row(width)
        for state in cells[start : start + width]:
            row.add(*(look(paint, state) if state is not None else (BETWEEN, paint.faint)))
        rows.append(row)
    return (rows + legend)[: max(3, height)]


def _legend(view: View, held: dict[State, int], width: int) -> list[Row]:
    """What each pattern is, in as many rows as that takes."""
    rows = [Row(width)]
    for state, num_bytes in held.items():
        glyph, style = look(view.paint, state)
        name = f" {t(f'leaks.state_{state}')} {short_bytes(num_bytes)}  "
        if width_of(name) + 1 > rows[-1].left and rows[-1].cells:
            rows.append(Row(width))
        rows[-1].add(glyph, style).add(name, view.paint.text)
    return rows


def look(paint: Paint, state: State) -> tuple[str, Style]:
    """The pattern and colour of a state: those of the memory's bar."""
    if state == "awaiting":
        return AWAITING, paint.part["live"]
    return GLYPHS[state], paint.part[state]


def _cells(segments: Sequence[Segment], total: int, count: int) -> Iterator[State | None]:
    """What is in each of at most `count` cells: the state that has most of it; None between two segments."""
    each = max(1, -(-total // max(1, count)))
    lined = sum(segment.bytes >= LEAST_CELLS * each for segment in segments)
    if lined * 4 > count:
        lined = 0
    # A line takes a cell, and the last one before it may not be full.
    each = max(1, -(-total // max(1, count - 2 * lined)))
    shares: Counter[State] = Counter()
    filled = 0
    for place, segment in enumerate(segments):
        if place and lined and segment.bytes >= LEAST_CELLS * each:
            if filled:
                yield _most(shares)
                shares.clear()
                filled = 0
            yield None
        for state, left in block_states(segment):
            while left:
                part = min(left, each - filled)
                shares[state] += part
                filled += part
                left -= part
                if filled == each:
                    yield _most(shares)
                    shares.clear()
                    filled = 0
    if filled:
        yield _most(shares)


def _most(shares: Counter[State]) -> State:
    return max(STATES, key=lambda state: shares[state])
