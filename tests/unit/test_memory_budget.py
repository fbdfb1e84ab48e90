"""What a job on cpu may hold, where a cgroup leaves less than the machine has."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.config import EngineConfig
from engine.daemon.budget import Budget
from engine.daemon.job_plans import never_fits
from engine.daemon.memory import MemoryView
from engine.daemon.planner import _with_setting
from engine.errors import DoesNotFit, NotNow
from engine.planning.residency import Needed, plan_stage, plan_switch
from engine.telemetry.samples import HostReading
from tests.host_tree import HostTree

GIB = 2**30
PLAN: Any = SimpleNamespace(
    model=SimpleNamespace(name="wan"),
    admitted=SimpleNamespace(width=832, height=480, frames=81),
    footprint=SimpleNamespace(peak_bytes=99 * GIB),
    way_out=None,
)


@pytest.fixture
def tree(tmp_path: Path) -> HostTree:
    return HostTree(tmp_path)


def budget(tree: HostTree, config: EngineConfig | None = None) -> Budget:
    """As the probe's next reading makes it."""
    probe = tree.probe()
    probe.refresh_limits()
    memory = probe.read()
    view = MemoryView(config or EngineConfig(), on_status=lambda status: None, label=lambda pid: None)
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


def test_a_setting_is_named_only_where_it_is_what_limits(tree: HostTree) -> None:
    tree.limit(4 * GIB, current=GIB)
    error = DoesNotFit("too large")
    for limit, now, empty in ((2, 2, 2), (3.5, 3, 3.5), (4, 3, 4), (90, 3, 4), (None, 3, 4)):
        config = EngineConfig(memory_budget_bytes=None if limit is None else int(limit * GIB))
        found = budget(tree, config)
        assert (found.now_bytes, found.empty_bytes) == (now * GIB, empty * GIB)
        name = "engine.memory_budget_bytes"
        assert (name in found.held_by) == (limit == 2), "others are in the way before the setting is"
        assert (name in _with_setting(error, found)) == (limit == 2)
        assert (name in never_fits(PLAN, found)) == (limit in (2, 3.5))
        assert _with_setting(NotNow("later"), found) == "later"


def test_the_way_out_of_what_does_not_fit_is_one_that_helps() -> None:
    large = Needed(model="wan", component="dit", bytes=3 * GIB)
    with pytest.raises(DoesNotFit, match=r"fewer frames or a smaller resolution$"):
        plan_stage((), [large], stage="denoise", working_bytes=4 * GIB, budget_bytes=5 * GIB, later=())
    for plan in (
        lambda: plan_stage((), [large], stage="denoise", working_bytes=0, budget_bytes=GIB, later=()),
        lambda: plan_switch((), [large], budget_bytes=GIB, reserve_bytes=0),
    ):
        with pytest.raises(DoesNotFit, match=r"smaller model, or one with int8 weights$"):
            plan()
