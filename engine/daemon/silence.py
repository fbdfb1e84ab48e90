"""For how long a process has said nothing, as far as this one could have heard it."""

from __future__ import annotations

import time
from collections.abc import Callable

MOST_A_LOOK_S = 2.0
"""What one look adds at most: looks come once a second, and a gap beyond that was the loop's own."""


class Silence:
    """Counts in looks of the event loop, not by the clock alone. Event loop's thread only.

    What a process says waits while the loop does something else, so the loop that comes back after
    11 s knows nothing of them: it counts them as one look, and what has arrived gets its turn before
    the next.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.seconds = 0.0
        """As of the last look."""
        self._looked_at = clock()

    def heard(self) -> None:
        """It spoke, or is expected to speak only from now on."""
        self.seconds, self._looked_at = 0.0, self._clock()

    def look(self) -> float:
        """Look again; the seconds of silence by now."""
        now = self._clock()
        self.seconds += min(now - self._looked_at, MOST_A_LOOK_S)
        self._looked_at = now
        return self.seconds
