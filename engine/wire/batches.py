"""Many requests at once: what they would cost, and what became of each."""

from __future__ import annotations

from dataclasses import dataclass

from engine.wire.base import Wire
from engine.wire.jobs import JobForecast, JobSpec

BATCH_LIMIT = 1000
"""Requests in one batch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobBatch(Wire):
    """Requests that are queued together or not at all."""

    specs: tuple[JobSpec, ...]
    again: bool = False
    """Queue also what waits, runs or was done within the last hour already. Without it a batch may be
    sent once more after its answer was lost."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchLine(Wire):
    """One request of a batch: exactly one of `forecast` and `error` is there."""

    forecast: JobForecast | None = None
    error: str | None = None
    """Why it would be refused, with the way out."""
    job_id: int | None = None
    """A job that asks for exactly the same, and would be taken for this one unless `again` is given."""
    same_as: int | None = None
    """The number from 1 of an earlier request of this batch that asks for the same, in the same way."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchForecast(Wire):
    """What a batch would cost if it were queued now."""

    lines: tuple[BatchLine, ...]
    """As many as requests, in their order."""
    expected_s: float | None = None
    """Of all that would be queued; None where it is not known of each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchQueued(Wire):
    """A batch that was queued whole."""

    job_ids: tuple[int, ...]
    """The job of each request, in their order."""
    queued: int
    """How many of them are new."""
