"""The job that the worker runs, from its message to its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from engine.daemon.answers import fail
from engine.daemon.worker import WorkerProcess
from engine.errors import WorkerDied
from engine.wire import JobProgress
from engine.worker.channel import CancelJob, JobEnded, JobProgressed

CANCEL_AGAIN_S = 3.0
"""A second cancel before this is a person's double key, not a wish to end the worker."""


class WorkerJob:
    """At most one at a time. Event loop's thread only."""

    def __init__(self, *, on_progress: Callable[[int, JobProgress], None]) -> None:
        self._on_progress = on_progress
        self.id: int | None = None
        self._answer: asyncio.Future[JobEnded] | None = None
        self._cancelled_at: float | None = None
        self._taken = False

    def begin(self, job_id: int) -> asyncio.Future[JobEnded]:
        """What its end will be told by; whoever begins a job ends it, too."""
        self.id, self._cancelled_at, self._taken = job_id, None, False
        self._answer = asyncio.get_running_loop().create_future()
        return self._answer

    def end(self) -> None:
        self.id = self._answer = self._cancelled_at = None

    def cancel(self, worker: WorkerProcess, job_id: int) -> None:
        """Ask the worker to stop this job at its next step; asked again after a while, end the worker."""
        if self.id != job_id:
            return
        now = time.monotonic()
        if self._cancelled_at is None:
            self._cancelled_at = now
            worker.send(CancelJob(job_id=job_id))
        elif now - self._cancelled_at > CANCEL_AGAIN_S:
            worker.kill(f"job {job_id} was cancelled twice and did not stop")

    @property
    def untaken(self) -> bool:
        """Whether it was handed over and the worker has not begun it, which it tells at once."""
        return self._answer is not None and not self._taken

    @property
    def cancelled_for_s(self) -> float:
        """Seconds since it was cancelled; 0 where it was not."""
        return 0.0 if self._cancelled_at is None else time.monotonic() - self._cancelled_at

    def heard(self, message: JobProgressed | JobEnded) -> None:
        self._taken = self._taken or message.job_id == self.id
        if isinstance(message, JobProgressed):
            self._on_progress(
                message.job_id,
                JobProgress(
                    stage=message.stage,
                    step=message.step,
                    steps=message.steps,
                    fraction=message.fraction,
                    eta_s=message.eta_s,
                    peak_bytes=message.peak_bytes,
                ),
            )
        elif self._answer is not None and self.id == message.job_id and not self._answer.done():
            self._answer.set_result(message)

    def worker_died(self, died: WorkerDied) -> None:
        if self._answer is not None:
            fail(self._answer, died)
