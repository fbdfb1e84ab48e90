"""Leaks planted in the real worker, each found with its kind, its owner, its bytes and what gives it back."""

from __future__ import annotations

import pytest

from engine.leaks import verdicts as registry
from tests.leaks.field import MIB, leaks
from tests.leaks.grown import FORGOTTEN, a_forgotten_component, an_orphaned_worker
from tests.leaks.harvest import Harvests, Plant, explained

PLANTS = [
    Plant(name="global_list", holder="global", bytes=4 * MIB),
    Plant(name="closure", holder="closure", bytes=4 * MIB),
    Plant(name="kept_error", holder="traceback", bytes=4 * MIB),
    Plant(name="hook", holder="hook", bytes=4 * MIB),
    Plant(name="generator", holder="generator", bytes=4 * MIB),
    Plant(name="attribute", holder="attribute", bytes=4 * MIB, holder_line=False),
    Plant(name="cycle", holder="cycle", bytes=16 * MIB, remedy="collect", holder_line=False),
    Plant(name="memo", holder="cache", bytes=36 * MIB, jobs=9, traced=False),
    Plant(name="host_heap", kind="host_heap", bytes=18 * MIB, jobs=9, traced=False),
]
COMPONENT = Plant(
    name="component",
    kind="component",
    component=f"{FORGOTTEN}/dit",
    bytes=0,
    remedy="unload",
    grow=a_forgotten_component,
)
ORPHAN = Plant(name="orphan", kind="orphan", bytes=0, remedy="kill", grow=an_orphaned_worker)
ALL = [*PLANTS, COMPONENT, ORPHAN]
ON_CPU = {"tensor", "component", "orphan", "host_heap"}
"""Detectors of what there is without a GPU."""
by_name = pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)


@by_name
def test_a_planted_leak_is_told_with_its_kind_its_owner_and_its_line(
    harvests: Harvests, plant: Plant
) -> None:
    grown = harvests.of(plant)
    assert grown.told.evidence and grown.told.title, grown.told
    assert grown.told.bytes == pytest.approx(plant.bytes, rel=0.1), grown.told
    if plant.holder is not None:
        assert grown.told.site is not None or grown.told.site_reason, grown.told


@by_name
def test_nothing_but_what_was_planted_is_called_a_leak(harvests: Harvests, plant: Plant) -> None:
    grown = harvests.of(plant)
    assert leaks(grown.report) == [grown.told], explained(grown.report)


@by_name
def test_its_remedy_gives_back_what_it_promised_and_then_nothing_leaks(
    harvests: Harvests, plant: Plant
) -> None:
    grown = harvests.of(plant)
    result, remedy = grown.result, grown.result.remedy
    assert (remedy.action, remedy.predicted_bytes) == (plant.remedy, grown.told.bytes)
    assert result.receipt.ok, result.receipt.error
    assert result.kept, result
    assert result.returned_bytes is not None and result.returned_bytes >= 0.97 * plant.bytes
    if plant.remedy != "cleanup":  # a fresh worker also has less of what the old one had cached
        assert result.returned_bytes <= 1.5 * plant.bytes
    assert leaks(grown.after) == [], explained(grown.after)


def test_what_grows_tells_by_how_much_and_in_which_stage(harvests: Harvests) -> None:
    told = harvests.of(next(plant for plant in PLANTS if plant.name == "host_heap"))
    (trend,) = (trend for trend in told.report.trends if trend.what == "host" and trend.over == "jobs")
    assert trend.grows and trend.bytes_each == pytest.approx(2 * MIB, rel=0.2), trend
    assert (told.told.stage, told.told.component) == ("decode", "vae")


def test_what_was_made_before_tracing_began_has_an_owner_and_says_why_it_has_no_site(
    harvests: Harvests,
) -> None:
    plant = Plant(name="global_device", holder="global", bytes=16 * MIB, traced=False)
    told = harvests.of(plant).told
    assert told.site is None and told.site_reason is not None and "trace" in told.site_reason


def test_a_forgotten_component_is_named_and_unloaded_by_its_remedy(harvests: Harvests) -> None:
    grown = harvests.of(COMPONENT)
    assert all(
        found.component and found.component.startswith(f"{FORGOTTEN}/") for found in leaks(grown.report)
    )
    remedy, result = grown.result.remedy, grown.result
    assert (remedy.action, remedy.target) == ("unload", COMPONENT.component)
    assert remedy.predicted_bytes == grown.told.bytes and grown.told.bytes
    assert result.receipt.ok and result.kept, result
    assert COMPONENT.component not in [found.component for found in grown.after.verdicts]


def test_an_orphaned_worker_is_found_by_the_next_engine_and_ended_by_its_remedy(harvests: Harvests) -> None:
    grown = harvests.of(ORPHAN)
    remedy, result = grown.result.remedy, grown.result
    assert remedy.action == "kill" and remedy.pid is not None
    assert str(remedy.pid) in grown.told.title
    assert result.receipt.ok and (result.returned_bytes or 0) >= 64 * MIB, result
    assert leaks(grown.after) == [], explained(grown.after)


def test_a_report_takes_two_seconds_at_the_most(harvests: Harvests) -> None:
    reports = [harvests.of(plant).report for plant in PLANTS]
    assert all(report.elapsed_s <= 2.0 and report.objects > 0 for report in reports)


@pytest.mark.parametrize("name", sorted(registry.ALL))
def test_without_any_one_detector_something_planted_is_missed(
    harvests: Harvests, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if name not in ON_CPU:
        pytest.skip("its kind needs a GPU: tests/gpu/test_leaks_on_cuda.py")
    monkeypatch.delitem(registry.ALL, name)  # type: ignore[arg-type]
    missed = [
        plant.name
        for plant in ALL
        if not any(map(plant.is_told_by, registry.verdicts(harvests.of(plant).facts)))
    ]
    assert missed
