"""What the test of the balance on a real card asserts by can fail: shown without a card."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.telemetry.samples import ProcessReading
from engine.wire import Balance
from tests.plants import GIB, MIB, UNEXPLAINED, assert_only_moved
from tests.unit.test_telemetry_balance import COUNTERS, LATER, OURS, READING, compose


def planted(*, ours: int = 0, neighbour: int = 0, counters: dict[str, int] | None = None) -> Balance:
    """The card after so many bytes went to our process or the neighbour's, and counters to these."""
    reading = msgspec.structs.replace(
        READING,
        used_bytes=READING.used_bytes + ours + neighbour,
        free_bytes=READING.free_bytes - ours - neighbour,
        processes=(
            ProcessReading(pid=OURS, bytes=(READING.processes[0].bytes or 0) + ours),
            ProcessReading(pid=777, bytes=(READING.processes[1].bytes or 0) + neighbour),
        ),
    )
    changes: dict[str, Any] = counters or {}
    return compose(
        reading=reading,
        before=msgspec.structs.replace(COUNTERS, **changes),
        after=msgspec.structs.replace(LATER, **changes),
    )


RESERVED = (COUNTERS.reserved_bytes or 0) + GIB
PLANTS = [
    ({"ours": GIB}, UNEXPLAINED),
    ({"neighbour": GIB}, ("process", "", 777)),
    ({"ours": GIB, "counters": {"reserved_bytes": RESERVED}}, ("releasable", "", None)),
]


@pytest.mark.parametrize(("plant", "part"), PLANTS)
def test_each_plant_appears_in_its_own_part(plant: dict[str, Any], part: Any) -> None:
    assert_only_moved(compose(), planted(**plant), part, GIB)


@pytest.mark.parametrize(("plant", "part"), PLANTS)
@pytest.mark.parametrize(
    "counter", ["reserved_bytes", "active_bytes", "allocated_bytes", "inactive_split_bytes"]
)
@pytest.mark.parametrize("change", [64 * MIB, -64 * MIB])
def test_one_counter_off_by_64_mib_turns_it_red(
    plant: dict[str, Any], part: Any, counter: str, change: int
) -> None:
    counters = dict(plant.get("counters", {}))
    counters[counter] = counters.get(counter, getattr(COUNTERS, counter)) + change
    with pytest.raises(AssertionError):
        assert_only_moved(compose(), planted(**{**plant, "counters": counters}), part, GIB)


@pytest.mark.parametrize("change", [64 * MIB, -64 * MIB])
def test_a_card_that_counts_64_mib_more_or_less_turns_it_red(change: int) -> None:
    with pytest.raises(AssertionError):
        assert_only_moved(compose(), planted(ours=GIB + change), UNEXPLAINED, GIB)
    with pytest.raises(AssertionError):
        assert_only_moved(compose(), planted(ours=GIB, neighbour=change), UNEXPLAINED, GIB)


def test_a_sample_that_moved_proves_nothing() -> None:
    moved = compose(after=msgspec.structs.replace(LATER, device_allocs=99))
    with pytest.raises(AssertionError):
        assert_only_moved(compose(), moved, UNEXPLAINED, 0)
