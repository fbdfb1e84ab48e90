"""What a job's bar and its time left say."""

from __future__ import annotations

import pytest

from engine.wire import StageRecord
from engine.worker.channel import JobProgressed
from engine.worker.progress import TYPICAL, ProgressMeter, Shares, shares_of


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def record(stage: str, seconds: float) -> StageRecord:
    return StageRecord(stage=stage, elapsed_s=seconds, before_bytes=0, peak_bytes=0, after_bytes=0)


def meter(shares: Shares) -> tuple[ProgressMeter, Clock, list[JobProgressed]]:
    clock, sent = Clock(), list[JobProgressed]()
    made = ProgressMeter(
        1, ("text", "denoise", "decode", "write"), clock=clock, report=sent.append, shares=shares
    )
    return made, clock, sent


def test_the_lines_of_two_experts_are_one_stage() -> None:
    found = shares_of([record("text", 1), record("denoise dit.high", 3), record("denoise dit.low", 4)])
    assert found == pytest.approx({"text": 1 / 8, "denoise": 7 / 8})


def test_the_time_left_follows_what_the_last_job_of_this_shape_took() -> None:
    known, clock, sent = meter(shares_of([record("text", 1), record("denoise", 1), record("decode", 8)]))
    clock.now = 2.0
    known.at("denoise", 4, 4)
    assert sent[-1].fraction == pytest.approx(0.2, abs=0.01)
    assert sent[-1].eta_s == pytest.approx(8.0, rel=0.1)


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_the_bar_never_falls_and_ends_full(kind: str) -> None:
    bar, clock, sent = meter(TYPICAL[kind])
    bar.started()
    for stage, steps in (("text", 1), ("denoise", 4), ("decode", 5), ("write", 1)):
        bar.loading(stage, 10, 10)  # type: ignore[arg-type]
        for step in range(steps + 1):
            clock.now += 0.5
            bar.at(stage, step, steps)  # type: ignore[arg-type]
    fractions = [message.fraction for message in sent]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1.0)


def test_a_stage_that_was_never_timed_still_moves_the_bar() -> None:
    bar, _, sent = meter({"decode": 1.0})
    bar.at("text", 1, 1)
    assert sent[-1].fraction > 0
