"""The slope of a series with outliers and steps in it, and how far it can be trusted.

Source: P. K. Sen, Estimates of the regression coefficient based on Kendall's tau (1968).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import TypeAlias

NORMAL_95 = 1.959964
"""Half width of the middle 95 % of the normal distribution, in standard deviations."""
STEPS = 8
"""Into which a rise is cut, to see when the newest values reached the last of them."""
CALM = 2
"""Neighbours on each side whose median a value is taken for: two that are off do not make a step."""
PAUSES = 2
"""Times the longest of these steps: a rise that has stood still for longer has ended."""
LEAST_SINCE = 24
"""Values after a rise that has ended by which a slower one is told from the end of what fills."""
STEADY = 0.8
"""Of the slope that a series had in its first half: what fills has less in its second."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Slope:
    """Of a series by its index; the interval holds the true one 95 times in a hundred."""

    value: float
    low: float
    high: float


Rises: TypeAlias = Callable[[Sequence[float], Slope], bool]
"""Whether a series with this slope rises by more than noise."""


def slope_of(values: Sequence[float]) -> Slope:
    """The median of the slopes of all pairs; one step, or a third of outliers, does not move it.

    Takes time in the square of their number: 10 ms for 200.

    Raises:
        ValueError: fewer than three values.
    """
    count = len(values)
    if count < 3:
        raise ValueError(f"a slope with its uncertainty takes three values, not {count}")
    slopes = sorted(
        (values[late] - values[early]) / (late - early)
        for early in range(count)
        for late in range(early + 1, count)
    )
    pairs = len(slopes)
    # Of Kendall's statistic, where equal values say nothing.
    variance = count * (count - 1) * (2 * count + 5) - sum(
        ties * (ties - 1) * (2 * ties + 5) for ties in Counter(values).values()
    )
    reach = NORMAL_95 * math.sqrt(max(0, variance) / 18)
    first = max(0, math.floor((pairs - reach) / 2))
    last = min(pairs - 1, math.ceil((pairs + reach) / 2))
    middle = pairs // 2
    value = slopes[middle] if pairs % 2 else (slopes[middle - 1] + slopes[middle]) / 2
    return Slope(value=value, low=slopes[first], high=slopes[last])


def goes_on(values: Sequence[float], *, pause: int, rises: Rises) -> bool:
    """Whether what rose still rises; it may stand still for `pause` values in any case.

    A cache that has filled does not, though its slope stays for long. What leaks now and then stands still
    as well, but for no longer than it did before. A slow leak after a cache has filled `rises` by itself
    since then, and steadily.
    """
    ended = _ended_at(values, pause=pause)
    if ended is None:
        return True
    since = values[ended:]
    return len(since) >= LEAST_SINCE and rises(since, slope_of(since)) and _is_steady(since)


def _ended_at(values: Sequence[float], *, pause: int) -> int | None:
    """Where most of the rise was over, of one that has ended; None of any other."""
    calm = [median(values[max(0, place - CALM) : place + CALM + 1]) for place in range(len(values))]
    rise, reached = max(calm) - calm[0], [0]
    for step in range(1, STEPS):
        level = calm[0] + rise * step / STEPS
        reached.append(next(place for place, value in enumerate(calm) if value >= level))
    longest = max(late - early for early, late in pairwise(reached))
    return None if len(calm) - 1 - reached[-1] <= max(pause, PAUSES * longest) else reached[-1]


def _is_steady(values: Sequence[float]) -> bool:
    """Whether its second half rises like its first, as a leak does and what fills does not."""
    half = len(values) // 2
    return slope_of(values[half:]).value >= STEADY * slope_of(values[:half]).value
