"""Questions right after the start wait for the first reading of the device, and no longer than that."""

from __future__ import annotations

import asyncio
import time

import pytest

from engine.config import EngineConfig
from engine.daemon.devices import DeviceInUse
from engine.daemon.memory import MemoryView
from engine.daemon.readiness import FirstReading
from engine.errors import NotNow
from engine.telemetry.samples import HostReading

HOST = HostReading(
    taken_at=1.0, total_bytes=2**34, available_bytes=2**33, limited_by_cgroup=False, rss_bytes={}
)


@pytest.fixture
def memory() -> MemoryView:
    return MemoryView(EngineConfig(), on_status=lambda status: None, label=lambda pid: None)


@pytest.fixture
def device() -> DeviceInUse:
    return DeviceInUse("cpu", None)


async def waiting(reading: FirstReading) -> asyncio.Task[None]:
    task = asyncio.create_task(reading.wait())
    await asyncio.sleep(0.01)
    assert not task.done()
    return task


async def test_a_question_goes_on_with_the_first_reading_of_the_chosen_device(
    memory: MemoryView, device: DeviceInUse
) -> None:
    reading = FirstReading(memory, device, timeout_s=10)
    asked = await waiting(reading)
    memory.device_id = "cpu"
    reading.look()
    await asyncio.sleep(0.01)
    assert not asked.done()  # chosen, and not read yet
    memory.heard(HOST)
    reading.look()
    await asyncio.wait_for(asked, 1)
    began = time.monotonic()
    await reading.wait()
    assert time.monotonic() - began < 0.1


async def test_a_device_that_cannot_be_used_is_said_as_soon_as_it_is_known(
    memory: MemoryView, device: DeviceInUse
) -> None:
    reading = FirstReading(memory, device, timeout_s=10)
    asked = await waiting(reading)
    device.problem = "a GPU was found and cannot be used"
    reading.look()
    with pytest.raises(NotNow, match="cannot be used"):
        await asyncio.wait_for(asked, 1)
    # The problem may pass; then there is a device to wait for again.
    device.problem = None
    again = await waiting(reading)
    memory.device_id = "cpu"
    memory.heard(HOST)
    reading.look()
    await asyncio.wait_for(again, 1)


async def test_nobody_waits_for_a_probe_that_says_nothing(memory: MemoryView, device: DeviceInUse) -> None:
    with pytest.raises(NotNow, match=r"not read within 0\.05 s"):
        await FirstReading(memory, device, timeout_s=0.05).wait()
