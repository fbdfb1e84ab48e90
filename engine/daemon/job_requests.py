"""What requests about jobs and the queue ask: written to the store, told to the viewers, and run in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.daemon.events import EventHub
from engine.daemon.job_plans import JobPlan, JobPlans
from engine.daemon.life import Life
from engine.daemon.logbook import LogBook
from engine.daemon.memory import MemoryView
from engine.daemon.queue import QueueRunner
from engine.jobs.store import JobStore
from engine.units import counted
from engine.wire import Job, JobChanged, JobMove, JobSpec, JobsReordered, QueueStatus


class JobRequests:
    """Each gives the job as it is then. Event loop's thread only."""

    def __init__(
        self,
        store: JobStore,
        queue: QueueRunner,
        plans: JobPlans,
        memory: MemoryView,
        life: Life,
        hub: EventHub,
        logbook: LogBook,
        *,
        on_queue: Callable[[], None],
    ) -> None:
        """`on_queue` runs when the queue has changed."""
        self._store = store
        self._queue = queue
        self._plans = plans
        self._memory = memory
        self._life = life
        self._hub = hub
        self._logbook = logbook
        self._on_queue = on_queue

    def list(self, *, all: bool) -> list[Job]:
        return [self._queue.view(job) for job in self._store.list_jobs(None if all else 50)]

    def get(self, job_id: int) -> Job:
        return self._queue.view(self._store.get(job_id))

    def submit(self, spec: JobSpec) -> Job:
        """Queue a request that could be met; every mistake that can be known now is refused now."""
        self._life.refuse_when_stopping()
        plan = self._plans.admit(spec)
        if (budget := self._memory.budget()) is not None:
            plan.refuse_if_too_large(budget)
        job = self._store.submit(plan.admitted.spec, plan.footprint.peak_bytes, plan.runs)
        size = f"{plan.admitted.width}x{plan.admitted.height}"
        self._logbook.write("job", f"queued: {spec.model}, {size}", job_id=job.id)
        if plan.runs is not None and plan.runs.reason is not None:
            self._logbook.write("job", f"runs as {plan.runs.model}: {plan.runs.reason}", job_id=job.id)
        return self._announce(job)

    def submit_many(self, plans: Sequence[JobPlan]) -> tuple[Job, ...]:
        """Queue requests that were found good, all of them or none."""
        self._life.refuse_when_stopping()
        jobs = self._store.submit_many(
            [(plan.admitted.spec, plan.footprint.peak_bytes, plan.runs) for plan in plans]
        )
        if jobs:
            self._logbook.write("job", f"queued: {counted(len(jobs), 'job')} at once, from {jobs[0].id}")
        return tuple(self._announce(job) for job in jobs)

    def cancel(self, job_id: int) -> Job:
        job = self._store.cancel(job_id)
        self._queue.cancel_running(job_id)
        return self._announce(job)

    def retry(self, job_id: int) -> Job:
        self._life.refuse_when_stopping()
        return self._announce(self._store.retry(job_id))

    def duplicate(self, job_id: int) -> Job:
        self._life.refuse_when_stopping()
        return self._announce(self._store.duplicate(job_id))

    def hold(self, job_id: int) -> Job:
        return self._announce(self._store.hold(job_id))

    def release(self, job_id: int) -> Job:
        return self._announce(self._store.release(job_id))

    def move(self, job_id: int, move: JobMove) -> Job:
        job = self._announce(self._store.move(job_id, move))
        self._hub.publish(JobsReordered(job_ids=tuple(waiting.id for waiting in self._store.list_waiting())))
        return job

    def hold_queue(self, reason: str) -> str | None:
        """Start no job until a person resumes the queue; what of it is still to be written down, or None."""
        unwritten = self._queue.hold(reason)
        self._logbook.write("queue", f"held: {reason}", level="warning")
        self._on_queue()
        return unwritten

    def resume_queue(self) -> QueueStatus:
        self._queue.resume()
        self._logbook.write("queue", "resumed")
        self._queue.wake()
        self._on_queue()
        return self._queue.status()

    def _announce(self, job: Job) -> Job:
        job = self._queue.view(job)
        self._hub.publish(JobChanged(job=job))
        self._queue.wake()
        self._on_queue()
        return job
