"""Watches over a worker that says nothing: what is told of it, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable

from engine.daemon.logbook import Level, LogBook
from engine.daemon.pending_actions import PendingActions
from engine.daemon.silence import Silence
from engine.daemon.worker import WorkerProcess
from engine.daemon.worker_job import WorkerJob
from engine.errors import WorkerDied, WorkerNotStarted

SILENT_S = 10.0
"""A worker speaks 10 times a second; one that is silent for so long is stopped or hangs."""
START_S = 60.0
"""What a forked worker gets until it is ready. A context takes 0.2 s; where no daemon keeps the driver
initialised, a host with 8 GPUs takes up to half a minute, which a kill would only begin anew."""
SLOW_START_S = 240.0
"""What one gets that has to import everything itself: 12 to 20 s, minutes from a network disk."""
MOST_START_S = 2.0
"""Times that limit: what a start gets that says something now and then and does not come to its end."""
DIES_S = 2.0
"""What one that was ended gets to be gone, and with it its last words; in a driver's call it may stay."""
TAKES_S = 60.0
"""What a worker gets to begin a job that it was handed. It tells that it does within milliseconds, in the
worst case after a library was loaded; one that does not has lost the thread that listens, or works."""
SHOWN_START_S = 15.0
"""A worker that starts is shown as silent after this long, one that imports everything after 4 times that."""
SHOWN_SILENT_S = 3.0
"""A worker is shown as silent after this long: more than any pause of a healthy one."""


class SilenceWatch:
    """Over one worker at a time. Event loop's thread only."""

    def __init__(
        self, job: WorkerJob, pending: PendingActions, logbook: LogBook, *, on_change: Callable[[], None]
    ) -> None:
        self._job = job
        self._pending = pending
        self._logbook = logbook
        self._on_change = on_change
        self._silence = Silence()
        self._start = Silence()
        self._untaken = Silence()
        self.shown = False
        """Whether the worker is shown as silent."""
        self._ended = False
        """Whether one that hung in its start was ended."""

    def began(self) -> None:
        """A fresh worker is watched from now on."""
        self._silence.heard()
        self._start.heard()
        self._untaken.heard()  # what the one before did not begin
        self.shown = self._ended = False

    def heard(self, worker: WorkerProcess) -> None:
        """It spoke."""
        self._silence.heard()
        if self.shown:
            self.shown = False
            self._tell(worker, "speaks again", level="info")

    def look(self, worker: WorkerProcess | None, *, starting: bool, stopping: bool) -> WorkerDied | None:
        """Called once a second: what a silent worker was asked for fails, and one told to stop ends.

        The death of a worker that hung before it was ready and was ended. It is not waited for: in a
        driver's call it may not die.
        """
        silent_s, start_s = self._silence.look(), self._start.look()
        if worker is None:
            return None
        if starting:
            return None if stopping else self._look_at_start(worker, silent_s, start_s)
        self._look_at_job(worker)
        if silent_s >= SHOWN_SILENT_S and not self.shown:
            self.shown = True
            self._tell(worker, f"says nothing, for {silent_s:.0f} s by now", level="warning")
        if silent_s >= SILENT_S:
            if self._job.cancelled_for_s >= SILENT_S:
                worker.kill(f"it was silent for {silent_s:.0f} s after a cancel")
            self._pending.worker_silent(silent_s)
        return None

    def _look_at_start(self, worker: WorkerProcess, silent_s: float, start_s: float) -> WorkerDied | None:
        limit_s, shown_s = START_S, SHOWN_START_S
        if not worker.forked:
            limit_s, shown_s = SLOW_START_S, SHOWN_START_S * 4
        late = start_s >= limit_s * MOST_START_S
        if silent_s >= shown_s and not self.shown:
            self.shown = True
            self._tell(worker, f"is not ready and has said nothing, for {silent_s:.0f} s", level="warning")
        if silent_s < limit_s and not late:
            return None
        waited_s = start_s if late else limit_s
        if not self._ended:
            self._ended = True
            worker.kill(
                f"it said nothing for {limit_s:.0f} s and was not ready"
                if silent_s >= limit_s
                else f"it was not ready after {start_s:.0f} s"
            )
            self._logbook.write(
                "worker", f"worker {worker.pid} hangs in its start and is ended", level="error"
            )
        if silent_s < limit_s + DIES_S and start_s < limit_s * MOST_START_S + DIES_S:
            return None  # its end tells more
        return WorkerNotStarted(
            f"worker {worker.pid} was not ready after {waited_s:.0f} s and was ended; ask again, and where "
            "that ends the same way look whether the device answers (`nvidia-smi`)"
        )

    def _look_at_job(self, worker: WorkerProcess) -> None:
        # A load that nobody waits for any more is still before the job, and may take minutes.
        if not self._job.untaken or self._pending.loads_late:
            self._untaken.heard()
        elif self._untaken.look() >= TAKES_S:
            worker.kill(f"it was handed job {self._job.id} and has not begun it for {TAKES_S:.0f} s")

    def _tell(self, worker: WorkerProcess, text: str, *, level: Level) -> None:
        self._logbook.write("worker", f"worker {worker.pid} {text}", level=level)
        self._on_change()
