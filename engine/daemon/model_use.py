"""Which model was asked for last, and when each was used."""

from __future__ import annotations

import time
from collections.abc import Iterable

from engine.wire import Job


class ModelUse:
    """By models' names. Event loop's thread only."""

    def __init__(self, jobs: Iterable[Job] = ()) -> None:
        """`jobs`, oldest first, are from before, so that "the one before" still means something."""
        self.active: str | None = None
        """Asked for last, by a job or a switch."""
        self._last_used = {job.model: job.finished_at for job in jobs if job.finished_at is not None}

    def asked(self, name: str) -> None:
        """A job with it began, or it was switched to."""
        self.active = name
        self.used(name)

    def used(self, name: str) -> None:
        """A job with it ended."""
        self._last_used[name] = time.time()

    def last_used_at(self, name: str) -> float | None:
        """By the wall clock; None where it never was."""
        return self._last_used.get(name)
