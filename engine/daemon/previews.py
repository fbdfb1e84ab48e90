"""What jobs have shown of themselves: the running one and the last few. Event loop's thread only."""

from __future__ import annotations

import base64
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from engine.errors import NotFound
from engine.wire import Event, JobCourse, JobPreview, PreviewMade
from engine.worker.channel import JobPreviewed, JobStaged

KEPT_JOBS = 4
"""With four pictures of at most 75 KiB each, 1.2 MiB."""


@dataclass(kw_only=True, slots=True)
class _Shown:
    """One job's."""

    pictures: dict[int, JobPreview] = field(default_factory=dict)
    course: JobCourse | None = None


class Previews:
    """Keeps them in memory alone: they are worth nothing once the video is there."""

    def __init__(self, *, publish: Callable[[Event], None]) -> None:
        self._publish = publish
        self._jobs: OrderedDict[int, _Shown] = OrderedDict()

    def heard(self, message: JobPreviewed | JobStaged) -> None:
        """A worker's word."""
        shown = self._of(message.job_id)
        if isinstance(message, JobPreviewed):
            shown.pictures[message.step] = JobPreview(
                job_id=message.job_id,
                step=message.step,
                steps=message.steps,
                width=message.width,
                height=message.height,
                rgb=base64.b64encode(message.rgb).decode(),
            )
            self._publish(PreviewMade(job_id=message.job_id, step=message.step))
            return
        if not message.ended and message.cut_off is None:  # the job begins, maybe once more
            shown.pictures.clear()
        shown.course = JobCourse(
            job_id=message.job_id,
            ended=message.ended,
            current=message.current,
            current_since=None if message.current is None else time.time(),
            current_before_bytes=message.current_before_bytes,
            shares=message.shares,
            from_last=message.from_last,
            cut_off=message.cut_off,
        )

    def picture(self, job_id: int, step: int | None) -> JobPreview:
        """The picture after `step`, the newest one for None.

        Raises:
            NotFound: there is none, or none any more.
        """
        pictures = self._jobs[job_id].pictures if job_id in self._jobs else {}
        found = pictures.get(max(pictures, default=0) if step is None else step)
        if found is None:
            raise NotFound(
                f"there is no preview of job {job_id}{'' if step is None else f' after step {step}'}"
            )
        return found

    def course(self, job_id: int) -> JobCourse:
        """The stages so far.

        Raises:
            NotFound: it has not begun one, or it is too long ago.
        """
        course = self._jobs[job_id].course if job_id in self._jobs else None
        if course is None:
            raise NotFound(f"nothing is known of the stages of job {job_id}; its manifest has them")
        return course

    def _of(self, job_id: int) -> _Shown:
        if job_id not in self._jobs:
            self._jobs[job_id] = _Shown()
            while len(self._jobs) > KEPT_JOBS:
                self._jobs.popitem(last=False)
        return self._jobs[job_id]
