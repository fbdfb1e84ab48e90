"""What is evicted and loaded for a stage, a job and a switch, and the reasons that are told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import DoesNotFit, OutOfMemory
from engine.planning.explaining import explain_job, explain_switch
from engine.planning.residency import (
    Eviction,
    Needed,
    Resident,
    Stage,
    StagePlan,
    plan_stage,
    plan_switch,
)
from engine.wire import RESIDENCIES, PlanStep, Residency

GIB = 2**30


def _resident(name: str, gib: int, *, leased: bool = False, last_used: float = 0.0) -> Resident:
    model, _, component = name.partition("/")
    return Resident(model=model, component=component, bytes=gib * GIB, leased=leased, last_used=last_used)


def _needed(name: str, gib: int) -> Needed:
    model, _, component = name.partition("/")
    return Needed(model=model, component=component, bytes=gib * GIB)


def _plan(
    residents: list[Resident], needed: list[Needed], *, stage: int, budget: int
) -> tuple[Eviction, ...]:
    return _stage_plan(residents, needed, stage=stage, budget=budget).evictions


def _stage_plan(
    residents: list[Resident],
    needed: list[Needed],
    *,
    stage: int,
    budget: int,
    later: list[Stage] | None = None,
    mode: Residency = "auto",
) -> StagePlan:
    return plan_stage(
        residents,
        needed,
        stage="denoise",
        working_bytes=stage * GIB,
        budget_bytes=budget * GIB,
        later=later or [],
        mode=mode,
    )


def _stage(name: str, needed: list[Needed], gib: int) -> Stage:
    return Stage(name=name, needed=tuple(needed), working_bytes=gib * GIB)


def _evicted(plan: tuple[Eviction, ...]) -> list[str]:
    return [f"{item.model}/{item.component}" for item in plan]


def test_what_fits_beside_the_rest_evicts_nothing() -> None:
    assert _plan([_resident("a/text", 10)], [_needed("a/dit", 26)], stage=3, budget=40) == ()


def test_a_resident_component_is_not_counted_twice() -> None:
    assert _plan([_resident("a/dit", 26)], [_needed("a/dit", 26)], stage=3, budget=30) == ()


def test_other_models_go_first_then_the_least_recently_used() -> None:
    residents = [
        _resident("a/text", 5, last_used=1.0),
        _resident("a/vae", 5, last_used=2.0),
        _resident("b/dit", 5, last_used=9.0),
        _resident("b/vae", 5, last_used=8.0),
    ]
    plan = _plan(residents, [_needed("a/dit", 10)], stage=0, budget=14)
    assert _evicted(plan) == ["b/vae", "b/dit", "a/text", "a/vae"]
    assert _evicted(_plan(residents, [_needed("a/dit", 10)], stage=0, budget=25)) == ["b/vae"]
    reasons = {item.component: item.reason for item in plan if item.model == "a"}
    assert "of this model" in reasons["text"]


def test_working_memory_makes_room_too() -> None:
    plan = _plan([_resident("a/text", 10)], [_needed("a/dit", 26)], stage=8, budget=40)
    assert _evicted(plan) == ["a/text"]


def test_what_never_fits_is_refused_with_its_figures() -> None:
    with pytest.raises(DoesNotFit, match=r"34\.00 GiB \(a/dit and 8\.00 GiB.*budget is 24\.00 GiB"):
        _plan([], [_needed("a/dit", 26)], stage=8, budget=24)


def test_a_leased_component_is_never_evicted_even_when_nothing_else_fits() -> None:
    residents = [_resident("b/dit", 14, leased=True), _resident("b/vae", 1)]
    with pytest.raises(OutOfMemory, match=r"lacks 2\.00 GiB: b/dit are in use"):
        _plan(residents, [_needed("a/vae", 1)], stage=7, budget=20)


_names = st.sampled_from([f"{model}/{part}" for model in "ab" for part in ("text", "dit", "vae")])


@given(
    residents=st.dictionaries(_names, st.tuples(st.integers(0, 9), st.booleans(), st.integers(0, 5))),
    needed=st.sets(_names),
    stage=st.integers(0, 9),
    budget=st.integers(0, 60),
)
def test_a_plan_fits_keeps_leases_and_evicts_no_more_than_it_must(
    residents: dict[str, tuple[int, bool, int]], needed: set[str], stage: int, budget: int
) -> None:
    sizes = {name: residents[name][0] if name in residents else 4 for name in needed}
    here = [
        _resident(name, gib, leased=leased, last_used=used) for name, (gib, leased, used) in residents.items()
    ]
    wanted = [_needed(name, sizes[name]) for name in sorted(needed)]
    try:
        plan = _plan(here, wanted, stage=stage, budget=budget)
    except DoesNotFit:
        assert sum(sizes.values()) + stage > budget
        return
    except OutOfMemory:
        leased = sum(gib for name, (gib, leased, _) in residents.items() if leased and name not in needed)
        assert sum(sizes.values()) + stage + leased > budget
        return
    gone = set(_evicted(plan))
    assert not any(residents[name][1] for name in gone)
    assert not gone & needed
    left = sum(gib for name, (gib, _, _) in residents.items() if name not in gone | needed)
    total = left + sum(sizes.values()) + stage
    assert total <= budget
    if plan:
        assert total + plan[-1].bytes // GIB > budget


# --------------------------------------------------------------------------- loading ahead


def test_what_the_next_stage_needs_is_loaded_ahead_where_it_fits() -> None:
    later = [_stage("denoise", [_needed("a/dit", 26)], 4), _stage("decode", [_needed("a/vae", 1)], 6)]
    plan = _stage_plan([], [_needed("a/text", 10)], stage=1, budget=60, later=later)
    assert [load.needed.label for load in plan.loads] == ["a/text"]
    assert [load.needed.label for load in plan.ahead] == ["a/dit", "a/vae"]
    assert "denoise needs it" in plan.ahead[0].reason


def test_nothing_is_loaded_ahead_that_a_stage_before_its_own_has_no_room_for() -> None:
    later = [_stage("denoise", [_needed("a/dit", 26)], 10), _stage("decode", [_needed("a/vae", 3)], 1)]
    # Beside the text encoder there is room for the VAE, beside the denoising there is not.
    plan = _stage_plan([], [_needed("a/text", 10)], stage=1, budget=38, later=later)
    assert [load.needed.label for load in plan.ahead] == ["a/dit"]
    tight = _stage_plan([], [_needed("a/text", 10)], stage=1, budget=36, later=later)
    assert tight.ahead == ()


def test_dit_only_keeps_nothing_beside_the_stage_and_loads_nothing_ahead() -> None:
    later = [_stage("decode", [_needed("a/vae", 1)], 1)]
    plan = _stage_plan(
        [_resident("a/text", 10)], [_needed("a/dit", 26)], stage=1, budget=90, later=later, mode="dit_only"
    )
    assert _evicted(plan.evictions) == ["a/text"]
    assert plan.ahead == ()


@pytest.mark.parametrize(("mode", "first"), [("auto", "a/text"), ("keep_text", "a/dit.high")])
def test_a_wish_decides_who_goes_last(mode: Residency, first: str) -> None:
    residents = [_resident("a/text", 10, last_used=1.0), _resident("a/dit.high", 14, last_used=2.0)]
    plan = _stage_plan(residents, [_needed("a/vae", 1)], stage=8, budget=30, mode=mode)
    assert _evicted(plan.evictions) == [first]


@given(
    budget=st.integers(5, 120),
    mode=st.sampled_from(RESIDENCIES),
    kind=st.sampled_from(["t2v", "i2v"]),
    others=st.dictionaries(st.sampled_from(["b/dit", "b/text", "c/vae", "a/vae"]), st.integers(1, 30)),
)
def test_a_job_that_is_explained_never_holds_more_than_the_budget(
    budget: int, mode: Residency, kind: str, others: dict[str, int]
) -> None:
    sizes = {"a/text": 10, "a/dit": 26, "a/vae": 1, "a/dit.high": 14, "a/dit.low": 14} | {
        name: gib for name, gib in others.items() if name.startswith("a/")
    }
    needed = {name: [_needed(name, gib)] for name, gib in sizes.items()}
    stages = [_stage("text", needed["a/text"], 1)]
    if kind == "t2v":
        stages.append(_stage("denoise", needed["a/dit"], 4))
    else:
        stages += [
            _stage("image", needed["a/vae"], 3),
            _stage("denoise high", needed["a/dit.high"], 4),
            _stage("denoise low", needed["a/dit.low"], 4),
        ]
    stages.append(_stage("decode", needed["a/vae"], 5))
    here = [_resident(name, gib) for name, gib in others.items()]
    work = {stage.name: stage.working_bytes for stage in stages}
    try:
        steps = explain_job(here, stages, budget_bytes=budget * GIB, mode=mode)
    except DoesNotFit:
        assert any(sum(item.bytes for item in s.needed) + s.working_bytes > budget * GIB for s in stages)
        return
    assert steps == explain_job(here, stages, budget_bytes=budget * GIB, mode=mode)
    held = {item.label: item.bytes for item in here}
    for step in steps:
        assert step.reason
        label = f"{step.model}/{step.component}"
        if step.action == "evict":
            del held[label]
        elif step.action == "swap":
            held = {name: size for name, size in held.items() if not name.startswith("a/dit.")}
            held[label] = step.bytes
        else:
            assert label not in held
            held[label] = step.bytes
        assert step.held_bytes == sum(held.values())
    # After each stage's moves its own components are there and its work has room.
    for stage in stages:
        moves = [step for step in steps if step.stage == stage.name]
        if moves:
            assert moves[-1].held_bytes + work[stage.name] <= budget * GIB
    if mode == "dit_only":
        assert not any(step.action == "ahead" for step in steps)


def test_two_experts_swap_where_only_one_fits() -> None:
    stages = [
        _stage("denoise high", [_needed("a/dit.high", 14)], 4),
        _stage("denoise low", [_needed("a/dit.low", 14)], 4),
    ]
    actions = [step.action for step in explain_job([], stages, budget_bytes=24 * GIB)]
    assert actions == ["load", "swap"]
    assert [s.action for s in explain_job([], stages, budget_bytes=40 * GIB)] == ["load", "ahead"]


# --------------------------------------------------------------------------- switches


def _same(name: str, gib: int, content: str) -> Needed:
    model, _, component = name.partition("/")
    return Needed(model=model, component=component, bytes=gib * GIB, content=content)


def test_a_switch_takes_over_what_is_the_same_and_moves_the_rest() -> None:
    text = Resident(model="a", component="text", bytes=10 * GIB, leased=False, last_used=0.0, content="umt5")
    steps = explain_switch(
        [text, _resident("a/dit", 3)],
        [_same("b/text", 10, "umt5"), _needed("b/dit", 26)],
        budget_bytes=60 * GIB,
        reserve_bytes=8 * GIB,
    )
    assert [(step.action, f"{step.model}/{step.component}") for step in steps] == [
        ("adopt", "b/text"),
        ("evict", "a/dit"),
        ("load", "b/dit"),
    ]
    assert steps[-1].held_bytes == 36 * GIB


def test_a_switch_leaves_room_for_work_and_says_what_it_leaves_out() -> None:
    parts = [_needed("a/text", 10), _needed("a/dit.high", 14), _needed("a/dit.low", 14)]
    plan = plan_switch([], parts, budget_bytes=35 * GIB, reserve_bytes=8 * GIB)
    assert [load.needed.label for load in plan.loads] == ["a/text", "a/dit.high"]
    assert [item.label for item in plan.left_out] == ["a/dit.low"]
    with pytest.raises(DoesNotFit, match=r"a/dit.high needs 14\.00 GiB, work beside it 8"):
        plan_switch([], parts, budget_bytes=21 * GIB, reserve_bytes=8 * GIB)
    assert isinstance(explain_switch([], parts, budget_bytes=60 * GIB, reserve_bytes=0)[0], PlanStep)


def test_what_a_later_stage_needs_is_taken_over_instead_of_loaded_ahead() -> None:
    vae = Resident(model="a", component="vae", bytes=GIB, leased=False, last_used=0.0, content="wan")
    stages = [
        Stage(name="denoise", needed=(_same("b/dit", 10, "dit"),), working_bytes=0),
        Stage(name="decode", needed=(_same("b/vae", 1, "wan"),), working_bytes=0),
    ]
    steps = explain_job([vae], stages, budget_bytes=20 * GIB)
    assert [(step.stage, step.action, f"{step.model}/{step.component}") for step in steps] == [
        ("denoise", "load", "b/dit"),
        ("denoise", "adopt", "b/vae"),
    ]
    assert steps[-1].held_bytes == 11 * GIB
