"""Owns a series of floors and whether it grows, by the same slope as the ledger's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from engine.leaks.slope import Slope, goes_on, slope_of
from engine.wire import Trend
from turbotui.leaklog.words import MIB

LEAST_COUNT = 5
"""Floors that a slope is told of: with fewer, any order of them comes about by chance."""
MOST_COUNT = 200
LEAST_RISE = 256 * MIB
"""Logs are written to a tenth of a GB."""


class Floors:
    """What is left after each job, or each unload, of one run of a program; the longest run's is kept."""

    def __init__(self, over: Literal["jobs", "switches"]) -> None:
        self.over = over
        self.best: list[int] = []
        self._best_rank = (False, 0)
        """Kept, since a slope takes milliseconds and a log may begin a hundred thousand times."""
        self._now: list[int] = []

    def begin(self) -> None:
        """Another run, or another model: its floors are others."""
        if (rank := self._rank(self._now)) > self._best_rank:
            self.best, self._best_rank = self._now, rank
        self._now = []

    def take(self, num_bytes: int) -> None:
        self._now.append(num_bytes)
        del self._now[:-MOST_COUNT]

    def trends(self) -> tuple[Trend, ...]:
        """One where there are any floors."""
        self.begin()
        if len(self.best) < 2:
            return ()
        return (self._trend(self.best),)

    def _rank(self, floors: list[int]) -> tuple[bool, int]:
        """A series that grows tells more than a longer one that does not."""
        return (len(floors) >= LEAST_COUNT and self._trend(floors).grows, len(floors))

    def _trend(self, floors: list[int]) -> Trend:
        count, shown = len(floors), tuple(floors)
        if count < LEAST_COUNT:
            return Trend(what="device", over=self.over, count=count, bytes_each=None, floors=shown)
        slope = slope_of(floors)
        return Trend(
            what="device",
            over=self.over,
            count=count,
            bytes_each=slope.value,
            low=slope.low,
            high=slope.high,
            grows=_rises(floors, slope) and goes_on(floors, pause=LEAST_COUNT, rises=_rises),
            floors=shown,
        )


def _rises(floors: Sequence[float], slope: Slope) -> bool:
    return slope.low > 0 and floors[-1] - floors[0] >= LEAST_RISE
