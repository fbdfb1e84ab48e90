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
        self.did: list[str] = []
        nursery: Any = SimpleNamespace(
            pid=None, rest=lambda: self.did.append("rest"), start=lambda: self.did.append("nursery")
        )
        probe: Any = SimpleNamespace(pid=None, start=lambda: self.did.append("probe"))
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


async def test_who_is_kept_away_has_no_nursery_and_an_engine_that_ends_brings_nothing_back(rig: Rig) -> None:
    rig.own.keep_away("it hangs")
    assert rig.did == ["rest"]  # else a worker would start the slow way beside the reset
    rig.own.keep_away(None)
    rig.own.bring_back()
    assert rig.did == ["rest", "probe", "nursery"]
    rig.own.close()
    rig.own.bring_back()
    assert rig.did == ["rest", "probe", "nursery"]
