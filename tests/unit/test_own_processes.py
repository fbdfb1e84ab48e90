"""Our processes set aside: who closes the device opens it again, and nobody else's closure."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from engine.daemon.line import DeviceLine
from engine.daemon.own_processes import OwnProcesses


class Rig:
    def __init__(self) -> None:
        self.supervisor: Any = SimpleNamespace(device_lock=DeviceLine(), closed=None, pid=None)
        nursery: Any = SimpleNamespace(pid=None)
        probe: Any = SimpleNamespace(pid=None)
        receipts: Any = None
        self.own = OwnProcesses(self.supervisor, nursery, probe, receipts)


@pytest.fixture
def rig() -> Rig:
    return Rig()


async def test_one_that_ends_inside_another_leaves_that_ones_closure(rig: Rig) -> None:
    async with rig.own.device("a reset") as turn:
        await turn
        async with rig.own.device("a full cleanup"):
            assert rig.supervisor.closed == "a reset"
        assert rig.supervisor.closed == "a reset"
        rig.own.keep_away("it hangs")
    assert rig.supervisor.closed == "it hangs"
    rig.own.keep_away(None)
    assert rig.supervisor.closed is None and not rig.supervisor.device_lock.locked()


async def test_one_that_began_first_and_ends_first_leaves_the_other_closed(rig: Rig) -> None:
    cleanup = rig.own.device("a full cleanup")
    reset = rig.own.device("a reset")
    await cleanup.__aenter__()
    await reset.__aenter__()
    await cleanup.__aexit__(None, None, None)
    assert rig.supervisor.closed == "a reset"
    await reset.__aexit__(None, None, None)
    assert rig.supervisor.closed is None
