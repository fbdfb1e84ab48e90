"""What a job's bar and its time left say."""

from __future__ import annotations

import pytest

from engine.wire import Stage, StageRecord
from engine.worker.channel import JobProgressed
from engine.worker.progress import TYPICAL, ProgressMeter, Shares, shares_of


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def record(stage: str, seconds: float) -> StageRecord:
    return StageRecord(stage=stage, elapsed_s=seconds, before_bytes=0, peak_bytes=0, after_bytes=0)


def meter(shares: Shares, *, typical: bool = False) -> tuple[ProgressMeter, Clock, list[JobProgressed]]:
    clock, sent = Clock(), list[JobProgressed]()
    stages: tuple[Stage, ...] = ("text", "denoise", "decode", "write")
    made = ProgressMeter(1, stages, clock=clock, report=sent.append, shares=shares, typical=typical)
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


def test_the_time_left_of_a_stage_follows_its_own_steps_and_not_its_share() -> None:
    # Another size decoded in a tenth of the time: 21 slices of half a second each.
    bar, clock, sent = meter({"text": 1.0, "denoise": 6.0, "decode": 1.0, "write": 0.1})
    clock.now = 7.0
    bar.at("denoise", 4, 4)
    for step in range(22):
        bar.at("decode", step, 21)
        left = 0.5 * (21 - step)
        eta = sent[-1].eta_s
        assert eta is not None
        if step < 2:
            assert eta < left / 2, "nothing was heard of it yet"
        elif step >= 6:
            assert eta == pytest.approx(left, rel=0.1, abs=0.4)
        clock.now += 0.5


def test_what_follows_a_slow_stage_has_its_share_of_the_time() -> None:
    bar, clock, sent = meter({"text": 1.0, "denoise": 4.0, "decode": 5.0})
    clock.now = 1.0
    bar.at("denoise", 0, 4)
    clock.now = 9.0  # eight seconds for half of it, not two
    bar.at("denoise", 2, 4)
    # Eight more, and as much for the rest as all until then will have taken.
    assert sent[-1].eta_s == pytest.approx(8 + 17, rel=0.05)


def test_what_is_loaded_within_a_step_is_no_step() -> None:
    bar, clock, sent = meter({"text": 1.0, "denoise": 9.0})
    clock.now = 1.0
    bar.at("denoise", 0, 4)
    for _ in range(10):
        clock.now += 3.0
        bar.loading("denoise", 5, 10)
    clock.now += 2.0
    bar.at("denoise", 1, 4)
    assert sent[-1].eta_s == pytest.approx(6.0, rel=0.1)


def test_a_part_that_is_loaded_between_steps_leaves_the_shares() -> None:
    bar, clock, sent = meter(TYPICAL["cuda"])
    clock.now = 2.0
    bar.at("text", 1, 1)
    bar.loading("denoise", 5, 10)
    assert sent[-1].stage == "load" and sent[-1].eta_s is not None
    assert sent[-1].eta_s == pytest.approx(2.0 * (1 - sent[-1].fraction) / sent[-1].fraction)


def test_a_first_job_tells_no_time_left_before_its_longest_stage_has_a_rate() -> None:
    # A large model's: the text is quick, and each of four steps takes a minute.
    bar, clock, sent = meter(TYPICAL["cuda"], typical=True)
    bar.started()
    clock.now = 2.0
    bar.at("text", 1, 1)
    clock.now = 12.0
    bar.loading("denoise", 10, 10)
    bar.at("denoise", 0, 4)
    assert sent[-1].fraction > 0.15 and {message.eta_s for message in sent} == {None}
    for step in range(1, 5):
        clock.now += 60.0
        bar.at("denoise", step, 4)
        eta = sent[-1].eta_s
        assert eta is not None and 60.0 * (4 - step) < eta < 60.0 * (4 - step) + 150
    clock.now += 1.0
    bar.loading("decode", 10, 10)
    bar.at("decode", 0, 21)
    assert sent[-1].eta_s is not None


def test_a_first_job_of_a_processor_waits_for_the_rate_of_its_decoding() -> None:
    bar, clock, sent = meter(TYPICAL["cpu"], typical=True)
    for step in range(5):
        clock.now += 1.0
        bar.at("denoise", step, 4)
    for step in range(3):
        bar.at("decode", step, 21)
        clock.now += 5.0
    assert {message.eta_s for message in sent} == {None}, "two of 21 steps are no rate yet"
    bar.at("decode", 3, 21)
    assert sent[-1].eta_s == pytest.approx(5.0 * 18, rel=0.1)


def test_a_longest_stage_without_steps_is_measured_once_it_is_over() -> None:
    bar, clock, sent = meter({"text": 1.0, "denoise": 8.0, "decode": 1.0}, typical=True)
    clock.now = 1.0
    bar.at("text", 1, 1)
    clock.now = 9.0
    bar.at("decode", 0, 5)
    assert sent[-2].eta_s is None and sent[-1].eta_s is not None
