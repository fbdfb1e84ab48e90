"""Owns where everything stands: panel places for a terminal's size, as plain arithmetic."""

from __future__ import annotations

from typing import NamedTuple

LEAST = (60, 18)
"""Columns and lines below which nothing useful fits."""
WIDE = (100, 30)
"""From this size on all panels are in sight at once."""


class Place(NamedTuple):
    """A rectangle in cells."""

    x: int
    y: int
    width: int
    height: int


def is_wide(width: int, height: int) -> bool:
    return width >= WIDE[0] and height >= WIDE[1]


def plan(width: int, height: int, tab: str, *, banner: bool = False) -> dict[str, Place]:
    """Widget id to its place; what is not named is not shown. Places neither overlap nor leave gaps.

    With `banner` a row above the receipt is the banner's, which the panels make room for.
    """
    if width < LEAST[0] or height < LEAST[1]:
        return {"too_small": Place(0, 0, width, height)}
    rest = height - 1 if banner else height
    places = _wide(width, rest) if is_wide(width, height) else _narrow(width, rest, tab)
    if banner:
        places["pressure"] = Place(0, height - 3, width, 1)
        places |= {name: Place(0, places[name].y + 1, width, 1) for name in ("receipt", "keys")}
    return places


def _wide(width: int, height: int) -> dict[str, Place]:
    # Header, framed bar, receipt and keys are fixed; three rows of panels share the rest as 12 : 7 : 10.
    rest = height - 7
    graph = max(9, round(rest * 12 / 29))
    queue = max(6, round(rest * 7 / 29))
    log = rest - graph - queue
    right = max(44, min(70, round(width * 46 / 120)))
    left = width - right
    y = 5
    return {
        "header": Place(0, 0, width - 21, 1),
        "clock": Place(width - 21, 0, 21, 1),
        "memory": Place(0, 1, width, 4),
        "history": Place(0, y, left, graph),
        "models": Place(left, y, right, graph),
        "queue": Place(0, y + graph, left, queue),
        "card": Place(left, y + graph, right, queue),
        "log": Place(0, y + graph + queue, width, log),
        "receipt": Place(0, height - 2, width, 1),
        "keys": Place(0, height - 1, width, 1),
    }


def _narrow(width: int, height: int, tab: str) -> dict[str, Place]:
    # The log's tail gives way first: a panel of less than nine rows shows too little.
    tail = max(0, min(5 + max(0, height - 24) // 3, height - 7 - 9)) if tab != "log" else 0
    middle = height - 7 - tail
    places = {
        "header": Place(0, 0, width - 18, 1),
        "clock": Place(width - 18, 0, 18, 1),
        "memory": Place(0, 1, width, 2),
        "tabs": Place(0, 3, width, 1),
        tab: Place(0, 4, width, middle),
        "running": Place(0, 4 + middle, width, 1),
        "receipt": Place(0, height - 2, width, 1),
        "keys": Place(0, height - 1, width, 1),
    }
    if tail:
        places["tail"] = Place(0, 5 + middle, width, tail)
    return places
