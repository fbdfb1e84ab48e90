"""Every start of a job as the job store wrote it down."""

from __future__ import annotations

from engine.jobs import rows
from engine.jobs.model import Attempt
from engine.jobs.store import JobStore


def attempts_of(store: JobStore, job_id: int) -> tuple[Attempt, ...]:
    """The oldest first."""
    with store._tables.read():
        found = store._tables.all("SELECT * FROM attempts WHERE job_id = ? ORDER BY attempt", job_id)
    return tuple(rows.to_attempt(row) for row in found)
