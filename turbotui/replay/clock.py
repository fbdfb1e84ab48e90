"""Owns the moment of a replay: how recorded time runs, stands and jumps."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class ReplayClock:
    """Recorded time between `since` and `until`, `speed` seconds in each. For any thread."""

    def __init__(
        self, since: float, until: float, *, speed: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.since = since
        self.until = until
        self.speed = speed
        self._monotonic = monotonic
        self._moment = since
        self._told_at = monotonic()
        self._paused = False
        self._jumps = 0
        self._changed = threading.Condition()
        self._told = threading.local()

    @property
    def jumps(self) -> int:
        """How often it jumped: who sees another number than before must begin anew."""
        return self._jumps

    @property
    def paused(self) -> bool:
        return self._paused

    @property
    def over(self) -> bool:
        return self.now() >= self.until

    def now(self) -> float:
        """The moment that is shown, seconds since the epoch."""
        with self._changed:
            return self._now()

    def pause(self, paused: bool) -> None:
        with self._changed:
            self._set(self._now())
            self._paused = paused
            self._changed.notify_all()

    def jump(self, moment: float) -> None:
        """Go on at another moment of the stretch."""
        with self._changed:
            self._set(min(self.until, max(self.since, moment)))
            self._jumps += 1
            self._changed.notify_all()

    def wake(self) -> None:
        """Let whoever waits look again."""
        with self._changed:
            self._changed.notify_all()

    @contextmanager
    def telling(self, at: float) -> Iterator[None]:
        """For this thread it is `at`: what is told late must not be believed to have happened late."""
        self._told.at = at
        try:
            yield
        finally:
            self._told.at = None

    def telling_now(self) -> float:
        """The moment that this thread tells, else the one that is shown."""
        at: float | None = getattr(self._told, "at", None)
        return self.now() if at is None else at

    @staticmethod
    def real() -> float:
        """The time of day outside of the recording."""
        return time.time()

    def wait_until(self, moment: float, *, jumps: int, most_s: float) -> bool:
        """Wait for a moment; False after `most_s`, or at once where it jumped since `jumps`."""
        end = self._monotonic() + most_s
        with self._changed:
            while self._jumps == jumps:
                left = (moment - self._now()) / self.speed
                if left <= 0:
                    return True
                rest = end - self._monotonic()
                if rest <= 0:
                    return False
                stands = self._paused or self._now() >= self.until
                self._changed.wait(rest if stands else min(rest, left))
            return False

    def _now(self) -> float:
        if self._paused:
            return self._moment
        return min(self.until, self._moment + (self._monotonic() - self._told_at) * self.speed)

    def _set(self, moment: float) -> None:
        self._moment = moment
        self._told_at = self._monotonic()
