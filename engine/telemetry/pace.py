"""When the next reading is due: ten times a second, at once when asked, faster for a while when asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

SHORTEST_S = 0.002
"""A reading of one device takes a tenth of this."""
LONGEST_HURRY_S = 3600.0


class Beat:
    """One loop's clock: its own thread waits, any thread may ask."""

    def __init__(self, period_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._usual_s = period_s
        self._clock = clock
        self._due = clock()
        # Held but when something was asked. A bare lock wakes its waiter in a quarter of an Event's time.
        self._asked = threading.Lock()
        self._asked.acquire()
        self._hurry: tuple[float, float] | None = None
        """The other period, and until when."""

    def now(self) -> None:
        """The next reading is due at once; the beat goes on as it was."""
        with suppress(RuntimeError):  # it was asked already
            self._asked.release()

    def slow_down(self, period_s: float) -> None:
        """From now on the usual beat is this one."""
        self._usual_s = period_s

    def hurry(self, period_s: float, for_s: float) -> None:
        """Beat at another rate for a while; 0 seconds end it."""
        self._hurry = (
            max(SHORTEST_S, period_s),
            self._clock() + min(max(0.0, for_s), LONGEST_HURRY_S),
        )
        self.now()

    @property
    def period_s(self) -> float:
        hurry = self._hurry
        return hurry[0] if hurry is not None and self._clock() < hurry[1] else self._usual_s

    def wait(self) -> None:
        """Return when the next reading is due; after a long stop the beat starts afresh."""
        now, period_s = self._clock(), self.period_s
        # A beat that became faster must not wait for what was due at the slower one.
        self._due = min(self._due + period_s, now + period_s)
        if self._due < now:
            self._due = now
            return
        if self._asked.acquire(timeout=self._due - now):
            # What was asked for comes between two beats and is none of them.
            self._due -= period_s
