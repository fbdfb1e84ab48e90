"""What a job may become: the state machine, and the records around a job that never leave the engine.

Everything here is a plain function on plain data; `engine.jobs.store` applies it inside a
transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from engine.errors import NotNow
from engine.wire import Job, JobState

Outcome: TypeAlias = Literal["done", "failed", "cancelled", "interrupted"]

LEGAL: dict[JobState, frozenset[JobState]] = {
    # A waiting job can fail: its model was removed, or nothing could ever make room for it.
    "queued": frozenset({"waiting_memory", "running", "failed", "cancelled"}),
    "waiting_memory": frozenset({"queued", "running", "failed", "cancelled"}),
    "running": frozenset({"done", "failed", "cancelled", "interrupted"}),
    "interrupted": frozenset({"queued"}),
    "failed": frozenset({"queued"}),
    "cancelled": frozenset({"queued"}),
    # What was made stays made: to make it again is another job.
    "done": frozenset(),
}

Action: TypeAlias = Literal["cancel", "hold", "release", "move", "retry", "start", "wait", "end"]

_RULES: dict[Action, tuple[str, str]] = {
    "cancel": ("only waiting or running jobs can be cancelled", "duplicate it to run it again"),
    "hold": ("only waiting jobs can be held", "cancel it if it runs, duplicate it if it has ended"),
    "release": ("only waiting jobs can be released", "retry or duplicate it to queue it again"),
    "move": ("only waiting jobs can be moved", "retry or duplicate it to queue it again"),
    "retry": (
        "only failed, cancelled or interrupted jobs can be retried",
        "use duplicate to run it once more",
    ),
    "start": ("only waiting jobs can be started", "release it if it is held, retry it if it has ended"),
    "wait": ("only waiting jobs can wait for memory", "retry or duplicate it to queue it again"),
    "end": ("this end does not follow from there", "look at it again: somebody else has changed it"),
}

STATE_WORDS: dict[JobState, str] = {
    "queued": "queued",
    "waiting_memory": "waiting for memory",
    "running": "running",
    "done": "done",
    "failed": "failed",
    "cancelled": "cancelled",
    "interrupted": "interrupted",
}


def may_become(state: JobState, target: JobState) -> bool:
    """Whether a job in `state` may go to `target` in one step."""
    return target in LEGAL[state]


def require(job_id: int, state: JobState, target: JobState, action: Action) -> None:
    """Refuse a step that the state machine does not have.

    Raises:
        NotNow: `state` does not lead to `target`.
    """
    if not may_become(state, target):
        raise refusal(job_id, state, action)


def refusal(job_id: int, state: JobState, action: Action, detail: str = "") -> NotNow:
    """The sentence for `action` at the wrong moment."""
    rule, way_out = _RULES[action]
    return NotNow(f"job {job_id} is {STATE_WORDS[state]}{detail}; {rule}; {way_out}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """Who runs an attempt, so that no reused pid or name can pass for it later."""

    instance: str
    """The engine's uuid, new with every start."""
    engine_pid: int
    boot_id: str
    worker_pid: int | None = None
    """None until the worker is known; `JobStore.set_worker` adds it."""
    worker_start_time: float | None = None
    """Seconds since boot."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One start of a job and how it ended."""

    job_id: int
    attempt: int
    owner: Owner
    started_at: float
    output: str
    manifest: str
    ended_at: float | None = None
    outcome: Outcome | None = None
    """None while it runs."""
    error_code: str | None = None
    cause: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Recovery:
    """What an engine found at its start about jobs that another one was running."""

    done: tuple[Job, ...] = ()
    """Finished after all: video and manifest are complete on disk."""
    requeued: tuple[Job, ...] = ()
    interrupted: tuple[Job, ...] = ()
    """Interrupted for the second time; they stay so."""
    cancelled: tuple[Job, ...] = ()
    """Somebody had asked for that before the engine ended."""
    still_running: tuple[Job, ...] = ()
    """Their worker still lives: recover again once it is gone."""
