"""What the daemon tells of each device: every value with its age, a lost card as lost, nothing as 0."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from engine.config import EngineConfig
from engine.daemon.memory import MemoryView
from engine.telemetry.samples import CardReading, DeviceNews, DeviceReading, HostReading, ProbeFault
from engine.wire import DeviceStatus
from engine.worker.channel import AllocatorSample
from tests.unit.test_telemetry_balance import COUNTERS, OURS, READING

GIB = 2**30
ID = READING.device_id


class Viewed:
    def __init__(self) -> None:
        self.told: list[DeviceStatus] = []
        self.view = MemoryView(EngineConfig(), on_status=self.told.append, label=lambda pid: None)
        self.view.device_id = ID

    def read(self, **changes: Any) -> DeviceReading:
        reading = msgspec.structs.replace(READING, **{"taken_at": time.monotonic(), **changes})
        self.view.heard(reading)
        return reading

    def count(self) -> None:
        now = time.monotonic()
        self.view.heard_worker(msgspec.structs.replace(COUNTERS, taken_at=now, read_at=now))

    @property
    def status(self) -> DeviceStatus:
        (found,) = self.view.statuses()
        return found


@pytest.fixture
def viewed() -> Viewed:
    return Viewed()


def test_each_value_has_its_own_age(viewed: Viewed) -> None:
    now = time.monotonic()
    card = CardReading(condition_at=now - 8, driver_version="580.1", recovery_action="none")
    viewed.read(taken_at=now - 0.5, slow_at=now - 1.5, temperature_c=61, card=card)
    found = viewed.status
    assert found.age_s == pytest.approx(0.5, abs=0.3)
    assert found.slow_age_s == pytest.approx(1.5, abs=0.3)
    assert found.card is not None and found.card.condition_age_s == pytest.approx(8, abs=0.3)
    assert (found.card.driver_version, found.card.recovery_action) == ("580.1", "none")
    assert found.reserved_inside_used is False


def test_a_driver_without_a_reserve_has_no_identity_to_tell(viewed: Viewed) -> None:
    viewed.read(reserved_bytes=None, reserved_inside_used=True)
    assert viewed.status.reserved_inside_used is None


def test_why_nobody_may_be_called_a_ghost_is_told(viewed: Viewed) -> None:
    viewed.read(view_gap="this is a container")
    assert viewed.status.view is not None
    assert (viewed.status.view.complete, viewed.status.view.reason) == (False, "this is a container")
    viewed.read(view_gap=None)
    assert (viewed.status.view.complete, viewed.status.view.reason) == (True, None)


def test_a_list_of_processes_that_failed_is_told_and_their_bytes_are_unknown(viewed: Viewed) -> None:
    viewed.read(processes=(), processes_fault="no permission")
    found = viewed.status
    assert (found.processes, found.processes_fault) == ((), "no permission")
    assert found.balance is not None
    unseen = [part for part in found.balance.parts if part.owner == "unseen"]
    assert [part.bytes for part in unseen] == [None]


def test_a_lost_card_is_told_at_once_with_what_was_known_and_is_well_again_when_read(viewed: Viewed) -> None:
    viewed.read()
    viewed.view.heard(ProbeFault(kind="gpu_lost", detail="GPU is lost", device_id=ID))
    assert viewed.told[-1].fault == "gpu_lost: GPU is lost"
    assert viewed.told[-1].balance is not None
    viewed.read()
    assert viewed.told[-1].fault is None and viewed.status.fault is None


def test_a_fault_of_one_value_does_not_make_a_card_lost(viewed: Viewed) -> None:
    viewed.read()
    viewed.view.heard(ProbeFault(kind="processes_unknown", detail="no permission", device_id=ID))
    assert viewed.status.fault is None
    viewed.view.heard(ProbeFault(kind="gpu_lost", detail="one that was never read", device_id="GPU-other"))
    assert [status.id for status in viewed.told] == [ID]


def test_an_xid_stays_with_its_age_when_the_card_reads_on(viewed: Viewed) -> None:
    viewed.view.heard(DeviceNews(device_id=ID, kind="xid", detail="Xid 31: ...", number=31))
    viewed.view.heard(DeviceNews(device_id=ID, kind="back", detail="answers again"))
    for _ in range(3):
        viewed.read()
    card = viewed.status.card
    assert card is not None and (card.xid, card.xid_text) == (31, "Xid 31: ...")
    assert card.xid_age_s is not None and 0 <= card.xid_age_s < 5


def test_a_reading_under_a_worker_asks_it_and_then_the_probe(viewed: Viewed) -> None:
    asked: list[object] = []
    viewed.view.ask_counters = lambda: asked.append("counters")
    viewed.view.ask_reading = asked.append
    viewed.view.worker_started(OURS, ID)
    viewed.count()
    viewed.read()
    viewed.count()
    assert asked == ["counters", 0.05], "there were no counters from well before the reading"


def test_a_worker_that_the_driver_does_not_list_counts_by_its_own_counters(viewed: Viewed) -> None:
    viewed.view.worker_started(OURS, ID)
    viewed.count()
    listed, unlisted = READING.processes, READING.processes[1:]
    budgets = []
    for processes in (listed, unlisted):
        viewed.read(processes=processes)
        budget = viewed.view.budget()
        assert budget is not None
        budgets.append(budget.now_bytes)
    assert budgets[0] - budgets[1] == READING.processes[0].bytes - COUNTERS.reserved_bytes  # type: ignore[operator]


def test_host_memory_is_told_with_ours_in_it(viewed: Viewed) -> None:
    assert viewed.view.host_status(registered_bytes=None) is None
    viewed.view.heard(
        HostReading(
            taken_at=time.monotonic() - 1,
            total_bytes=16 * GIB,
            available_bytes=10 * GIB,
            limited_by_cgroup=True,
            rss_bytes={OURS: 2 * GIB, 7: GIB},
            swapped_bytes={OURS: 5, 7: 6},
            pressure_percent=1.5,
        )
    )
    viewed.view.worker_started(OURS, ID)
    found = viewed.view.host_status(registered_bytes=4 * GIB)
    assert found is not None
    assert (found.worker_rss_bytes, found.ours_rss_bytes, found.registered_bytes) == (
        2 * GIB,
        3 * GIB,
        4 * GIB,
    )
    assert (found.swapped_bytes, found.pressure_percent, found.limited_by_cgroup) == (11, 1.5, True)
    assert found.age_s == pytest.approx(1, abs=0.3)


def test_counters_without_a_worker_are_nobodys(viewed: Viewed) -> None:
    viewed.view.heard_worker(AllocatorSample(taken_at=1.0, device_allocs=0, weights={}))
    assert viewed.told == []
