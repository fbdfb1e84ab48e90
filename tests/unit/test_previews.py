"""What the daemon keeps of what jobs showed."""

from __future__ import annotations

import base64

import msgspec
import pytest

from engine.daemon.previews import KEPT_JOBS, Previews
from engine.errors import NotFound
from engine.wire import Event, PreviewMade, StageRecord
from engine.worker.channel import JobPreviewed, JobStaged

TEXT = StageRecord(stage="text", elapsed_s=1.0, before_bytes=1, peak_bytes=3, after_bytes=2)


def picture(job_id: int, step: int) -> JobPreviewed:
    return JobPreviewed(job_id=job_id, step=step, steps=4, width=1, height=1, rgb=bytes((step, 0, 0)))


def staged(job_id: int, *ended: StageRecord, current: str | None = None) -> JobStaged:
    return JobStaged(
        job_id=job_id,
        ended=ended,
        current=current,
        current_before_bytes=5,
        shares={"text": 1.0},
        from_last=True,
    )


def test_an_event_names_a_picture_and_carries_none() -> None:
    told: list[Event] = []
    previews = Previews(publish=told.append)
    previews.heard(picture(1, 1))
    previews.heard(picture(1, 2))
    assert told == [PreviewMade(job_id=1, step=1), PreviewMade(job_id=1, step=2)]
    assert base64.b64decode(previews.picture(1, None).rgb) == b"\x02\0\0"
    assert previews.picture(1, 1).step == 1


def test_only_the_last_few_jobs_are_kept() -> None:
    previews = Previews(publish=lambda event: None)
    for job_id in range(1, KEPT_JOBS + 2):
        previews.heard(picture(job_id, 1))
    with pytest.raises(NotFound, match="job 1"):
        previews.picture(1, None)
    assert previews.picture(2, None).job_id == 2


def test_a_job_that_runs_again_shows_nothing_of_its_first_run() -> None:
    previews = Previews(publish=lambda event: None)
    previews.heard(staged(1, current="text"))
    previews.heard(picture(1, 3))
    previews.heard(staged(1, current="text"))
    with pytest.raises(NotFound):
        previews.picture(1, None)


def test_the_stages_say_which_is_measured_and_since_when() -> None:
    previews = Previews(publish=lambda event: None)
    with pytest.raises(NotFound, match="stages of job 1"):
        previews.course(1)
    previews.heard(staged(1, TEXT, current="denoise"))
    course = previews.course(1)
    assert (course.ended, course.current, course.current_before_bytes) == ((TEXT,), "denoise", 5)
    assert course.current_since is not None
    previews.heard(staged(1, TEXT))
    assert previews.course(1).current_since is None


def test_a_job_that_was_cut_off_in_its_first_stage_keeps_what_it_has_shown() -> None:
    previews = Previews(publish=lambda event: None)
    previews.heard(staged(1, current="denoise"))
    previews.heard(picture(1, 1))
    cut = StageRecord(stage="denoise", elapsed_s=1.5, before_bytes=1, peak_bytes=3, after_bytes=2)
    previews.heard(msgspec.structs.replace(staged(1), cut_off=cut))
    assert previews.course(1).cut_off == cut and previews.course(1).current is None
    assert previews.picture(1, None).step == 1
    previews.heard(staged(1, current="text"))
    assert previews.course(1).cut_off is None, "it runs once more"
