"""The videos that this engine made, as they lie on the disk."""

from __future__ import annotations

from dataclasses import dataclass

from engine.wire.base import Wire


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputVideo(Wire):
    """A video with the manifest of ours that names it."""

    job_id: int
    model: str
    path: str
    manifest: str
    bytes: int
    """Of both files."""
    at: float
    """When it was made or last written, whichever is later; wall clock."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputPart(Wire):
    """What a writer that has ended left of an unfinished video."""

    path: str
    bytes: int
    at: float


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputList(Wire):
    """Everything in the output folders that is surely ours."""

    folders: tuple[str, ...]
    videos: tuple[OutputVideo, ...]
    """Oldest first."""
    parts: tuple[OutputPart, ...]
    others: int
    """Files beside them that no manifest of ours names, which are never touched."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PruneRequest(Wire):
    """Delete videos, manifests and leftovers from before `before`, of those that are surely ours."""

    before: float
    """Wall clock, as it was shown to the person."""
    delete: bool = False
    """False: only say what would go."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PruneResult(Wire):
    """What was deleted, or would be."""

    deleted: bool
    videos: tuple[OutputVideo, ...]
    parts: tuple[OutputPart, ...]
    bytes: int
    problems: tuple[str, ...] = ()
    """What could not be deleted, and why."""
