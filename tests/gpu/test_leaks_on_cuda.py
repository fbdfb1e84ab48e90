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
from tests.leaks.field import LARGE, MIB, Field, leaks
from tests.leaks.harvest import Harvests, Plant, explained

MANY = ("global_device", "hook", "unowned", "pinned")


@contextmanager
def many_at_once(field: Field) -> Iterator[None]:
    """Grown in one job, so that a worker is started once for them."""
    field.grow(*MANY)
    yield


@contextmanager
def a_stream_that_waits(field: Field) -> Iterator[None]:
    """Looked at twice: what waits right after a job is in order, what still waits later is not."""
    field.grow("second_stream")
    first = field.report()
    assert leaks(first) == [], explained(first)
    yield


DEVICE = Plant(name="global_device", holder="global", bytes=16 * MIB, grow=many_at_once)
BESIDE = (
    Plant(name="hook", holder="hook", bytes=4 * MIB),
    Plant(name="unowned", kind="unowned_tensor", bytes=32 * MIB),
    Plant(name="pinned", kind="pinned", holder="global", bytes=32 * MIB, traced=False),
)
"""In the same job as `DEVICE`. The host's memory is not traced beside a GPU."""
CYCLE = Plant(name="cycle", holder="cycle", bytes=16 * MIB, remedy="collect", holder_line=False)
SMALL = Plant(name="small_ones", holder="global", bytes=9 * 96 * 1024, jobs=9, traced=False)
STREAM = Plant(
    name="second_stream", kind="awaiting_free", bytes=64 * MIB, remedy="free", grow=a_stream_that_waits
)


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


def told(verdicts: tuple[Verdict, ...], kind: VerdictKind) -> list[Verdict]:
    """Those that say that this is no leak."""
    return [found for found in verdicts if found.kind == kind and not found.leak]


def test_what_python_c_code_and_pinned_buffers_hold_is_told_apart_with_its_lines(harvests: Harvests) -> None:
    grown = harvests.of(DEVICE)
    for plant in (DEVICE, *BESIDE):
        (found,) = (found for found in grown.report.verdicts if plant.is_told_by(found))
        assert found.bytes == pytest.approx(plant.bytes, rel=0.1), found
    assert len(leaks(grown.report)) == len(MANY), explained(grown.report)
    assert grown.result.receipt.ok and grown.result.kept, grown.result
    assert leaks(grown.after) == [], explained(grown.after)


@pytest.mark.parametrize("plant", [CYCLE, STREAM], ids=lambda plant: plant.name)
def test_what_can_be_given_back_alone_comes_back_by_the_drivers_count(
    harvests: Harvests, plant: Plant
) -> None:
    grown = harvests.of(plant)
    assert leaks(grown.report) == [grown.told], explained(grown.report)
    assert grown.told.bytes == pytest.approx(plant.bytes, rel=0.1)
    result = grown.result
    assert (result.remedy.action, result.predicted_bytes) == (plant.remedy, grown.told.bytes)
    assert result.kept and result.receipt.proof == "nvml-process", result
    assert leaks(grown.after) == [], explained(grown.after)


def test_small_tensors_are_told_since_they_grow_and_with_the_stage(harvests: Harvests) -> None:
    grown = harvests.of(SMALL)
    (trend,) = (found for found in grown.report.trends if (found.what, found.over) == ("device", "jobs"))
    assert trend.grows and trend.bytes_each == pytest.approx(96 * 1024, rel=0.05), trend
    assert (grown.told.stage, grown.told.component) == ("decode", "vae")
    assert leaks(grown.report) == [grown.told], explained(grown.report)


def test_caches_workspaces_and_the_context_are_told_and_called_no_leak(field: Field) -> None:
    field.fresh_worker()
    field.grow("pinned_cache", spec=LARGE)
    report = field.report()
    assert leaks(report) == [], explained(report)
    for kind in ("cache", "context", "library", "pinned"):
        assert told(report.verdicts, kind), (kind, explained(report))  # type: ignore[arg-type]
    pinned = max(told(report.verdicts, "pinned"), key=lambda found: found.bytes or 0)
    cache = told(report.verdicts, "cache")[0]
    for found in (pinned, cache):
        assert found.remedy is not None
        result = field.remedy(found.remedy)
        print(found.title, result.predicted_bytes, result.returned_bytes)
        assert result.receipt.ok and result.kept, result
    after = field.report().verdicts
    for found in (pinned, cache):
        assert sum(left.bytes or 0 for left in told(after, found.kind)) < 0.5 * (found.bytes or 0)
    for name in ("cache", "context", "library", "pinned"):
        assert_needed(field, name, lambda found, name=name: found.kind == name)


def test_fragmentation_is_told_and_called_no_leak(field: Field) -> None:
    field.fresh_worker()
    field.grow("fragments")
    report = field.report()
    assert leaks(report) == [], explained(report)
    (found,) = told(report.verdicts, "fragmented")
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
    (found,) = (found for found in told(report.verdicts, "process") if str(tenant.pid) in found.title)
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
    ("plant", "detector"),
    [(DEVICE, "tensor"), (BESIDE[1], "unowned"), (BESIDE[2], "pinned"), (STREAM, "awaiting")],
    ids=lambda value: value.name if isinstance(value, Plant) else value,
)
def test_without_its_detector_a_plant_is_missed(
    harvests: Harvests, plant: Plant, detector: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = harvests.of(DEVICE if plant in BESIDE else plant).facts
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
