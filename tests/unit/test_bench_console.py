"""What `turbotui bench console` makes of its readings."""

from __future__ import annotations

import itertools
import random

import pytest

from engine.wire import JobChanged, Logged, MemorySampled, ReceiptIssued
from turbotui.bench.console import MIB, soak_rows
from turbotui.bench.slope import slope_of
from turbotui.bench.terminal import Terminal, usage
from turbotui.bench.traffic import HZ, JOB_S, Pace, traffic


def wandering(growth: float, *, seed: int, noisier: float = 1.0) -> list[tuple[float, float]]:
    """An hour of readings that lean on each other, around a line."""
    noise, off, found = random.Random(seed), 0.0, []
    for number in range(720):
        off = 0.95 * off + noise.gauss(0, 0.1 * noisier)
        found.append((number / 720, 45 + growth * number / 720 + off))
    return found


@pytest.mark.parametrize("growth", [0.0, 3.0])
def test_a_slope_lies_within_its_uncertainty(growth: float) -> None:
    slopes = [slope_of(wandering(growth, seed=seed)) for seed in range(40)]
    within = sum(abs(slope.value - growth) <= slope.uncertainty for slope in slopes)
    assert within >= 32  # two standard errors of nearly independent stretches
    assert all(slope.uncertainty < 1.0 for slope in slopes)


def test_growth_is_told_from_flat() -> None:
    flat = next(soak_rows(wandering(0.0, seed=1)))
    grows = next(soak_rows(wandering(6.0, seed=1)))
    assert flat.reached and not grows.reached
    assert next(soak_rows([])).reached is False


@pytest.mark.parametrize("growth", [0.0, 6.0])
def test_noise_makes_nothing_pass(growth: float) -> None:
    noisy = next(soak_rows(wandering(growth, seed=1, noisier=12.0)))
    assert noisy.value is None and noisy.reached is False and "not known" in noisy.note


def test_traffic_is_an_hour_of_everything_that_a_console_keeps() -> None:
    hour = list(itertools.takewhile(lambda item: item[0] < 3600, traffic(0.0)))
    events = [event for _at, event in hour]
    assert sum(isinstance(event, MemorySampled) for event in events) == 3600 * HZ - 1
    ended = [e.job for e in events if isinstance(e, JobChanged) and e.job.finished_at is not None]
    assert len({job.id for job in ended}) == 3600 // JOB_S - 1
    assert {job.status for job in ended} == {"done", "failed"}
    assert sum(isinstance(event, Logged) for event in events) > 2000
    assert sum(isinstance(event, ReceiptIssued) for event in events) > 100
    times = [at for at, _event in hour]
    assert times == sorted(times)


def test_the_clock_goes_as_the_traffic() -> None:
    pace = Pace(first=100, until_s=3600, then=10)
    assert pace.passed(0) == 0
    assert pace.passed(36) == pytest.approx(3600)
    assert pace.passed(46) == pytest.approx(3700)


def test_a_terminal_counts_what_its_program_takes() -> None:
    code = "import sys, time; print('x' * 40, flush=True); time.sleep(0.2); print('y' * 1000); input()"
    with Terminal(["python3", "-c", code], {"PATH": "/usr/bin:/bin:/usr/local/bin"}) as terminal:
        assert terminal.wait_for(b"y" * 1000, 10) is not None
        assert terminal.first_paint_s is not None and terminal.first_paint_s < 10
        assert 1040 <= terminal.count < 1100
        assert MIB < usage(terminal.pid).rss_bytes < 200 * MIB
        cost = terminal.cost(0.3)
        assert cost is not None and cost.cpu_percent < 50 and cost.bytes_per_s < 100
        terminal.press(b"\n")
        assert terminal.cost(2.0) is None
