"""Files that cross the HTTP edge whole: a job's video out, a first frame in."""

from __future__ import annotations

from dataclasses import dataclass

from engine.wire.base import Wire


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoFile(Wire):
    """A finished video as it lies there, to be fetched from `/jobs/{id}/video`."""

    job_id: int
    path: str
    bytes: int
    sha256: str
    """Of the file."""
    etag: str
    """As the answer's header; a part fetched under another one is of another file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredImage(Wire):
    """An image that was put here, below a folder of the engine's."""

    path: str
    """What a job names as its image."""
    bytes: int
    sha256: str
    width: int
    height: int
