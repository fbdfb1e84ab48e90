"""Back to the baseline in one action: what it would do, and what is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from engine.wire.base import Wire
from engine.wire.memory import DeviceProcess
from engine.wire.requests import KillRequest
from engine.wire.reset import ResetRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class CleanupCandidate(Wire):
    """A process on a GPU that is not this engine's."""

    process: DeviceProcess
    device_ids: tuple[str, ...]
    bytes: int | None
    """On all of them."""
    mine: bool
    """Of the user whose engine this is."""
    refusal: str | None = None
    """Why it would not be ended, or None."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FullCleanupPlan(Wire):
    """What a full cleanup would do now."""

    worker_pid: int | None
    worker_bytes: int | None
    """What comes back by the worker's end."""
    job_id: int | None
    """Of the running job, which is interrupted."""
    waiting: int
    """Jobs that wait: the queue is held, or the next one would load its model at once."""
    nursery_pid: int | None
    nursery_bytes: int | None
    candidates: tuple[CleanupCandidate, ...]
    device_id: str | None
    """The device in use, which `reset` would mean."""
    videos: int
    videos_bytes: int
    logs: int
    logs_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class FullCleanupRequest(Wire):
    """End everything of ours, and what the person picked; nothing is deleted."""

    also: tuple[KillRequest, ...] = ()
    """Processes that the person picked, as they were shown to him."""
    reset: ResetRequest | None = None
    """And reset this GPU after."""
    move_outputs: str | None = None
    """Move videos and manifests into a new folder below this one."""
    move_logs: str | None = None
    """And logs, but the audit's."""
