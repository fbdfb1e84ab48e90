"""Each reading between two sets of counters; one that memory moved under is read again, not for ever."""

from __future__ import annotations

import msgspec
import pytest

from engine.daemon.pairing import COUNTERS_WAIT_S, RETRIES, SETTLE_S, Pairing
from engine.telemetry.balance import gpu_balance
from engine.telemetry.samples import DeviceReading
from engine.worker.channel import AllocatorSample
from tests.unit.test_telemetry_balance import COUNTERS, OURS, READING


class Trial:
    """A pairing with a time of its own; memory moves when the test says."""

    def __init__(self) -> None:
        self.now = 100.0
        self.moves = 0
        self.counters_asked = 0
        self.readings_asked: list[float] = []
        self.told: list[tuple[DeviceReading, AllocatorSample | None, AllocatorSample | None]] = []
        self.pairing = Pairing(
            told=lambda *found: self.told.append(found),
            ask_counters=self._count,
            ask_reading=self.readings_asked.append,
        )

    def _count(self) -> None:
        self.counters_asked += 1

    def pass_by(self, seconds: float) -> None:
        self.now += seconds

    def read(self, *, still: bool = True) -> None:
        self.pass_by(0.001)
        began_at = self.now
        self.pass_by(0.0002)
        reading = msgspec.structs.replace(READING, began_at=began_at, taken_at=self.now, still=still)
        self.pairing.read(reading)

    def count(self) -> None:
        self.pass_by(0.001)
        self.pairing.counted(
            msgspec.structs.replace(
                COUNTERS, taken_at=self.now, read_at=self.now + 0.0003, device_allocs=self.moves
            )
        )
        self.pass_by(0.0005)

    def coherent(self) -> list[bool]:
        return [
            gpu_balance(reading, before, after, 0, {OURS}).coherent for reading, before, after in self.told
        ]


@pytest.fixture
def trial() -> Trial:
    trial = Trial()
    trial.count()
    trial.pass_by(0.1)
    return trial


def test_a_reading_at_rest_is_coherent_as_soon_as_the_worker_has_answered(trial: Trial) -> None:
    trial.read()
    assert (trial.counters_asked, trial.told) == (1, [])
    trial.count()
    assert trial.coherent() == [True]
    assert trial.readings_asked == []


def test_before_the_first_counters_a_reading_stands_alone() -> None:
    trial = Trial()
    trial.read()
    assert [(before, after) for _, before, after in trial.told] == [(None, None)]
    assert trial.counters_asked == 0


def test_a_move_under_a_reading_costs_one_more_reading_and_the_balance_is_coherent(trial: Trial) -> None:
    trial.read()
    trial.moves += 1
    trial.count()
    assert (trial.told, trial.readings_asked) == ([], [SETTLE_S])
    trial.pass_by(SETTLE_S)
    trial.read()
    trial.count()
    assert trial.coherent() == [True]


def test_what_was_given_back_just_before_a_reading_may_still_be_in_it(trial: Trial) -> None:
    trial.moves += 1
    trial.count()
    trial.pass_by(SETTLE_S / 2)
    trial.read()
    trial.count()
    assert trial.told == [] and trial.readings_asked == [SETTLE_S]


def test_memory_that_never_rests_is_told_as_moving_and_asked_for_only_so_often(trial: Trial) -> None:
    for _ in range(RETRIES + 1):
        trial.pass_by(SETTLE_S)
        trial.read()
        trial.moves += 1
        trial.count()
    assert trial.coherent() == [False]
    assert len(trial.readings_asked) == RETRIES
    trial.pass_by(0.1)
    trial.read()
    trial.count()
    assert trial.coherent() == [False, True], "the next beat has its retries again, and needs none"


def test_a_neighbour_that_moved_is_read_again_too(trial: Trial) -> None:
    trial.read(still=False)
    trial.count()
    assert trial.told == [] and trial.readings_asked == [SETTLE_S]


def test_a_stopped_worker_delays_what_is_told_of_others_by_two_beats_at_most(trial: Trial) -> None:
    for _ in range(8):
        before = len(trial.told)
        trial.read()
        if len(trial.told) > before:
            assert trial.told[-1][0].taken_at == trial.now, "the newest reading is told, not an old one"
        trial.pass_by(0.1)
    assert len(trial.told) == 6, "only the first of a pause waits"
    assert COUNTERS_WAIT_S + 0.1 <= 0.25


def test_a_stopped_worker_is_asked_once_and_its_readings_go_on_without_it(trial: Trial) -> None:
    for _ in range(20):
        trial.read()
        trial.pass_by(0.1)
    assert trial.counters_asked == 1
    assert len(trial.told) >= 4
    assert all(after is None for _, _, after in trial.told)
    trial.count()
    assert trial.pairing.latest is not None
    trial.pass_by(0.1)
    trial.read()
    assert trial.counters_asked == 2


def test_counters_that_were_on_their_way_are_no_answer(trial: Trial) -> None:
    late = msgspec.structs.replace(COUNTERS, taken_at=trial.now, read_at=trial.now, device_allocs=0)
    trial.read()
    trial.pairing.counted(late)
    for _ in range(3):
        trial.pass_by(0.1)
        trial.read()
    assert trial.told, "a worker that stops right then must not stop what is told"
    assert trial.counters_asked == 1


def test_counters_that_overtook_the_reading_are_its_after(trial: Trial) -> None:
    began_at = trial.now
    trial.count()
    trial.pairing.read(msgspec.structs.replace(READING, began_at=began_at, taken_at=began_at))
    assert trial.coherent() == [True]
    assert trial.counters_asked == 0
