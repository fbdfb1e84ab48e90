"""The line for the device: its order, who goes first, and that it is never lost."""

from __future__ import annotations

import asyncio

import pytest

from engine.daemon.line import DeviceLine


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_cleanup_goes_before_those_who_waited_and_they_keep_their_order() -> None:
    line, served = DeviceLine(), []

    async def take(name: str, *, first: bool = False) -> None:
        await line.acquire(first=first)
        served.append(name)
        await asyncio.sleep(0)
        line.release()

    await line.acquire()
    tasks = []
    for name in ("switch", "job", "cleanup"):
        tasks.append(asyncio.create_task(take(name, first=name == "cleanup")))
        await settle()
    line.release()
    assert line.locked()  # handed on: who comes now waits
    tasks.append(asyncio.create_task(take("late")))
    await asyncio.gather(*tasks)
    assert served == ["cleanup", "switch", "job", "late"]
    assert not line.locked()


@pytest.mark.parametrize("given", [False, True], ids=["waits", "given at the last moment"])
async def test_one_who_gives_up_waiting_leaves_the_device_to_the_next(given: bool) -> None:
    line = DeviceLine()
    await line.acquire()
    gives_up, stays = (asyncio.create_task(line.acquire()) for _ in range(2))
    await settle()
    if given:
        line.release()
    gives_up.cancel()
    await settle()
    if not given:
        line.release()
    assert gives_up.cancelled()
    assert await asyncio.wait_for(stays, 1)
    line.release()
    assert not line.locked()


async def test_one_who_gives_up_in_the_moment_it_would_be_served_is_passed_over() -> None:
    line = DeviceLine()
    await line.acquire()
    gives_up, stays = (asyncio.create_task(line.acquire()) for _ in range(2))
    await settle()
    gives_up.cancel()
    line.release()
    await settle()
    assert gives_up.cancelled()
    assert stays.done() and line.locked()
