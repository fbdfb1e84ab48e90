"""A hard cleanup whose fresh worker fails, whose reload is given up, or that another one meets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.daemon.cancel import Cancel
from engine.daemon.cleanup import Cleanup
from engine.daemon.line import DeviceLine
from engine.daemon.steps import Steps
from engine.daemon.switches import Switches
from engine.errors import NotNow, WorkerDied
from engine.models.card import inferred_card
from engine.models.model import Model
from engine.wire import Receipt
from engine.worker.channel import Preload, Restore


def model(name: str) -> Model:
    return Model(name=name, kind="t2v", path=Path("/m") / name, card=inferred_card(name, "t2v"))


def receipt(
    action: Any, *, error: str | None = None, code: str | None = None, loaded: int = 0, **more: Any
) -> Receipt:
    return Receipt(
        action=action, target="x", ok=error is None, error=error, error_code=code, loaded_bytes=loaded,
        elapsed_s=0.1, proof="allocator", **more,
    )  # fmt: skip


class FakeWorker:
    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.sent: list[Any] = []

    def kill(self, reason: str) -> None:
        pass

    def send(self, message: Any) -> None:
        self.sent.append(message)

    async def wait_gone(self) -> bool:
        return True


class FakeSupervisor:
    """Has worker 7; worker 8 has its process at once and is ready when the test says so, or fails."""

    starting = False

    def __init__(self) -> None:
        self.device_lock = DeviceLine()
        self.worker: FakeWorker | None = FakeWorker(7)
        self.fresh = FakeWorker(8)
        self.ready: asyncio.Future[FakeWorker] = asyncio.get_running_loop().create_future()
        self.restore: Callable[[Cancel], Receipt] = lambda cancel: receipt("load", loaded=2**30)
        self.asked: list[Any] = []
        self.residents = SimpleNamespace(present=lambda: [("small", "dit")])

    async def ensure_worker(self, opened: object = ()) -> FakeWorker:
        return await asyncio.shield(self.ready)

    async def forked(self, starting: object) -> FakeWorker:
        return self.fresh

    async def connected(self, starting: object, *, timeout_s: float) -> bool:
        return True

    async def ask(self, action: str, target: str, message: Any, *, cancel: Cancel) -> Receipt:
        self.asked.append(message(1))
        return self.restore(cancel)

    def let_go(self, reason: str) -> FakeWorker | None:
        gone, self.worker = self.worker, self.fresh
        return gone

    def stepped(self, *_: object) -> None:
        pass

    def issue(self, receipt: Receipt) -> Receipt:
        return receipt


@pytest.fixture
async def supervisor() -> FakeSupervisor:
    return FakeSupervisor()


@pytest.fixture
def found() -> dict[str, Model]:
    return {"small": model("small")}


@pytest.fixture
def cleanup(supervisor: FakeSupervisor, found: dict[str, Model]) -> Cleanup:
    async def held_by(worker: object) -> int:
        return 2**30

    async def of_end(action: Any, worker: object, held: int, steps: Steps) -> Receipt:
        steps.ended("worker ended", held)
        return receipt(action, expected_bytes=held or 0)

    parts: Any = (
        supervisor,
        SimpleNamespace(has_room=lambda num_bytes: True),
        SimpleNamespace(held_by=held_by, of_end=of_end),
    )
    unused: Any = None
    switches = Switches(parts[0], unused, unused, unused, unused, proofs=unused, find=found.__getitem__)
    return Cleanup(*parts, switches, parts[0], find=found.__getitem__)


def cleaning(cleanup: Cleanup, *, reload: bool = True) -> asyncio.Task[Receipt]:
    return asyncio.create_task(cleanup.run(reload=reload))


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_reload_can_be_given_up_as_soon_as_its_weights_travel(
    cleanup: Cleanup, supervisor: FakeSupervisor
) -> None:
    def restore(cancel: Cancel) -> Receipt:
        assert cancel.asked
        return receipt("load", error="cancelled; nothing of it is loaded", code="cancelled")

    supervisor.restore = restore
    task = cleaning(cleanup)
    await settle()
    assert [type(message) for message in supervisor.fresh.sent] == [Preload]
    assert not supervisor.asked
    assert cleanup._switches.cancel(None) == ("what was resident",)
    supervisor.ready.set_result(supervisor.fresh)
    told = await asyncio.wait_for(task, 1)
    assert (told.ok, told.error, told.error_code) == (
        False,
        "cancelled; nothing of it is loaded",
        "cancelled",
    )
    with pytest.raises(NotNow):
        cleanup._switches.cancel(None)


async def test_a_fresh_worker_that_does_not_start_is_told_with_the_way_out(
    cleanup: Cleanup, supervisor: FakeSupervisor
) -> None:
    supervisor.ready.set_exception(WorkerDied("no worker can be started: no memory"))
    told = await asyncio.wait_for(cleaning(cleanup), 1)
    assert told.error == (
        "no fresh worker became ready: no worker can be started: no memory; `turbotui switch small` loads it"
    )
    assert not supervisor.device_lock.locked()


async def test_a_fresh_worker_that_dies_in_its_reload_was_started_all_the_same(
    cleanup: Cleanup, supervisor: FakeSupervisor
) -> None:
    def restore(cancel: Cancel) -> Receipt:
        raise WorkerDied("worker 8 was ended by SIGKILL")

    supervisor.restore = restore
    supervisor.ready.set_result(supervisor.fresh)
    told = await asyncio.wait_for(cleaning(cleanup), 1)
    assert told.error == (
        "small did not come back: worker 8 was ended by SIGKILL; `turbotui switch small` loads it"
    )
    assert [step.name for step in told.steps][-2:] == ["wait until worker 8 is ready", "reload"]
    assert told.elapsed_s == pytest.approx(sum(step.elapsed_s for step in told.steps))


async def test_a_reload_gives_back_what_was_there(cleanup: Cleanup, supervisor: FakeSupervisor) -> None:
    supervisor.ready.set_result(supervisor.fresh)
    told = await asyncio.wait_for(cleaning(cleanup), 1)
    assert told.ok and told.loaded_bytes == 2**30
    (asked,) = supervisor.asked
    assert isinstance(asked, Restore) and [item.model.name for item in asked.wanted] == ["small"]


@pytest.mark.parametrize("reload", [True, False])
async def test_who_asks_for_another_kind_of_cleanup_does_not_get_the_receipt_of_the_one_under_way(
    cleanup: Cleanup, supervisor: FakeSupervisor, reload: bool
) -> None:
    first, same = (cleaning(cleanup, reload=reload) for _ in range(2))
    await settle()
    with pytest.raises(NotNow, match="`turbotui cancel-switch` gives" if reload else "without a reload"):
        await cleanup.run(reload=not reload)
    supervisor.ready.set_result(supervisor.fresh)
    assert await asyncio.wait_for(first, 1) is await asyncio.wait_for(same, 1)


async def test_what_cannot_come_back_is_named_with_the_reason(
    cleanup: Cleanup, supervisor: FakeSupervisor, found: dict[str, Model]
) -> None:
    found["damaged"] = replace(model("damaged"), problem="vae is gone; copy it there again")
    supervisor.residents.present = lambda: [("damaged", "dit"), ("damaged", "vae"), ("small", "dit")]
    supervisor.ready.set_result(supervisor.fresh)
    told = await asyncio.wait_for(cleaning(cleanup), 1)
    assert (told.ok, told.error_code, told.loaded_bytes) == (False, None, 2**30)
    assert told.error == "did not come back: damaged: vae is gone; copy it there again"
    # Where nothing was to come back nothing is missed.
    supervisor.worker = supervisor.fresh
    assert (await asyncio.wait_for(cleaning(cleanup, reload=False), 1)).ok


@pytest.mark.parametrize("replaced", [False, True])
async def test_what_another_worker_held_is_not_said_of_the_one_that_ended(
    cleanup: Cleanup, supervisor: FakeSupervisor, replaced: bool
) -> None:
    async def held_by(worker: object) -> int:
        if replaced:
            supervisor.worker = FakeWorker(9)
        return 2**30

    cleanup._proofs.held_by = held_by  # type: ignore[method-assign]
    supervisor.ready.set_result(supervisor.fresh)
    told = await asyncio.wait_for(cleaning(cleanup), 1)
    assert told.expected_bytes == (0 if replaced else 2**30)
