"""Leaks planted in the real worker, each found with its kind, its owner, its bytes and what gives it back."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import engine
from engine.leaks import verdicts as registry
from tests.leaks.field import MIB, leaks
from tests.leaks.grown import FORGOTTEN, a_forgotten_component, an_orphaned_worker
from tests.leaks.harvest import Bed, Harvests, Plant, explained, plants_of

LIST = Bed(plants=(Plant(name="global_list", holder="global", bytes=4 * MIB),))
HELD = Bed(
    plants=(
        Plant(name="closure", holder="closure", bytes=4 * MIB),
        Plant(name="kept_error", holder="traceback", bytes=4 * MIB),
        Plant(name="hook", holder="hook", bytes=4 * MIB),
        Plant(name="generator", holder="generator", bytes=4 * MIB),
        Plant(name="attribute", holder="attribute", bytes=4 * MIB, holder_line=False),
    )
)
CYCLE = Bed(
    plants=(Plant(name="cycle", holder="cycle", bytes=16 * MIB, holder_line=False),), remedy="collect"
)
UNTRACED = Bed(plants=(Plant(name="global_device", holder="global", bytes=16 * MIB, traced=False),))
MEMO = Bed(plants=(Plant(name="memo", holder="cache", bytes=28 * MIB, traced=False),), jobs=7)
# Its floors are told from the first settled job on, and the host's memory also moves by itself.
HEAP = Bed(
    plants=(Plant(name="host_heap", kind="host_heap", bytes=56 * MIB, tolerance=0.4, traced=False),), jobs=9
)
SHARED = Bed(
    plants=(Plant(name="shared", kind="host_heap", bytes=56 * MIB, tolerance=0.4, traced=False),), jobs=9
)
COMPONENT = Bed(
    plants=(Plant(name="component", kind="component", component=f"{FORGOTTEN}/dit", bytes=None),),
    remedy="unload",
    grow=a_forgotten_component,
)
ORPHAN = Bed(
    plants=(Plant(name="orphan", kind="orphan", bytes=None),), remedy="kill", grow=an_orphaned_worker
)
BEDS = (LIST, HELD, CYCLE, UNTRACED, MEMO, HEAP, SHARED, COMPONENT, ORPHAN)
SIZED = [bed for bed in BEDS if bed.plants[0].bytes is not None]
ON_CPU = ("tensor", "component", "orphan", "host_heap")
"""Detectors of what there is without a GPU; of the others: tests/gpu/test_leaks_on_cuda.py."""


@pytest.mark.parametrize(("bed", "plant"), [pytest.param(*pair, id=pair[1].name) for pair in plants_of(BEDS)])
def test_a_planted_leak_is_told_with_its_kind_owner_line_and_bytes(
    harvests: Harvests, bed: Bed, plant: Plant
) -> None:
    told = harvests.of(bed).told[plant.name]
    assert told.title and told.evidence and told.remedy is not None


@pytest.mark.parametrize("bed", SIZED, ids=lambda bed: bed.name)
def test_nothing_but_what_was_planted_is_called_a_leak(harvests: Harvests, bed: Bed) -> None:
    grown = harvests.of(bed)
    assert len(leaks(grown.report)) == len(bed.plants), explained(grown.report)
    assert all(told in leaks(grown.report) for told in grown.told.values())


@pytest.mark.parametrize("bed", SIZED, ids=lambda bed: bed.name)
def test_its_remedy_gives_back_what_it_promised_and_then_nothing_leaks(harvests: Harvests, bed: Bed) -> None:
    grown = harvests.of(bed)
    result, told = grown.result, grown.told[bed.name]
    assert told.bytes is not None
    assert (result.remedy.action, result.predicted_bytes) == (bed.remedy, told.bytes)
    assert result.receipt.ok and result.kept, result
    assert result.returned_bytes is not None and result.returned_bytes >= 0.97 * told.bytes
    if bed.remedy == "collect":  # the end of a worker gives back what it had cached as well
        assert result.returned_bytes <= 1.5 * told.bytes
    assert leaks(grown.after) == [], explained(grown.after)


def test_what_grows_tells_by_how_much_and_in_which_stage(harvests: Harvests) -> None:
    grown = harvests.of(HEAP)
    (trend,) = (trend for trend in grown.report.trends if (trend.what, trend.over) == ("host", "jobs"))
    assert trend.grows and trend.bytes_each == pytest.approx(8 * MIB, rel=0.25), trend
    told = grown.told["host_heap"]
    assert (told.stage, told.component) == ("decode", "vae")


def test_what_was_made_before_tracing_began_says_why_it_has_no_site(harvests: Harvests) -> None:
    told = harvests.of(UNTRACED).told["global_device"]
    assert told.site is None and told.site_reason is not None and "trace" in told.site_reason


def test_a_forgotten_component_is_named_and_unloaded_by_its_remedy(harvests: Harvests) -> None:
    grown = harvests.of(COMPONENT)
    told, result = grown.told["component"], grown.result
    assert {(found.component or "").split("/")[0] for found in leaks(grown.report)} == {FORGOTTEN}
    assert (result.remedy.action, result.remedy.target) == ("unload", told.component)
    assert result.predicted_bytes == told.bytes and told.bytes
    assert result.receipt.ok and result.kept, result
    assert told.component not in [found.component for found in grown.after.verdicts]


def test_an_orphaned_worker_is_found_by_the_next_engine_and_ended_by_its_remedy(harvests: Harvests) -> None:
    grown = harvests.of(ORPHAN)
    result = grown.result
    assert result.remedy.action == "kill" and result.remedy.pid is not None
    assert str(result.remedy.pid) in grown.told["orphan"].title
    assert result.receipt.ok and (result.returned_bytes or 0) >= 64 * MIB, result
    assert str(result.remedy.pid) not in explained(grown.after)


def test_a_report_takes_two_seconds_at_the_most(harvests: Harvests) -> None:
    reports = [harvests.of(bed).report for bed in BEDS]
    assert all(report.elapsed_s <= 2.0 and report.objects > 0 for report in reports)


@pytest.mark.parametrize("detector", ON_CPU)
def test_without_any_one_detector_something_planted_is_missed(
    harvests: Harvests, monkeypatch: pytest.MonkeyPatch, detector: str
) -> None:
    facts = {bed.name: harvests.of(bed).facts for bed in BEDS}
    monkeypatch.delitem(registry.ALL, detector)  # type: ignore[arg-type]
    missed = [
        plant.name
        for bed, plant in plants_of(BEDS)
        if not any(map(plant.is_told_by, registry.verdicts(facts[bed.name])))
    ]
    assert missed


def test_nothing_of_the_engine_imports_what_is_planted() -> None:
    root = Path(engine.__file__).parent
    names = {
        alias.name if isinstance(node, ast.Import) else f"{node.module}.{alias.name}"
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert "engine.wire.Verdict" in names
    assert not [name for name in names if name.split(".")[0].startswith(("tests", "plants", "sitecustom"))]
