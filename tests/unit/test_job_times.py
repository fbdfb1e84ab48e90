"""What done jobs say of the next one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from engine.daemon.job_times import FARTHEST, NEWEST, Expected, JobTimes
from engine.models.model import Model
from engine.planning.admission import Admitted
from engine.wire import Job, JobChanged, JobSpec, JobState
from tests.unit.test_admission import T2V, check


def done(took_s: float, *, status: JobState = "done", model: Model = T2V, **fields: int) -> Job:
    shape = {"frames": 5, "steps": 1, **fields}
    spec = JobSpec(model=model.name, prompt="x", resolution="80p", aspect_ratio="16:10", **shape)
    return Job(id=1, spec=spec, status=status, created_at=0.0, started_at=10.0, finished_at=10.0 + took_s)


@pytest.fixture
def wanted(tmp_path: Path) -> Admitted:
    return check(tmp_path, frames=5, steps=1)


def test_no_job_no_time(wanted: Admitted) -> None:
    failed = [done(3.0, status=status) for status in ("failed", "cancelled", "running", "interrupted")]
    assert JobTimes(failed).expect(T2V, wanted) is None
    assert JobTimes([done(-5.0)]).expect(T2V, wanted) is None, "a wall clock that was set back"


def test_the_newest_alike_decide_and_one_slow_start_does_not(wanted: Admitted) -> None:
    times = JobTimes([done(100.0)] * NEWEST)
    for took in (2.0, 2.0, 30.0, 2.0, 2.0):
        times.hear(JobChanged(job=done(took)))
    told = times.expect(T2V, wanted)
    assert told is not None and (told.seconds, told.exact) == (2.0, True)


def test_another_size_is_scaled_by_its_work_and_said_to_be(wanted: Admitted, tmp_path: Path) -> None:
    times = JobTimes([done(2.0)])
    told = times.expect(T2V, check(tmp_path, frames=5, steps=3))
    assert told is not None and (told.seconds, told.exact) == (pytest.approx(6.0), False)
    # Too far away says nothing.
    far = check(tmp_path, resolution="112p", aspect_ratio="1:1", frames=33, steps=4)
    assert FARTHEST == 8.0 and times.expect(T2V, far) is None


def test_a_size_that_the_model_no_longer_has_is_passed_over(wanted: Admitted) -> None:
    spec = JobSpec(model="toy", prompt="x", resolution="gone", aspect_ratio="1:1", frames=5, steps=1)
    job = Job(id=1, spec=spec, status="done", created_at=0.0, started_at=1.0, finished_at=2.0)
    assert JobTimes([job]).expect(T2V, wanted) is None


def test_jobs_that_attended_otherwise_say_nothing(wanted: Admitted) -> None:
    asked = done(2.0)
    for attention, topk in (("sla", 0.1), ("sla", 0.5), ("sagesla", 0.1)):
        spec = replace(asked.spec, attention=attention, sla_topk=topk)
        times = JobTimes([asked, replace(asked, spec=spec, finished_at=17.0)])
        assert times.expect(T2V, wanted) == Expected(seconds=2.0, exact=True)
        sparse = replace(wanted, attention=attention, sla_topk=topk)
        assert times.expect(T2V, sparse) == Expected(seconds=7.0, exact=True)
        assert JobTimes([asked]).expect(T2V, sparse) is None
