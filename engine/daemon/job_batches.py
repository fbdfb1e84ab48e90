"""Many requests at once: told ahead line by line, then queued whole or not at all.

A batch whose answer was lost may be sent again: what it asks for and is there already is not made twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from engine.daemon.job_plans import JobPlan, JobPlans
from engine.daemon.job_requests import JobRequests
from engine.daemon.memory import MemoryView
from engine.daemon.threads import in_thread
from engine.errors import EngineError, InvalidRequest
from engine.jobs.store import JobStore
from engine.planning.image_file import ImageLooks
from engine.units import counted
from engine.wire import (
    BATCH_LIMIT,
    TERMINAL_STATES,
    BatchForecast,
    BatchLine,
    BatchQueued,
    Job,
    JobBatch,
    JobSpec,
)

SAME_S = 3600.0
"""A job that was done longer ago than this was another wish."""
LOOKED_AT = 2 * BATCH_LIMIT
"""Ended jobs among which the same is looked for."""


class JobBatches:
    """Event loop's thread only; images are looked at in another, each once, before anything is decided."""

    def __init__(
        self,
        requests: JobRequests,
        plans: JobPlans,
        memory: MemoryView,
        store: JobStore,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._requests = requests
        self._plans = plans
        self._memory = memory
        self._store = store
        self._now = now

    async def forecast(self, batch: JobBatch) -> BatchForecast:
        """What each request would cost, or why it would be refused."""
        looks = await _look(batch)
        known = {} if batch.again else self._known()
        first: dict[JobSpec, int] = {}
        lines = []
        for number, spec in enumerate(batch.specs, 1):
            try:
                plan = self._admit(spec, looks)
            except EngineError as error:
                lines.append(BatchLine(error=str(error)))
                continue
            wish = _wish(plan)
            earlier = None if batch.again or wish in known else first.setdefault(wish, number)
            lines.append(
                BatchLine(
                    forecast=self._plans.tell(plan),
                    job_id=known.get(wish),
                    same_as=earlier if earlier != number else None,
                )
            )
        new = [line.forecast for line in lines if line.forecast and line.job_id is line.same_as is None]
        times = [told.expected_s for told in new if told.expected_s is not None]
        return BatchForecast(lines=tuple(lines), expected_s=sum(times) if len(times) == len(new) else None)

    async def submit(self, batch: JobBatch) -> BatchQueued:
        """Queue every request, in one transaction.

        Raises:
            Refused: one of its subclasses, naming the first request that cannot be met; nothing is queued.
            NotNow: the queue has no room for all of them, or the engine stops.
        """
        looks = await _look(batch)
        plans = []
        for number, spec in enumerate(batch.specs, 1):
            try:
                plans.append(self._admit(spec, looks))
            except EngineError as error:
                raise type(error)(
                    f"request {number} of {len(batch.specs)}: {error}; none of them was queued"
                ) from error
        if batch.again:
            jobs = self._requests.submit_many(plans)
            return BatchQueued(job_ids=tuple(job.id for job in jobs), queued=len(jobs))
        ids = self._known()
        fresh = {_wish(plan): plan for plan in plans if _wish(plan) not in ids}
        jobs = self._requests.submit_many(list(fresh.values()))
        ids |= {wish: job.id for wish, job in zip(fresh, jobs, strict=True)}
        return BatchQueued(job_ids=tuple(ids[_wish(plan)] for plan in plans), queued=len(jobs))

    def _admit(self, spec: JobSpec, looks: ImageLooks) -> JobPlan:
        plan = self._plans.admit(spec, look=looks.check)
        if (budget := self._memory.budget()) is not None:
            plan.refuse_if_too_large(budget)
        return plan

    def _known(self) -> dict[JobSpec, int]:
        """What waits, runs or was done lately, by what it asks for."""
        since = self._now() - SAME_S
        return {
            replace(job.spec, priority=0): job.id
            for job in self._store.list_jobs(LOOKED_AT)
            if _stands(job, since)
        }


def _wish(plan: JobPlan) -> JobSpec:
    """What is asked for, whenever it is to run."""
    return replace(plan.admitted.spec, priority=0)


def _stands(job: Job, since: float) -> bool:
    if job.status == "done":
        return job.created_at >= since
    return job.status not in TERMINAL_STATES


async def _look(batch: JobBatch) -> ImageLooks:
    """What is to be known of the images of a batch that is not too large."""
    _refuse_size(batch)
    looks = ImageLooks()
    images = [path for spec in batch.specs if spec.image and (path := Path(spec.image)).is_absolute()]
    if images:
        await in_thread(partial(looks.look, images), name="batch-images")
    return looks


def _refuse_size(batch: JobBatch) -> None:
    if not 1 <= len(batch.specs) <= BATCH_LIMIT:
        raise InvalidRequest(
            f"a batch has 1 to {BATCH_LIMIT} requests and this one has "
            f"{counted(len(batch.specs), 'request')}; divide it"
        )
