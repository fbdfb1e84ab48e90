"""Owns sparklines: a series in one row of cells, each as high as its value."""

from __future__ import annotations

from collections.abc import Sequence

LEVELS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[int], cells: int) -> str:
    """The newest `cells` of `values`, from the lowest to the highest of them; level where all are equal."""
    shown = values[-cells:] if cells > 0 else ()
    if not shown:
        return ""
    low, span = min(shown), max(shown) - min(shown)
    top = len(LEVELS) - 1
    return "".join(LEVELS[(value - low) * top // span if span else 0] for value in shown)
