"""Whether a figure grows: a straight line through readings that lean on each other."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

BLOCKS = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Slope:
    """Growth for each unit of x, and twice its standard error."""

    value: float
    uncertainty: float


def slope_of(points: Sequence[tuple[float, float]], *, blocks: int = BLOCKS) -> Slope:
    """The least-squares line through the medians of `blocks` stretches of `points`, in order of x.

    One reading of memory says little beside the one before it: counted singly, they would claim a
    certainty that they do not have. The stretches are nearly independent.

    Raises:
        ValueError: there are too few points.
    """
    if blocks < 3 or len(points) < blocks:
        raise ValueError(f"a slope needs at least {max(3, blocks)} readings, not {len(points)}")
    size = len(points) / blocks
    pieces = [points[round(place * size) : round((place + 1) * size)] for place in range(blocks)]
    xs = [statistics.fmean(x for x, _y in piece) for piece in pieces]
    ys = [statistics.median(y for _x, y in piece) for piece in pieces]
    line = statistics.linear_regression(xs, ys)
    middle = statistics.fmean(xs)
    spread = sum((x - middle) ** 2 for x in xs)
    rest = sum((y - line.intercept - line.slope * x) ** 2 for x, y in zip(xs, ys, strict=True))
    return Slope(value=line.slope, uncertainty=2 * math.sqrt(rest / (blocks - 2) / spread))
