"""Jobs with something to see: a clip, latents after a step, stages measured so far."""

from __future__ import annotations

import base64
import subprocess
from dataclasses import replace
from pathlib import Path

import imageio_ffmpeg

from engine.wire import Job, JobCourse, JobPreview, JobSpec, Snapshot, StageRecord
from turbotui.client import scenes

from .conftest import NOW

GIB = 2**30
CLIP_FRAMES = 17


def make_clip(path: Path) -> Path:
    """A bright bar that walks over a dark gradient, 64x36 pixels, 17 frames."""
    frames = bytearray()
    for n in range(CLIP_FRAMES):
        for y in range(36):
            for x in range(64):
                bar = n * 3 <= x < n * 3 + 8
                frames += bytes((240, 200, 60) if bar else (x * 2, 40 + y * 2, 120))
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24"]
    command += ["-s", "64x36", "-r", "16", "-i", "-", "-pix_fmt", "yuv420p", "-crf", "10", str(path)]
    subprocess.run(command, input=bytes(frames), check=True)
    return path


def preview(job_id: int, step: int | None) -> JobPreview:
    """Latents after a step: greener with each."""
    step = 3 if step is None else step
    rgb = bytes(v for y in range(9) for x in range(16) for v in (x * 15, step * 60, y * 25))
    return JobPreview(
        job_id=job_id, step=step, steps=4, width=16, height=9, rgb=base64.b64encode(rgb).decode()
    )


def record(stage: str, took: float, before: float, peak: float, after: float) -> StageRecord:
    return StageRecord(
        stage=stage,
        elapsed_s=took,
        before_bytes=int(before * GIB),
        peak_bytes=int(peak * GIB),
        after_bytes=int(after * GIB),
    )


SHARES = {"text": 0.05, "image": 0.04, "denoise": 0.7, "decode": 0.19, "write": 0.02}


def course(job_id: int) -> JobCourse:
    """The second expert denoises."""
    return JobCourse(
        job_id=job_id,
        ended=(
            record("text", 1.2, 2.1, 12.9, 12.7),
            record("image", 0.9, 12.7, 13.4, 12.9),
            record("denoise dit.high", 9.1, 12.9, 18.2, 13.0),
        ),
        current="denoise dit.low",
        current_since=NOW - 4.2,
        current_before_bytes=int(13.0 * GIB),
        shares=SHARES,
        from_last=True,
    )


def course_at_end(job_id: int) -> JobCourse:
    """All of it, and nothing left behind."""
    more = (record("denoise dit.low", 8.8, 13, 19.1, 13.1), record("write", 0.3, 13.1, 13.1, 2.1))
    return replace(course(job_id), ended=(*course(job_id).ended, *more), current=None, current_since=None)


def done(output: Path) -> Snapshot:
    """One job that has ended, with its video there or not."""
    job = Job(
        id=30,
        spec=JobSpec(
            model="wan2.1-1.3b", prompt="a lighthouse in fog, 海浪拍打礁石", resolution="480p",
            aspect_ratio="16:9", frames=17, steps=4, seed=7,
        ),
        status="done", created_at=NOW - 60, started_at=NOW - 55, finished_at=NOW - 30, attempt=1,
        output=str(output), expected_peak_bytes=int(8.9 * GIB),
    )  # fmt: skip
    return replace(scenes.busy(NOW), jobs=(job,))
