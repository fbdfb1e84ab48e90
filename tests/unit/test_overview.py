"""The look once a second: what of it is published and logged, and what goes unasked."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from engine.config import EngineConfig
from engine.daemon import overview
from engine.daemon.memory import CONTEXT_GUESS_BYTES, MemoryView
from engine.daemon.overview import Overview
from engine.embeddings import EmbeddingUsage
from engine.telemetry.samples import DeviceReading, HostReading, ProcessReading
from engine.units import GIB
from engine.wire import BackgroundChanged, DeviceStatus, Event, Job, ModelStatus, PressureChanged, Receipt
from turbotui.client import scenes

NOW = 1_790_000_000.0
IDLE = replace(
    scenes.gpu_models(NOW)[1],
    components=tuple(replace(part, state="resident") for part in scenes.gpu_models(NOW)[1].components),
)


class World:
    """An overview over a GPU that the test fills, and what it told and did."""

    def __init__(self, **config: Any) -> None:
        self.devices: list[DeviceStatus] = []
        self.host: HostReading | None = None
        self.models: tuple[ModelStatus, ...] = (IDLE,)
        self.running: Job | None = None
        self.runnable: tuple[Job, ...] = ()
        self.peak: int | None = None
        self.busy = False
        self.events: list[Event] = []
        self.log: list[str] = []
        self.freed: list[bool] = []
        self.now = 0.0
        world = self

        class Memory:
            statuses = staticmethod(lambda: tuple(world.devices))
            host = property(lambda _self: world.host)
            used_at = staticmethod(lambda peak: world.peak)

        async def free(*, idle: bool) -> Receipt:
            self.freed.append(idle)
            return scenes.receipt(NOW)

        self.supervisor = SimpleNamespace(
            worker=object(),
            starting=False,
            warm=SimpleNamespace(registered_bytes=57 * GIB),
            statuses=lambda: (),
            device_lock=SimpleNamespace(locked=lambda: self.busy),
        )
        self.overview = Overview(
            EngineConfig(**config),
            memory=Memory(),  # type: ignore[arg-type]
            supervisor=self.supervisor,  # type: ignore[arg-type]
            queue=SimpleNamespace(running=None),  # type: ignore[arg-type]
            store=SimpleNamespace(  # type: ignore[arg-type]
                count_waiting=lambda: len(self.runnable), list_runnable=lambda: self.runnable
            ),
            actions=SimpleNamespace(free=free),  # type: ignore[arg-type]
            embeddings=SimpleNamespace(usage=lambda: EmbeddingUsage(entries=0, bytes=0)),  # type: ignore[arg-type]
            logbook=SimpleNamespace(write=lambda event, text, **_: self.log.append(f"{event} {text}")),  # type: ignore[arg-type]
            publish=self.events.append,
            models=lambda: self.models,
        )

    async def look(self, free_gib: float, seconds: float = 1.0) -> None:
        """A second with so much free."""
        balance = scenes.gpu_balance(NOW)
        parts = tuple(
            replace(part, bytes=scenes.gib(free_gib)) if part.kind == "free" else part
            for part in balance.parts
        )
        self.devices = [scenes.gpu(NOW, replace(balance, parts=parts))]
        self.now += seconds
        self.overview.look()
        await asyncio.sleep(0)

    def told(self, kind: type[Event]) -> int:
        return sum(isinstance(event, kind) for event in self.events)

    def pressure_lines(self) -> list[str]:
        return [line for line in self.log if line.startswith("pressure")]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Any:
    made: list[World] = []

    def build(**config: Any) -> World:
        made.append(World(**config))
        monkeypatch.setattr(overview, "time", SimpleNamespace(monotonic=lambda: made[-1].now))
        return made[-1]

    return build


async def test_pressure_is_logged_as_its_level_changes_and_published_while_its_figures_do(world: Any) -> None:
    one = world()
    for free in (100, 100, 15, 15, 14, 3, 3):
        await one.look(free)
    assert [line.split(":")[0] for line in one.pressure_lines()] == ["pressure warn", "pressure act"]
    assert one.told(PressureChanged) == 3
    for _ in range(8):
        await one.look(100)
    assert one.pressure_lines()[-1].startswith("pressure over: 29 %")
    before = one.told(PressureChanged)
    await one.look(99)
    assert one.told(PressureChanged) == before
    assert one.freed == []  # nothing is dropped unasked


async def test_the_three_lines_are_logged_once_the_resident_set_has_settled(world: Any) -> None:
    one = world()
    for _ in range(4):
        await one.look(100)
    lines = [line for line in one.log if line.startswith("background")]
    assert len(lines) == 3 and one.told(BackgroundChanged) == 1
    one.models = ()
    for _ in range(3):
        await one.look(100)
    assert one.told(BackgroundChanged) == 2 and "wan2.1-1.3b" in lines[1]
    (changed,) = [line for line in one.log if line.startswith("background")][3:]
    assert "Active models" in changed and IDLE.name not in changed, "the others are as they were told"


@pytest.mark.parametrize(("policy", "freed"), [("none", []), ("cache", [False]), ("idle", [True])])
async def test_what_the_settings_name_goes_once_at_the_second_threshold(
    world: Any, policy: str, freed: list[bool]
) -> None:
    one = world(pressure_drop=policy)
    await one.look(15)
    assert one.freed == []
    for _ in range(5):
        await one.look(3)
    assert one.freed == freed
    await one.look(3, seconds=30)
    assert one.freed == freed * 2


async def test_nothing_goes_under_a_switch_without_a_worker_or_for_a_prediction(world: Any) -> None:
    one = world(pressure_drop="idle")
    one.busy = True
    await one.look(3)
    one.busy, one.supervisor.worker = False, None
    await one.look(3)
    one.supervisor.worker = object()
    one.runnable, one.peak = scenes.gpu_jobs(NOW)[3:4], scenes.gib(139)
    await one.look(100)
    assert one.overview.pressure[0].level == "act"
    assert (one.overview.pressure[0].predicted_job, one.freed) == (42, [])
    await one.look(3)
    assert one.freed == [True]


async def test_a_small_cache_is_left_alone(world: Any) -> None:
    one = world(pressure_drop="idle")
    one.models = scenes.gpu_models(NOW)  # all of it in use
    await one.look(3)
    assert one.freed == [True]  # its cache of 0.4 GiB
    leased = world(pressure_drop="cache")
    leased.models = ()
    balance = scenes.gpu_balance(NOW)
    parts = tuple(
        replace(part, bytes=0) if part.kind in ("free", "releasable") else part for part in balance.parts
    )
    leased.devices = [scenes.gpu(NOW, replace(balance, parts=parts))]
    leased.overview.look()
    assert leased.freed == [] and leased.overview.pressure[0].level == "act"


async def test_the_hosts_memory_presses_apart_and_offers_the_warm_tier(world: Any) -> None:
    one = world()
    one.host = HostReading(
        taken_at=0.0, total_bytes=100 * GIB, available_bytes=2 * GIB, limited_by_cgroup=True, rss_bytes={}
    )
    await one.look(100)
    device, host = one.overview.pressure
    assert (device.level, host.device_id, host.level) == ("none", "host", "act")
    assert [(offer.what, offer.bytes) for offer in host.offers] == [("warm", 57 * GIB)]
    assert "host memory in use" in one.pressure_lines()[0]


def test_a_predicted_peak_counts_others_and_a_context_and_not_what_of_ours_would_go() -> None:
    view = MemoryView(EngineConfig(), on_status=lambda status: None, label=lambda pid: None)
    view.device_id = "GPU-1"
    assert view.used_at(GIB) is None
    view.worker_started(7, "GPU-1")
    view.heard(
        DeviceReading(
            taken_at=1.0, device_id="GPU-1", index=0, name="x", total_bytes=100 * GIB, used_bytes=70 * GIB,
            reserved_bytes=None, reserved_inside_used=True, free_bytes=30 * GIB,
            processes=(ProcessReading(pid=7, bytes=50 * GIB), ProcessReading(pid=8, bytes=20 * GIB)),
        )
    )  # fmt: skip
    assert view.used_at(33 * GIB) == 20 * GIB + CONTEXT_GUESS_BYTES + 33 * GIB
