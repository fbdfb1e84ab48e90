"""Puts each reading of the worker's device between two sets of the worker's counters.

The counters before a reading are those that were there well before it: the driver's own figures
follow a free by some tens of milliseconds, and what was given back just now is still in them. The
counters after it are asked for as soon as it is there. Where memory moved in between, one more
reading is asked for and takes its place; what still moves then is told as moving. Event loop's
thread only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from engine.telemetry.balance import until, why_moving
from engine.telemetry.samples import DeviceReading
from engine.worker.channel import AllocatorSample

COUNTERS_WAIT_S = 0.15
"""A worker that has not answered for so long is busy or gone: what is read is told without it, so that
a process that ended is told of within 250 ms all the same."""
SETTLE_S = 0.05
"""How long the driver's figures may lag behind a free; a 28 GB region was gone from NVML after 33 ms."""
RETRIES = 2
"""More readings for one that memory moved under."""
KEPT = 256
"""Counters that are remembered: more than come within SETTLE_S at the fastest beat."""


class Pairing:
    """For one worker on one device, from its start to its end."""

    def __init__(
        self,
        *,
        told: Callable[[DeviceReading, AllocatorSample | None, AllocatorSample | None], None],
        ask_counters: Callable[[], None],
        ask_reading: Callable[[float], None],
    ) -> None:
        """`told` has each reading with the counters around it, in order; either may be missing.

        `ask_counters` asks the worker for its counters now, `ask_reading` the probe for one more
        reading after so many seconds.
        """
        self._told = told
        self._ask_counters = ask_counters
        self._ask_reading = ask_reading
        self._samples: deque[AllocatorSample] = deque(maxlen=KEPT)
        self._pending: tuple[DeviceReading, AllocatorSample | None] | None = None
        self._asked_at: float | None = None
        """By the reading for which the worker was asked and has not answered."""
        self._retries = RETRIES

    @property
    def latest(self) -> AllocatorSample | None:
        """The newest counters."""
        return self._samples[-1] if self._samples else None

    def read(self, reading: DeviceReading) -> None:
        """A reading came."""
        if not self._samples:
            self._told(reading, None, None)
            return
        if self._asked_at is not None and reading.taken_at - self._asked_at > COUNTERS_WAIT_S:
            # The newest is told: what waited for counters would be old by now.
            self._pending, self._retries = None, RETRIES
            self._told(reading, self._before(reading), None)
            return
        if self._pending is not None:
            return
        self._pending = (reading, self._before(reading))
        after = next((sample for sample in self._samples if sample.taken_at >= reading.taken_at), None)
        if after is not None:
            self._settle(after)
        elif self._asked_at is None:
            # Asked once until it answers: a worker that is stopped must not find thousands of questions.
            self._asked_at = reading.taken_at
            self._ask_counters()

    def counted(self, sample: AllocatorSample) -> None:
        """Counters came."""
        if self._asked_at is not None and sample.taken_at >= self._asked_at:
            self._asked_at = None  # what was on its way already answers nothing
        self._samples.append(sample)
        if self._pending is not None and sample.taken_at >= self._pending[0].taken_at:
            self._settle(sample)

    def _before(self, reading: DeviceReading) -> AllocatorSample | None:
        began_at = reading.taken_at if reading.began_at is None else reading.began_at
        older = (sample for sample in reversed(self._samples) if until(sample) <= began_at - SETTLE_S)
        return next(older, None)

    def _settle(self, after: AllocatorSample) -> None:
        assert self._pending is not None
        reading, before = self._pending
        self._pending = None
        if self._retries and why_moving(reading, before, after) is not None:
            self._retries -= 1
            self._ask_reading(SETTLE_S)
            return
        self._retries = RETRIES
        self._told(reading, before, after)
