"""What a person may ask for beside jobs, and the answers that are no receipts."""

from __future__ import annotations

from dataclasses import dataclass

from engine.wire.base import Wire


@dataclass(frozen=True, kw_only=True, slots=True)
class SwitchRequest(Wire):
    """Make `model` the loaded one."""

    model: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CancelRequest(Wire):
    """Give up the switches to `model`, or (None) every switch, or the reload of a cleanup."""

    model: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CancelAsked(Wire):
    """What will be given up; the receipt of each, with the code `cancelled`, says how it ended."""

    targets: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class CleanupRequest(Wire):
    """End the worker, prove that all of it is gone, and put a fresh one in its place."""

    reload: bool = True
    """Load again what was resident."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KillRequest(Wire):
    """End one process that holds a GPU: SIGTERM, and SIGKILL where it has not ended after `grace_s`."""

    pid: int
    start_time: float | None = None
    """As `DeviceProcess` showed it to the person who asks; nothing is sent without it, or to another."""
    other_user: bool = False
    """Also if it is another user's."""
    grace_s: float = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class SpareRequest(Wire):
    """Stop the countdown of a kill: no SIGKILL is sent; SIGTERM is not taken back."""

    pid: int


@dataclass(frozen=True, kw_only=True, slots=True)
class WarmRequest(Wire):
    """Weight files to keep in host memory, or to let go of: a component's, a model's or (None) all."""

    model: str | None = None
    component: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class UnloadRequest(Wire):
    """Give back the weights of a component, of a model, or of all (both None)."""

    model: str | None = None
    component: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheStatus(Wire):
    """The embeddings of earlier prompts, kept on disk."""

    folder: str
    entries: int
    bytes: int
    max_bytes: int
    """The least recently used go beyond it; 0 where none are kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheCleared(Wire):
    """What was removed of the embeddings of earlier prompts."""

    folder: str
    entries: int
    bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class StopRequest(Wire):
    """End the engine; the queue stays on disk."""

    after_job: bool = False
    """Let the running job finish first."""
