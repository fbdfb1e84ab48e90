"""What is evicted before a stage."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import DoesNotFit, OutOfMemory
from engine.planning.residency import Eviction, Needed, Resident, plan_evictions

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
    return plan_evictions(
        residents, needed, stage="denoise", stage_bytes=stage * GIB, budget_bytes=budget * GIB
    )


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
