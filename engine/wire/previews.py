"""What a running job shows of itself: pictures of its latents, and its stages as they pass."""

from __future__ import annotations

from dataclasses import dataclass

from engine.wire.base import Wire
from engine.wire.jobs import StageRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class JobPreview(Wire):
    """The middle frame of a job's latents as the sampler expects them to end, after one of its steps."""

    job_id: int
    step: int
    """From 1."""
    steps: int
    width: int
    """Pixels, one for each latent column: an eighth of the video's."""
    height: int
    rgb: str
    """Base64 of width x height x 3 bytes, row by row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobCourse(Wire):
    """The stages of a job that runs or has run lately, measured so far."""

    job_id: int
    ended: tuple[StageRecord, ...]
    """In the order in which they ended."""
    current: str | None
    """The line that is being measured, named as in `ended`; None between two and at the end."""
    current_since: float | None
    """Wall clock."""
    current_before_bytes: int | None
    shares: dict[str, float]
    """Stage to its expected part of the job's time, in the order of the stages."""
    from_last: bool
    """Whether those are what the last job of this shape took, or a typical one."""
    cut_off: StageRecord | None = None
    """The stage in which it was cancelled or failed, as far as it came."""
