"""The breaker: failures of one kind in a row hold the queue, so that one fault does not burn it all.

Pure: `record` gives the next state, and the store keeps it in the transaction that ends the
job, so that a restart keeps both the count and the hold.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from engine.jobs.model import Outcome

TRIP_AT = 3
"""Failures of one kind in a row that hold the queue."""

CLEANED_UP = "cleaned_up"
"""Error code of a job whose worker a person ended under it; never counts either."""
ENGINE_ENDED = "engine_ended"
"""Error code of a job whose engine ended under it; says nothing about the job, so never counts."""

NOT_STARTED = "worker_not_started"
"""Error code of a job for which there was no worker; it stays queued, so only the hold ends the tries."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Breaker:
    """The run of equal failures so far, and the hold when there is one."""

    kind: str | None = None
    """Error code of the newest failures."""
    count: int = 0
    held_reason: str | None = None

    def record(self, outcome: Outcome, error_code: str | None, job_id: int) -> Breaker:
        """The state after job `job_id` ended. A hold stays until `reset`."""
        if outcome == "done":
            return replace(self, kind=None, count=0)
        if outcome == "cancelled" or error_code in (ENGINE_ENDED, CLEANED_UP):
            return self
        kind = error_code or outcome
        count = self.count + 1 if kind == self.kind else 1
        held = self.held_reason
        if count >= TRIP_AT and held is None:
            held = (
                f"no worker could be started {count} times in a row, the last for job {job_id}; see its "
                "error, mend the cause, then resume the queue"
                if kind == NOT_STARTED
                else f"{count} jobs in a row ended with {kind}, the last was job {job_id}; "
                "see its error, mend the cause, then resume the queue"
            )
        return Breaker(kind=kind, count=count, held_reason=held)

    def hold(self, reason: str) -> Breaker:
        """Held for a reason of a person's or the engine's own, until `reset`."""
        return replace(self, held_reason=self.held_reason or reason)

    def reset(self) -> Breaker:
        """Cleared: a person resumed the queue."""
        return Breaker()
