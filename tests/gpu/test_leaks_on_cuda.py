"""Planted leaks and non-leaks of the kinds that need a GPU: in a real worker, by the public API."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from engine.leaks import verdicts as registry
from engine.wire import Verdict, VerdictKind
from tests.daemon.live import wait_for
from tests.gpu.test_kill_on_cuda import GIB, holding
from tests.leaks.field import LARGE, MIB, Field, leaks, line_of
from tests.leaks.harvest import Bed, Harvests, Plant, explained, plants_of


@contextmanager
def a_stream_that_waits(field: Field) -> Iterator[None]:
    """Looked at twice: what waits right after a job is in order, what still waits later is not."""
    field.grow("second_stream")
    first = field.report()
    assert leaks(first) == [], explained(first)
    yield


HELD = Bed(
    plants=(
        Plant(name="global_device", holder="global", bytes=16 * MIB),
        Plant(name="hook", holder="hook", bytes=4 * MIB),
        Plant(name="unowned", kind="unowned_tensor", bytes=32 * MIB),
        # The host's memory is not traced beside a GPU.
        Plant(name="pinned", kind="pinned", holder="global", bytes=32 * MIB, traced=False),
    )
)
CYCLE = Bed(
    plants=(Plant(name="cycle", holder="cycle", bytes=16 * MIB, holder_line=False),), remedy="collect"
)
# Each far below what is told for its size alone.
SMALL = Bed(plants=(Plant(name="small_ones", holder="global", bytes=9 * 96 * 1024, traced=False),), jobs=9)
STREAM = Bed(
    plants=(Plant(name="second_stream", kind="awaiting_free", bytes=64 * MIB),),
    remedy="free",
    grow=a_stream_that_waits,
)
BEDS = (HELD, CYCLE, SMALL, STREAM)


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    """A running engine on the emptiest GPU, in whose worker plants can be grown."""
    field = Field(tmp_path_factory.mktemp("field"), TURBOTUI_ENGINE_DEVICE="auto")
    try:
        field.start()
        yield field
    finally:
        field.live.close()


@pytest.fixture(scope="module")
def harvests(field: Field) -> Harvests:
    return Harvests(field)


def no_leak(verdicts: tuple[Verdict, ...], kind: VerdictKind) -> list[Verdict]:
    """Those of a kind that say that it is no leak."""
    return [found for found in verdicts if found.kind == kind and not found.leak]


@pytest.mark.parametrize(("bed", "plant"), [pytest.param(*pair, id=pair[1].name) for pair in plants_of(BEDS)])
def test_a_planted_leak_is_told_with_its_kind_owner_line_and_bytes(
    harvests: Harvests, bed: Bed, plant: Plant
) -> None:
    grown = harvests.of(bed)
    print(grown.told[plant.name].title, f"{grown.report.elapsed_s} s, {grown.report.objects} objects")
    assert len(leaks(grown.report)) == len(bed.plants), explained(grown.report)
    assert grown.report.elapsed_s <= 2.0


@pytest.mark.parametrize("bed", BEDS, ids=lambda bed: bed.name)
def test_its_remedy_gives_back_what_it_promised_by_the_drivers_count(harvests: Harvests, bed: Bed) -> None:
    grown = harvests.of(bed)
    result = grown.result
    print(bed.name, result.predicted_bytes, result.returned_bytes, result.receipt.proof)
    assert (result.remedy.action, result.predicted_bytes) == (bed.remedy, grown.told[bed.name].bytes)
    assert result.receipt.ok and result.kept, result
    if bed.remedy != "cleanup":
        assert result.receipt.proof == "nvml-process", result.receipt
    assert leaks(grown.after) == [], explained(grown.after)


def test_small_tensors_are_told_since_they_grow_and_with_the_stage(harvests: Harvests) -> None:
    grown = harvests.of(SMALL)
    (trend,) = (found for found in grown.report.trends if (found.what, found.over) == ("device", "jobs"))
    assert trend.grows and trend.bytes_each == pytest.approx(96 * 1024, rel=0.05), trend
    told = grown.told["small_ones"]
    assert (told.stage, told.component) == ("decode", "vae")


def test_an_unowned_block_is_told_with_the_line_that_asked_for_it(harvests: Harvests) -> None:
    site = harvests.of(HELD).told["unowned"].site
    assert site is not None and (site.file, site.line) == line_of("unowned", "planted")


def test_caches_workspaces_and_the_context_are_told_and_called_no_leak(field: Field) -> None:
    field.fresh_worker()
    field.grow("pinned_cache", spec=LARGE)
    report = field.report()
    assert leaks(report) == [], explained(report)
    kinds: tuple[VerdictKind, ...] = ("cache", "context", "library", "pinned")
    for kind in kinds:
        assert no_leak(report.verdicts, kind), (kind, explained(report))
        assert_needed(field, kind, lambda found, kind=kind: found.kind == kind)
    pinned = max(no_leak(report.verdicts, "pinned"), key=lambda found: found.bytes or 0)
    cache = no_leak(report.verdicts, "cache")[0]
    for found in (pinned, cache):
        assert found.remedy is not None
        result = field.remedy(found.remedy)
        print(found.title, result.predicted_bytes, result.returned_bytes)
        assert result.receipt.ok and result.kept, result
    after = field.report().verdicts
    for found in (pinned, cache):
        assert sum(left.bytes or 0 for left in no_leak(after, found.kind)) < 0.5 * (found.bytes or 0)


def test_fragmentation_is_told_and_called_no_leak(field: Field) -> None:
    field.fresh_worker()
    field.grow("fragments")
    report = field.report()
    assert leaks(report) == [], explained(report)
    (found,) = no_leak(report.verdicts, "fragmented")
    assert found.bytes is not None and found.bytes >= 48 * MIB
    assert_needed(field, "fragmentation", lambda found: found.kind == "fragmented")
    assert found.remedy is not None
    result = field.remedy(found.remedy)
    assert result.receipt.ok and result.kept, result


def test_a_foreign_tenant_is_named_and_called_no_leak_of_ours(
    field: Field, holder: Callable[[str], subprocess.Popen[str]]
) -> None:
    tenant = holder("polite")
    wait_for(lambda: holding(field.live, tenant.pid), 5, "the tenant's bytes")
    report = field.report()
    assert leaks(report) == [], explained(report)
    (found,) = (found for found in no_leak(report.verdicts, "process") if str(tenant.pid) in found.title)
    assert (found.bytes or 0) >= GIB
    assert_needed(field, "process", lambda found: str(tenant.pid) in found.title)
    remedy = found.remedy
    assert remedy is not None and (remedy.action, remedy.pid) == ("kill", tenant.pid)
    result = field.remedy(remedy)
    print(result)
    assert result.receipt.ok and result.kept, result
    assert tenant.wait(5) == -15


def test_jobs_that_leak_nothing_are_told_no_leak(field: Field) -> None:
    field.fresh_worker()
    for number in range(4):
        field.grow(jobs=5)
        report = field.report()
        assert leaks(report) == [], (number, explained(report))
    print(report.elapsed_s, report.objects, report.unknown)
    assert not [trend for trend in report.trends if trend.grows]


@pytest.mark.parametrize(
    ("bed", "number", "detector"),
    [(HELD, 0, "tensor"), (HELD, 2, "unowned"), (HELD, 3, "pinned"), (STREAM, 0, "awaiting")],
    ids=["tensor", "unowned", "pinned", "awaiting"],
)
def test_without_its_detector_a_plant_is_missed(
    harvests: Harvests, bed: Bed, number: int, detector: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant, facts = bed.plants[number], harvests.of(bed).facts
    assert any(map(plant.is_told_by, registry.verdicts(facts)))
    monkeypatch.delitem(registry.ALL, detector)  # type: ignore[arg-type]
    assert not any(map(plant.is_told_by, registry.verdicts(facts)))


def assert_needed(field: Field, detector: str, is_it: Callable[[Verdict], bool]) -> None:
    """That what the newest report told is told by this detector alone."""
    facts = field.facts()
    with pytest.MonkeyPatch.context() as patch:
        assert any(map(is_it, registry.verdicts(facts)))
        patch.delitem(registry.ALL, detector)  # type: ignore[arg-type]
        assert not any(map(is_it, registry.verdicts(facts)))
