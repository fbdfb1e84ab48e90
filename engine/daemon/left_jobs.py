"""Jobs that an engine before this one left running."""

from __future__ import annotations

from engine.daemon.logbook import LogBook
from engine.jobs.liveness import is_alive
from engine.jobs.store import JobStore


class LeftJobs:
    """Settled at the start, or as soon as the worker of one that still writes is gone."""

    def __init__(self, store: JobStore, logbook: LogBook, *, instance: str) -> None:
        self._store = store
        self._logbook = logbook
        self._instance = instance
        self._unsettled = False

    def settle(self) -> None:
        found = self._store.recover(self._instance, is_alive)
        self._unsettled = bool(found.still_running)
        for job in (*found.done, *found.requeued, *found.interrupted, *found.cancelled):
            text = f"found running at start: now {job.status}" + (f", {job.error}" if job.error else "")
            self._logbook.write("job", text, level="warning", job_id=job.id)

    def look(self) -> None:
        """Once a second."""
        if self._unsettled:
            self.settle()
