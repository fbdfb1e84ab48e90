"""Owns where everything stands: panel places for a terminal's size, as plain arithmetic."""

from __future__ import annotations

from typing import NamedTuple

LEAST = (60, 18)
"""Columns and lines below which nothing useful fits."""
WIDE = (100, 30)
"""From this size on all panels are in sight at once."""
LARGE_WIDTH = 160
"""From this width on the log has room beside the models, and each column is as high as there is."""
TALL = 44
"""From this height on the memory bar is two rows thick."""
CLOCK_CELLS = 10
"""`14:02:11` and the room around it."""
SHORT_CLOCK_CELLS = 7
READ_ONLY_CELLS = 11
"""What `read-only` takes beside the clock."""
MOST_GRAPH = 26
"""Rows beyond which a graph says no more than a lower one."""


class Place(NamedTuple):
    """A rectangle in cells."""

    x: int
    y: int
    width: int
    height: int


def is_wide(width: int, height: int) -> bool:
    return width >= WIDE[0] and height >= WIDE[1]


def plan(
    width: int, height: int, tab: str, *, banner: bool = False, strip: bool = False, read_only: bool = False
) -> dict[str, Place]:
    """Widget id to its place; what is not named is not shown. Places neither overlap nor leave gaps.

    With `strip` the row below the header is the GPUs', with `banner` the one above the receipt is the
    pressure's; the panels make room for them. With `read_only` the clock has a word beside it.
    """
    if width < LEAST[0] or height < LEAST[1]:
        return {"too_small": Place(0, 0, width, height)}
    wide = is_wide(width, height)
    top = 2 if strip else 1
    bottom = height - (3 if banner else 2)
    clock = (CLOCK_CELLS if wide else SHORT_CLOCK_CELLS) + (READ_ONLY_CELLS if read_only else 0)
    places = {
        "header": Place(0, 0, width - clock, 1),
        "clock": Place(width - clock, 0, clock, 1),
        "receipt": Place(0, height - 2, width, 1),
        "keys": Place(0, height - 1, width, 1),
    }
    if strip:
        places["strip"] = Place(0, 1, width, 1)
    if banner:
        places["pressure"] = Place(0, bottom, width, 1)
    if not wide:
        return places | _narrow(width, top, bottom, tab)
    places["memory"] = Place(0, top, width, 5 if height >= TALL else 4)
    top += places["memory"].height
    return places | (_large if width >= LARGE_WIDTH else _wide)(width, top, bottom)


def _shares(rows: int, least: tuple[int, ...], weights: tuple[int, ...]) -> list[int]:
    """`rows` by weight, each at least its least; the last one takes what rounding leaves."""
    whole = sum(weights)
    found = [max(fewest, round(rows * weight / whole)) for fewest, weight in zip(least, weights, strict=True)]
    found[-1] = rows - sum(found[:-1])
    return found


def _wide(width: int, top: int, bottom: int) -> dict[str, Place]:
    # Graph beside models, queue beside processes, and the log below: 12 : 7 : 10.
    rest = bottom - top
    graph = max(9, min(MOST_GRAPH, round(rest * 12 / 29)))
    queue, log = _shares(rest - graph, (6, 6), (7, 10))
    right = max(44, min(70, round(width * 46 / 120)))
    left = width - right
    return {
        "history": Place(0, top, left, graph),
        "models": Place(left, top, right, graph),
        "queue": Place(0, top + graph, left, queue),
        "card": Place(left, top + graph, right, queue),
        "log": Place(0, top + graph + queue, width, log),
    }


def _large(width: int, top: int, bottom: int) -> dict[str, Place]:
    # What is in lines, which want width, on the left; what is in lists, which want height, on the right.
    rest = bottom - top
    graph = max(9, min(MOST_GRAPH, round(rest * 12 / 34)))
    queue, log = _shares(rest - graph, (6, 6), (10, 12))
    models, card = _shares(rest, (9, 6), (20, 14))
    right = max(60, min(90, round(width * 66 / 200)))
    left = width - right
    return {
        "history": Place(0, top, left, graph),
        "queue": Place(0, top + graph, left, queue),
        "log": Place(0, top + graph + queue, left, log),
        "models": Place(left, top, right, models),
        "card": Place(left, top + models, right, card),
    }


def _narrow(width: int, top: int, bottom: int, tab: str) -> dict[str, Place]:
    # Bar and legend, tabs, the chosen panel, the running job. The log's tail gives way first: a panel
    # of less than nine rows shows too little.
    rest = bottom - top - 4
    tail = max(0, min(5 + max(0, bottom + 2 - 24) // 3, rest - 9)) if tab != "log" else 0
    if tail == 1:
        tail = 0  # its head alone
    middle = rest - tail
    places = {
        "memory": Place(0, top, width, 2),
        "tabs": Place(0, top + 2, width, 1),
        tab: Place(0, top + 3, width, middle),
        "running": Place(0, top + 3 + middle, width, 1),
    }
    if tail:
        places["tail"] = Place(0, top + 4 + middle, width, tail)
    return places
