"""How the dashboard looks on hosts with one, two and eight GPUs, pinned as SVG."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.wire import MemorySampled, Snapshot
from turbotui.app import TurboApp
from turbotui.client import scene_gpus
from turbotui.seen import Seen, save_seen

from .conftest import NOW, SMALL, WIDE, Clock, live, scripted, until
from .test_snapshots import last_minute

LARGE = (200, 50)
SIZES = pytest.mark.parametrize("size", [SMALL, WIDE, LARGE], ids=["80x24", "120x36", "200x50"])


@pytest.fixture
def look(
    snap_compare: Callable[..., bool], clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., None]:
    monkeypatch.delenv("NO_COLOR", raising=False)

    def check(count: int, size: tuple[int, int], *keys: str, **settings: Any) -> None:
        seen = tmp_path / "console.json"
        save_seen(seen, Seen(left_at=NOW - 16 * 3600))
        app = TurboApp(
            lambda: scripted(),
            where="me@gpubox01",
            wall=clock.wall,
            monotonic=clock.monotonic,
            seen_path=seen,
            **settings,
        )
        events = last_minute("gpu")

        async def before(pilot: Any) -> None:
            # Each sample falls into its own second, as in the other snapshots, here for each GPU.
            await until(pilot, lambda: app.link.state.link == "connected")
            for second, event in enumerate(events):
                clock.passed = second - len(events) + 1.0
                if isinstance(event, Snapshot) and count > 1:
                    event = scene_gpus.shared(NOW, count)
                if isinstance(event, MemorySampled) and count > 1:
                    event = replace(event, device=scene_gpus.own_gpu(NOW, count, event.device.balance))
                app.link._take(event)
                for device in app.link.state.devices:
                    if device.balance is not None and second:
                        app.link.history(device.id).add(device.balance, clock.wall())
            clock.passed = 0.0
            await live(pilot)
            for key in keys:
                await pilot.press(key)
                await pilot.pause()
            app.dashboard.tick()
            await pilot.pause()

        assert snap_compare(app, terminal_size=size, run_before=before)

    return check


@SIZES
@pytest.mark.parametrize("count", [1, 2, 8])
def test_the_dashboard_on_hosts(look: Callable[..., None], count: int, size: tuple[int, int]) -> None:
    look(count, size)


@SIZES
def test_another_gpu_is_looked_at(look: Callable[..., None], size: tuple[int, int]) -> None:
    look(8, size, "]", "]", "]")


def test_another_gpu_in_chinese_without_acting(look: Callable[..., None]) -> None:
    look(8, WIDE, "]", language="zh_CN", read_only=True)


@pytest.mark.parametrize("theme", ["light", "high-contrast", "terminal16"])
def test_eight_gpus_in_a_theme(look: Callable[..., None], theme: str) -> None:
    look(8, WIDE, theme=theme)
