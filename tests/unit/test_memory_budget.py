"""What a job on cpu may hold, where a cgroup leaves less than the machine has."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.config import EngineConfig
from engine.daemon.memory import Budget, MemoryView
from engine.errors import DoesNotFit
from engine.planning.residency import Needed, plan_stage, plan_switch
from engine.telemetry.samples import HostReading
from tests.host_tree import HostTree

GIB = 2**30


@pytest.fixture
def tree(tmp_path: Path) -> HostTree:
    return HostTree(tmp_path)


def budget(tree: HostTree) -> Budget:
    """As the probe's next reading makes it."""
    probe = tree.probe()
    probe.refresh_limits()
    memory = probe.read()
    view = MemoryView(EngineConfig(), on_status=lambda status: None, label=lambda pid: None)
    view.device_id = "cpu"
    view.heard(
        HostReading(
            taken_at=1.0,
            total_bytes=memory.total_bytes,
            available_bytes=memory.available_bytes,
            limited_by_cgroup=memory.limited_by_cgroup,
            rss_bytes={},
        )
    )
    found = view.budget()
    assert found is not None
    return found


def test_a_cgroup_is_the_whole_device_and_its_headroom_what_is_free_now(tree: HostTree) -> None:
    assert budget(tree).empty_bytes == 16 * GIB
    tree.limit(2 * GIB, current=GIB, inactive_file=GIB // 4)
    found = budget(tree)
    assert (found.empty_bytes, found.now_bytes) == (2 * GIB, GIB + GIB // 4)
    assert found.held_by == "others on this host hold 768.0 MiB"


def test_a_model_larger_than_the_cgroup_is_refused_before_anything_moves(tree: HostTree) -> None:
    tree.limit(2 * GIB, current=GIB // 2)
    large = Needed(model="wan", component="dit", bytes=3 * GIB)
    now = budget(tree).now_bytes
    with pytest.raises(DoesNotFit, match=r"wan/dit needs 3\.00 GiB, .* and the budget is 1\.50 GiB"):
        plan_switch((), [large], budget_bytes=now, reserve_bytes=0)
    with pytest.raises(DoesNotFit, match=r"3\.00 GiB"):
        plan_stage((), [large], stage="denoise", working_bytes=0, budget_bytes=now, later=())
