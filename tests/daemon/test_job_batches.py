"""Many jobs at once: told ahead, queued whole or not at all, and not twice."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from engine.errors import InvalidRequest, NotNow
from engine.wire import BATCH_LIMIT, JobBatch, JobSpec
from tests.daemon.live import LiveEngine


@pytest.fixture
def three(short: JobSpec) -> tuple[JobSpec, ...]:
    return tuple(replace(short, prompt=f"第{number} batch", seed=number) for number in range(3))


def test_a_batch_is_queued_whole_or_not_at_all(live: LiveEngine, three: tuple[JobSpec, ...]) -> None:
    before = {job.id for job in live.client.jobs(all=True)}
    broken = (*three, replace(three[0], frames=6))
    with pytest.raises(InvalidRequest, match=r"request 4 of 4: frames is 6.*none of them was queued"):
        live.client.submit_many(JobBatch(specs=broken))
    assert {job.id for job in live.client.jobs(all=True)} == before
    told = live.client.forecast_many(JobBatch(specs=broken))
    assert [line.error is None for line in told.lines] == [True, True, True, False]
    assert "frames is 6" in (told.lines[3].error or "")
    assert {job.id for job in live.client.jobs(all=True)} == before


def test_a_batch_that_is_sent_again_makes_nothing_twice(
    live: LiveEngine, long: JobSpec, three: tuple[JobSpec, ...]
) -> None:
    running = live.client.submit(long)
    batch = JobBatch(specs=(*three, three[1]))
    told = live.client.forecast_many(batch)
    assert [line.same_as for line in told.lines] == [None, None, None, 2]
    first = live.client.submit_many(batch)
    assert first.queued == 3 and first.job_ids[3] == first.job_ids[1]
    assert list(first.job_ids[:3]) == sorted(first.job_ids[:3])
    again = live.client.submit_many(batch)
    assert (again.queued, again.job_ids) == (0, first.job_ids)
    assert [line.job_id for line in live.client.forecast_many(batch).lines] == list(first.job_ids)
    wished = live.client.submit_many(replace(batch, again=True))
    assert wished.queued == 4 and not set(wished.job_ids) & set(first.job_ids)
    for job_id in (*first.job_ids[:3], *wished.job_ids, running.id):
        live.client.cancel(job_id)
    live.settle(running.id)
    # What was cancelled is wanted again.
    assert live.client.forecast_many(batch).lines[0].job_id is None


@pytest.mark.parametrize("count", [0, BATCH_LIMIT + 1])
def test_a_batch_of_no_jobs_or_of_too_many_is_refused(live: LiveEngine, short: JobSpec, count: int) -> None:
    with pytest.raises(InvalidRequest, match="divide it"):
        live.client.submit_many(JobBatch(specs=(short,) * count))


def test_a_batch_without_room_in_the_queue_is_refused_whole(
    live: LiveEngine, long: JobSpec, short: JobSpec
) -> None:
    room = JobBatch(specs=(short,) * BATCH_LIMIT, again=True)
    jobs = [live.client.submit(long), live.client.submit(short)]
    before = {job.id for job in live.client.jobs(all=True)}
    with pytest.raises(NotNow, match="the most that the queue takes"):
        live.client.submit_many(room)
    assert {job.id for job in live.client.jobs(all=True)} == before
    for job in reversed(jobs):
        live.client.cancel(job.id)
    live.settle(jobs[0].id)


def test_a_forecast_knows_the_time_once_a_job_of_that_size_was_done(live: LiveEngine, short: JobSpec) -> None:
    done = live.run(short)
    assert done.started_at is not None and done.finished_at is not None
    told = live.client.forecast(short)
    assert told.expected_exact and told.expected_s is not None
    assert 0 < told.expected_s < 60
    double = live.client.forecast(replace(short, steps=2))
    assert double.expected_s == pytest.approx(2 * told.expected_s) and not double.expected_exact


def test_many_jobs_of_one_large_image_are_told_at_once_and_hold_nobody_up(
    live: LiveEngine, short: JobSpec, tmp_path: Path
) -> None:
    picture = tmp_path / "large.png"
    # Noise, so that there are bytes to be looked at.
    Image.frombytes("RGB", (4000, 3000), os.urandom(36_000_000)).save(picture, compress_level=0)
    spec = JobSpec(model="wan-demo-i2v", prompt="x", image=str(picture), steps=1)
    batch = JobBatch(specs=tuple(replace(spec, seed=seed) for seed in range(BATCH_LIMIT)))
    live.client.forecast(spec)  # Pillow is there
    waits = []
    with ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        told = pool.submit(live.client.forecast_many, batch)
        while not told.done():
            asked = time.monotonic()
            live.client.hello()
            waits.append(time.monotonic() - asked)
        assert all(line.error is None for line in told.result().lines)
        assert time.monotonic() - began < 5, "one look for each line takes twice that"
    assert max(waits) < 2.5
