"""What looks like a leak and is none: no verdict may call it one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from engine.wire import JobSpec, MarkRequest, SinceMark, SwitchRequest
from tests.leaks.field import LARGE, SHORT, Field, leaks, line_of
from tests.leaks.harvest import explained


def assert_clean(field: Field) -> None:
    report = field.report()
    assert report.objects > 0 and not [text for text in report.unknown if "the worker" in text], (
        report.unknown
    )
    assert leaks(report) == [], explained(report)


@pytest.fixture(autouse=True)
def fresh(field: Field) -> None:
    """A worker of the test's own."""
    field.fresh_worker()


def test_a_worker_that_warms_up_with_its_first_jobs(field: Field) -> None:
    assert_clean(field)
    field.grow(jobs=1)
    assert_clean(field)


def test_what_a_large_job_leaves_behind_for_the_next_one(field: Field) -> None:
    assert [job.status for job in field.grow(spec=LARGE)] == ["done"]
    assert_clean(field)


def test_jobs_of_sizes_that_alternate(field: Field) -> None:
    for frames in (9, 1, 5):
        field.grow(spec=replace(SHORT, frames=frames))
    assert_clean(field)


def test_a_model_that_stays_for_the_job_after_next(field: Field, tmp_path: Path) -> None:
    image = tmp_path / "first.png"
    Image.new("RGB", (64, 48), (200, 80, 40)).save(image)
    other = JobSpec(model="wan-demo-i2v", prompt="it moves", image=str(image), frames=5, steps=2)
    for _ in range(2):
        field.grow(spec=other)
        field.grow()
        assert_clean(field)
    assert field.live.client.switch(SwitchRequest(model="wan-demo-i2v")).ok
    assert_clean(field)


def test_a_memo_with_one_entry_for_each_shape(field: Field) -> None:
    field.grow("small_memo", jobs=3)
    report = field.report()
    assert leaks(report) == [], explained(report)
    (told,) = (found for found in report.verdicts if found.kind == "tensor")
    assert told.holder is not None and told.holder.kind == "cache"


def test_a_job_that_failed_with_a_large_local_and_a_kept_error(field: Field) -> None:
    jobs = field.grow("failing", jobs=2)
    assert [job.status for job in jobs] == ["failed", "failed"]
    assert_clean(field)


def test_a_look_under_a_running_job_calls_nothing_that_it_needs_a_leak(field: Field) -> None:
    job = field.live.client.submit(replace(LARGE, frames=33, steps=4))
    field.live.until_running(job.id)
    report = field.report()
    assert leaks(report) == [], explained(report)
    assert field.live.client.job(job.id).status == "running"
    field.live.client.cancel(job.id)
    field.live.settle(job.id)


def test_tracing_itself(field: Field) -> None:
    assert field.trace(True).on
    field.grow(jobs=2)
    assert_clean(field)
    assert not field.trace(False).on
    assert_clean(field)


def test_what_grew_since_a_mark_is_told_by_its_holder_and_its_line(field: Field) -> None:
    """Below what is told as a leak, so that only the comparison can show it."""
    client = field.live.client
    field.grow(jobs=1)
    field.trace(True)
    marked = client.mark(MarkRequest(on=True))
    assert field.report().since == SinceMark(at=marked.at or 0.0)
    field.grow("small_memo", jobs=2)
    since = field.report().since
    assert since is not None and since.at == marked.at and since.lost is None
    grown = [one for one in since.holders if one.holder and "module plants_small_memo" in one.holder.path]
    lines = [(one.site.file, one.site.line) for one in since.sites if one.site and one.bytes > 0]
    assert [one.count for one in grown] == [1] and line_of("small_memo", "planted") in lines, since
    field.fresh_worker()
    lost = field.report().since
    assert lost is not None and lost.lost is not None and not lost.holders
    client.mark(MarkRequest(on=False))
    assert field.report().since is None


@pytest.mark.parametrize(("jobs", "frames"), [(15, 1), pytest.param(200, 5, marks=pytest.mark.long)])
def test_clean_jobs_one_after_another(field: Field, jobs: int, frames: int) -> None:
    """Looked at after every fifth, with the trends of all."""
    for number in range(0, jobs, 5):
        done = field.grow(jobs=5, spec=replace(SHORT, frames=frames))
        assert {job.status for job in done} == {"done"}, number
        assert_clean(field)
    report = field.report()
    (device,) = (trend for trend in report.trends if (trend.what, trend.over) == ("device", "jobs"))
    assert device.count >= jobs - 2
    assert not [trend for trend in report.trends if trend.grows], report.trends
