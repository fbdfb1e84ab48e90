"""The state machine of jobs, their order and the breaker, all without a database."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import NotNow
from engine.jobs.breaker import ENGINE_ENDED, Breaker
from engine.jobs.model import LEGAL, STATE_WORDS, may_become, require
from engine.jobs.order import Entry, place_at
from engine.wire import TERMINAL_STATES, JobState

STATES: tuple[JobState, ...] = get_args(JobState)


def test_every_state_of_the_wire_has_its_transitions_and_words():
    assert set(LEGAL) == set(STATES) == set(STATE_WORDS)


@pytest.mark.parametrize("state", STATES)
def test_only_a_running_job_can_be_done_or_interrupted(state):
    assert may_become(state, "done") == (state == "running")
    assert may_become(state, "interrupted") == (state == "running")


@pytest.mark.parametrize("state", sorted(TERMINAL_STATES))
def test_an_ended_job_starts_only_through_the_queue(state):
    assert not may_become(state, "running")
    assert may_become(state, "queued") == (state != "done")


def test_every_state_can_be_reached_from_queued():
    reached, frontier = {"queued"}, ["queued"]
    while frontier:
        for target in LEGAL[frontier.pop()] - reached:
            reached.add(target)
            frontier.append(target)
    assert reached == set(STATES)


def test_a_refused_step_names_the_job_its_state_and_the_way_out():
    with pytest.raises(
        NotNow, match=r"^job 12 is done; only waiting or running jobs can be cancelled; .*duplicate"
    ):
        require(12, "done", "cancelled", "cancel")


def entries(*priorities: int) -> list[Entry]:
    return [Entry(job_id=number, priority=priority) for number, priority in enumerate(priorities, 1)]


def test_a_job_moved_ahead_of_a_higher_priority_takes_that_priority():
    assert place_at(entries(5, 0, 0), 3, 1)[0] == Entry(job_id=3, priority=5)


def test_a_job_moved_behind_a_lower_priority_takes_that_priority():
    assert place_at(entries(5, 0, 0), 1, 3)[-1] == Entry(job_id=1, priority=0)


def test_a_job_moved_to_the_border_of_its_own_priority_keeps_it():
    assert place_at(entries(5, 0, 0), 3, 2)[1] == Entry(job_id=3, priority=0)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=8), st.data())
def test_a_move_lands_where_asked_and_leaves_the_others_alone(priorities, data):
    before = entries(*sorted(priorities, reverse=True))
    job_id = data.draw(st.integers(1, len(before)))
    position = data.draw(st.integers(1, len(before) + 3))
    after = place_at(before, job_id, position)
    assert after[min(position, len(before)) - 1].job_id == job_id
    assert [entry for entry in after if entry.job_id != job_id] == [e for e in before if e.job_id != job_id]
    falling = [entry.priority for entry in after]
    assert falling == sorted(falling, reverse=True)


def failures(breaker: Breaker, *codes: str) -> Breaker:
    for job_id, code in enumerate(codes, 1):
        breaker = breaker.record("failed", code, job_id)
    return breaker


def test_three_failures_of_one_kind_hold_the_queue_and_name_it():
    assert failures(Breaker(), "out_of_memory", "out_of_memory").held_reason is None
    held = failures(Breaker(), "out_of_memory", "out_of_memory", "out_of_memory").held_reason
    assert held is not None and "out_of_memory" in held and "job 3" in held


def test_failures_of_different_kinds_do_not_hold_the_queue():
    assert (
        failures(Breaker(), "out_of_memory", "worker_died", "out_of_memory", "work_failed").held_reason
        is None
    )


def test_a_done_job_starts_the_count_again():
    breaker = failures(Breaker(), "out_of_memory", "out_of_memory").record("done", None, 3)
    assert failures(breaker, "out_of_memory", "out_of_memory").held_reason is None


def test_cancelled_jobs_and_ends_of_the_engine_neither_count_nor_start_the_count_again():
    breaker = failures(Breaker(), "out_of_memory", "out_of_memory")
    breaker = breaker.record("cancelled", "cancelled", 3).record("interrupted", ENGINE_ENDED, 4)
    assert breaker.count == 2
    assert failures(breaker, "out_of_memory").held_reason is not None


def test_a_hold_outlives_a_done_job_and_ends_with_reset():
    breaker = failures(Breaker(), "x", "x", "x").record("done", None, 4)
    assert breaker.held_reason is not None
    assert failures(breaker.reset(), "x", "x").held_reason is None


def test_failures_without_a_code_count_by_their_outcome():
    breaker = Breaker()
    for job_id in (1, 2, 3):
        breaker = breaker.record("failed", None, job_id)
    assert breaker.held_reason is not None
