"""The slope of floors: a leak is found among noise, and noise is no leak."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import pytest

from engine.leaks.slope import slope_of
from engine.leaks.trend import FIRST, LEAST_COUNT, MANY, trends
from engine.units import KIB, MIB
from engine.wire import Held, LedgerLine, Trend

WEIGHTS = 3 * 10**9


def night(
    count: int,
    *,
    leak: int = 0,
    stage: str = "denoise",
    host_leak: int = 0,
    noise: int = 0,
    step_at: int | None = None,
    shapes: int = 1,
    worker: str = "1 10.0",
) -> list[LedgerLine]:
    """Jobs of three stages; `leak` bytes stay in `stage` of each, a tenth of host memory is noise."""
    rng = random.Random(5)
    lines: list[LedgerLine] = []
    lost, host = 0, 10**9
    kept = {"text": 4 * MIB, "denoise": 40 * MIB, "decode": 0}
    for job in range(1, count + 1):
        start = lost
        if step_at == job:
            lost += 64 * MIB
        for name, need in kept.items():
            before = lost
            if name == stage:
                lost += leak
                host += host_leak
            lines.append(
                LedgerLine(
                    id=len(lines), at=0, kind="stage", target=name, device_id="gpu", worker=worker,
                    job_id=job, elapsed_s=1, weights=Held(before=WEIGHTS, after=WEIGHTS), kept_bytes=need,
                    allocated=Held(before=WEIGHTS + before, after=WEIGHTS + need + lost),
                    rss=Held(before=host, after=host + rng.randrange(noise + 1)),
                )
            )  # fmt: skip
        lines.append(
            LedgerLine(
                id=len(lines), at=0, kind="job", target=f"job {job}", device_id="gpu", worker=worker,
                job_id=job, model="m", shape=f"{job % shapes}", elapsed_s=3,
                weights=Held(before=WEIGHTS, after=WEIGHTS),
                allocated=Held(before=WEIGHTS + start, after=WEIGHTS + lost),
                rss=Held(after=host + rng.randrange(noise + 1)),
            )
        )  # fmt: skip
    return lines


def of(what: str, found: tuple[Trend, ...]) -> Trend:
    return next(trend for trend in found if trend.what == what and trend.over == "jobs")


def test_slope_is_the_median_of_pairs() -> None:
    slope = slope_of([1, 3, 5, 7, 900])
    assert slope.value == 2
    assert slope.low <= 2 <= slope.high
    assert slope_of([4, 4, 4, 4]).low == slope_of([4, 4, 4, 4]).high == 0


def test_interval_holds_the_true_slope_19_times_in_20() -> None:
    held = 0
    for seed in range(200):
        rng = random.Random(seed)
        slope = slope_of([0.3 * at + rng.gauss(0, 5) for at in range(30)])
        held += slope.low <= 0.3 <= slope.high
    assert 180 <= held <= 199


@pytest.mark.parametrize("stage", ["text", "denoise", "decode"])
def test_leak_on_the_device_is_told_with_its_stage(stage: str) -> None:
    trend = of("device", trends(night(12, leak=KIB, stage=stage)))
    assert trend.grows
    assert trend.bytes_each == KIB
    assert trend.stage == stage


def test_leak_on_the_host_is_told_though_memory_moves() -> None:
    trend = of("host", trends(night(40, host_leak=MIB, noise=3 * MIB, stage="text")))
    assert trend.grows
    assert trend.low is not None and trend.high is not None
    assert trend.low <= MIB <= trend.high
    assert (trend.stage, trend.component) == ("text", "text")


def test_clean_jobs_grow_nothing() -> None:
    found = trends(night(200, noise=8 * MIB, shapes=3))
    assert not [trend for trend in found if trend.grows]


def test_one_step_is_no_slope() -> None:
    assert not of("device", trends(night(30, step_at=15))).grows


def test_first_jobs_of_a_shape_are_left_out() -> None:
    assert of("device", trends(night(FIRST + LEAST_COUNT - 1))).bytes_each is None
    assert of("device", trends(night(FIRST + LEAST_COUNT))).bytes_each == 0


def test_a_fresh_worker_begins_anew() -> None:
    lines = night(20, leak=MIB) + night(8, worker="2 20.0")
    assert not of("device", trends(lines)).grows


def lines_of(
    what: str, *, count: int = 12, each: int = 8 * MIB, stage: str = "decode", device: str = "gpu"
) -> list[LedgerLine]:
    """Jobs of one stage, in which one floor rises."""
    lines: list[LedgerLine] = []
    for job in range(1, count + 1):
        old, new = each * (job - 1), each * job
        flat = Held(before=WEIGHTS, after=WEIGHTS)
        rising = Held(before=WEIGHTS + old, after=WEIGHTS + new)
        held = {"allocated": flat, "rss": flat, "pinned": flat}
        held[{"device": "allocated", "host": "rss", "pinned": "pinned"}[what]] = rising
        whole: dict[str, Any] = {
            "at": 0, "device_id": device, "worker": "1 10.0", "job_id": job, "model": "m", "shape": "s",
            "elapsed_s": 1, "weights": flat, **held,
        }  # fmt: skip
        lines.append(LedgerLine(id=len(lines), kind="stage", target=stage, **whole))
        lines.append(LedgerLine(id=len(lines), kind="job", target=f"job {job}", **whole))
    return lines


@pytest.mark.parametrize("device", ["gpu", "cpu"])
@pytest.mark.parametrize("what", ["device", "host", "pinned"])
@pytest.mark.parametrize(
    ("stage", "component"),
    [
        ("text", "text"),
        ("image", "vae"),
        ("decode", "vae"),
        ("denoise dit.low", "dit.low"),
        ("denoise", None),
    ],
)
def test_each_floor_tells_the_stage_and_the_component_that_raises_it(
    what: str, stage: str, component: str | None, device: str
) -> None:
    found = trends(lines_of(what, stage=stage, device=device))
    assert [trend.what for trend in found if trend.grows] == [what]
    trend = of(what, found)
    assert (trend.bytes_each, trend.stage, trend.component) == (8 * MIB, stage, component)


def test_on_cpu_weights_that_lie_in_host_memory_are_no_growth_of_it() -> None:
    lines = [
        replace(line, rss=line.allocated, device_id="cpu")
        for line in lines_of("device")
        if line.kind == "job"
    ]
    assert [trend.what for trend in trends(lines) if trend.grows] == ["device"]


def test_what_only_switches_bring_is_told_over_switches_by_their_targets() -> None:
    def switches(count: int) -> list[LedgerLine]:
        return [
            replace(line, kind="switch", target="ab"[place % 2], job_id=None)
            for place, line in enumerate(lines_of("device", count=count)[1::2])
        ]

    (trend,) = (trend for trend in trends(switches(2 * FIRST + LEAST_COUNT)) if trend.what == "device")
    assert (trend.over, trend.grows, trend.count, trend.bytes_each) == (
        "switches",
        True,
        LEAST_COUNT,
        8 * MIB,
    )
    (few,) = (trend for trend in trends(switches(2 * FIRST + 1)) if trend.what == "device")
    assert (few.count, few.bytes_each) == (1, None), "the first ones to each model fill what it needs"


def test_host_memory_begins_anew_with_a_new_shape_and_a_small_rise_is_none() -> None:
    lines = [line for line in lines_of("host", count=20) if line.kind == "job"]
    mixed = [replace(line, shape=str(place >= 8)) for place, line in enumerate(lines)]
    assert of("host", trends(mixed)).count == 20 - 8 - FIRST
    small = [line for line in lines_of("host", count=20, each=64 * KIB) if line.kind == "job"]
    assert not of("host", trends(small)).grows
    slow = [line for line in lines_of("host", count=200, each=20 * KIB) if line.kind == "job"]
    assert not of("host", trends(slow)).grows


def test_lines_of_a_worker_before_are_no_part_of_this_ones_floors() -> None:
    before = [replace(line, worker="0 1.0") for line in lines_of("device", count=20)]
    found = of("device", trends(before + lines_of("device", count=FIRST + 3)))
    assert (found.count, found.bytes_each) == (3, None)
    assert trends([]) == ()


@pytest.mark.parametrize("fills", [10, 60, 100])
def test_what_grew_and_has_stopped_does_not_grow(fills: int) -> None:
    """A cache of bounded length: it fills, and then lets go of as much as it takes."""
    rng, lines = random.Random(7), []
    for line in night(fills + 26, noise=MIB):
        if line.kind == "job" and line.job_id is not None:
            size = 2 * MIB * min(line.job_id, fills)
            held = Held(before=WEIGHTS, after=WEIGHTS + size)
            lines.append(replace(line, allocated=held, rss=Held(after=size + rng.randrange(MIB))))
    while_filling, full = trends(lines[:fills]), trends(lines)
    assert of("device", while_filling).grows and of("host", while_filling).grows
    assert not of("device", full).grows and not of("host", full).grows


@pytest.mark.parametrize(("fills", "cache", "leak"), [(30, 400, MIB // 2), (5, 1000, MIB), (10, 400, MIB)])
def test_a_slow_leak_is_told_though_a_large_cache_has_filled_before(
    fills: int, cache: int, leak: int
) -> None:
    rng, lines = random.Random(7), []
    for line in night(180, noise=MIB):
        if line.kind == "job" and line.job_id is not None:
            size = cache * MIB * min(line.job_id, fills) // fills + leak * line.job_id
            held = Held(before=WEIGHTS, after=WEIGHTS + size)
            lines.append(replace(line, allocated=held, rss=Held(after=size + rng.randrange(MIB))))
    for count in range(fills + 2 * MANY, len(lines), 20):
        found = trends(lines[:count])
        assert of("device", found).grows and of("host", found).grows


def test_two_floors_in_a_row_that_are_off_hide_no_leak() -> None:
    lines = []
    for line in night(180):
        if line.kind == "job" and line.job_id is not None:
            size = MIB * line.job_id + (200 * MIB if line.job_id in (10, 11) else 0)
            lines.append(replace(line, allocated=Held(before=WEIGHTS, after=WEIGHTS + size)))
    assert all(of("device", trends(lines[:count])).grows for count in range(30, len(lines), 15))


@pytest.mark.parametrize("slows", [5, 15, 40])
def test_a_cache_that_fills_more_and_more_slowly_is_no_leak_in_the_end(slows: int) -> None:
    lines = []
    for line in night(180):
        if line.kind == "job" and line.job_id is not None:
            size = round(500 * MIB * (1 - math.exp(-line.job_id / slows)))
            lines.append(replace(line, allocated=Held(before=WEIGHTS, after=WEIGHTS + size)))
    assert of("device", trends(lines[: 2 * slows])).grows
    assert not any(of("device", trends(lines[:count])).grows for count in range(3 * slows + 5, 180, 8))


@pytest.mark.parametrize("every", [2, 5, 20])
def test_a_leak_of_every_few_jobs_is_told_and_goes_on_being_told(every: int) -> None:
    lines = [
        replace(line, allocated=Held(before=WEIGHTS, after=WEIGHTS + (line.job_id or 0) // every * MIB))
        for line in night(130)
        if line.kind == "job"
    ]
    told = [of("device", trends(lines[:count])).grows for count in range(3 * every + FIRST + 2, 130)]
    first = told.index(True)
    assert first <= LEAST_COUNT and all(told[first:])


def mixed(count: int, *, every: int, leak: int = 0, cache: int = 0) -> list[LedgerLine]:
    """Jobs of which each `every`th has a new shape; the first two of one add `cache`, and all add `leak`."""
    lines, seen, lost = [], {}, 0
    for line in night(count):
        if line.kind != "job" or line.job_id is None:
            continue
        shape = f"{line.job_id // every}"
        before = lost
        seen[shape] = seen.get(shape, 0) + 1
        lost += leak + (cache if seen[shape] <= FIRST else 0)
        held = Held(before=WEIGHTS + before, after=WEIGHTS + lost)
        lines.append(replace(line, shape=shape, allocated=held))
    return lines


def test_shapes_that_are_new_one_after_another_are_no_growth() -> None:
    """Each fills its caches: what an engine does in its first hour."""
    found = of("device", trends(mixed(30, every=3, cache=MIB)))
    assert (found.count, found.bytes_each, found.grows) == (9, 0, False)


@pytest.mark.parametrize(("every", "cache"), [(1, 0), (3, MIB), (6, MIB)])
def test_a_leak_is_told_among_shapes_that_are_new_all_the_time(every: int, cache: int) -> None:
    found = of("device", trends(mixed(30, every=every, leak=5 * MIB, cache=cache)))
    assert found.grows and found.bytes_each is not None and found.bytes_each >= 5 * MIB
