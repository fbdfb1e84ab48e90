"""Ending a process as a person meets it: frozen on its target, asked twice where it is another's."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from engine.wire import DeviceProcess, KillRequest, MemorySampled, Snapshot
from turbotui.app import TurboApp
from turbotui.client import scenes
from turbotui.client.scripted import ScriptedClient

from .conftest import NOW, SMALL, WIDE, live, screen_text, scripted, until

Build = Callable[..., TurboApp]

OWN = DeviceProcess(
    pid=555, bytes=2**30, user="me", name="train", command="python train.py", started_at=NOW - 60,
    start_time=99.5,
)  # fmt: skip


def kills(client: ScriptedClient) -> list[KillRequest]:
    return [call[1] for call in client.asked if call[0] == "kill"]


def on_card(snapshot: Snapshot, *processes: DeviceProcess) -> Snapshot:
    devices = tuple(
        replace(device, processes=processes) if device.in_use else device
        for device in snapshot.status.devices
    )
    return replace(snapshot, status=replace(snapshot.status, devices=devices))


def owner_seen(app: TurboApp) -> str | None:
    hello = app.link.state.hello
    return None if hello is None else hello.user


@pytest.mark.parametrize("size", [SMALL, WIDE], ids=["80x24", "120x36"])
async def test_ones_own_process_is_named_and_ended_after_one_question(
    console: Build, size: tuple[int, int]
) -> None:
    client = scripted(on_card(scenes.busy(NOW), OWN))
    app = console(client)
    async with app.run_test(size=size) as pilot:
        await live(pilot)
        assert owner_seen(app) == "me"
        await pilot.press("5", "K")
        await pilot.pause()
        text = screen_text(app)
        for part in ("Kill this process?", "me@gpubox01", scenes.GPU, "GPU 2", "1.00 GiB", "pid 555"):
            assert part in text, part
        assert "python train.py" in text and "SIGTERM now, SIGKILL 5 s later" in text
        await pilot.press("enter")
        assert kills(client) == [] and "Kill this process?" not in screen_text(app), "Cancel has the focus"
        await pilot.press("K")
        await pilot.pause()
        await pilot.press("right", "enter")
        await until(pilot, lambda: kills(client) == [KillRequest(pid=555, start_time=99.5)])


async def test_what_began_on_another_day_has_its_date(console: Build) -> None:
    app = console(scripted(on_card(scenes.busy(NOW), replace(OWN, started_at=NOW - 86400))))
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("5", "K")
        await pilot.pause()
        day = time.strftime("%m-%d %H:%M", time.localtime(NOW - 86400))
        assert f"{day}  (1d00h)" in screen_text(app)


async def test_another_users_process_is_asked_for_twice(console: Build) -> None:
    client = scripted(scenes.busy(NOW))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("5", "j", "K")
        await pilot.pause()
        assert "pid 90112" in screen_text(app) and "It is liwei's: go on" in screen_text(app)
        await pilot.press("right", "enter")
        await pilot.pause()
        assert kills(client) == [] and "Kill a process of liwei?" in screen_text(app)
        await pilot.press("enter")
        assert kills(client) == []
        await pilot.press("K")
        await pilot.pause()
        await pilot.press("right", "enter")
        await pilot.pause()
        await pilot.press("right", "enter")
        asked = KillRequest(pid=90112, start_time=230000.25, other_user=True)
        await until(pilot, lambda: kills(client) == [asked])


async def test_the_target_is_the_one_that_was_shown_whoever_has_its_pid_by_now(console: Build) -> None:
    snapshot = on_card(scenes.busy(NOW), OWN)
    client = scripted(snapshot)
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("5", "K")
        await pilot.pause()
        device = next(device for device in snapshot.status.devices if device.in_use)
        other = replace(OWN, start_time=500.0, command="something else")
        client.push(MemorySampled(device=replace(device, processes=(other,))))
        await until(pilot, lambda: app.link.state.device.processes == (other,))
        assert "python train.py" in screen_text(app)
        await pilot.press("right", "enter")
        await until(pilot, lambda: [asked.start_time for asked in kills(client)] == [99.5])


async def test_the_engines_own_and_what_cannot_be_known_are_never_asked_about(console: Build) -> None:
    unknown = replace(OWN, start_time=None)
    nursery = replace(OWN, pid=556, ours="nursery", bytes=2**20)
    client = scripted(on_card(scenes.busy(NOW), unknown, nursery))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("4", "K")
        assert "choose a process, then K again" in screen_text(app)
        await pilot.press("K")
        assert "pid 555 cannot be told from another here" in screen_text(app)
        await pilot.press("j", "K")
        assert "E restarts the engine" in screen_text(app)
        await pilot.press("G", "K")
        assert "no process is chosen" in screen_text(app)
        assert kills(client) == []


async def test_the_page_of_a_process_offers_its_end_and_ours_does_not(console: Build) -> None:
    client = scripted(on_card(scenes.busy(NOW), OWN, replace(OWN, pid=556, ours="nursery")))
    app = console(client)
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        await pilot.press("5", "enter")
        await until(pilot, lambda: getattr(app.screen, "painted", False))
        # Once in the dashboard's key line behind it, and once of the page.
        assert screen_text(app).count("K kill") == 2
        await pilot.press("K")
        await until(pilot, lambda: getattr(app.screen, "painted", False) and "Cancel" in screen_text(app))
        assert "Kill this process?" in screen_text(app) and "pid 555" in screen_text(app)
        await pilot.press("right", "enter")
        await until(pilot, lambda: kills(client) == [KillRequest(pid=555, start_time=99.5)])
        await pilot.press("j", "enter")
        await until(pilot, lambda: getattr(app.screen, "painted", False))
        assert "Process 556" in screen_text(app) and screen_text(app).count("K kill") == 1
        await pilot.press("K")
        await pilot.pause()
        assert app.screen is app.dashboard and len(kills(client)) == 1
