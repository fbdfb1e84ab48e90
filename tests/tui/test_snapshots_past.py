"""How moments that are over look, pinned as SVG; `pytest --snapshot-update` after a change that was meant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.wire import MemorySampled
from turbotui.app import TurboApp

from .conftest import NOW, SMALL, WIDE, Clock, live, panel_text, screen_text, scripted, until
from .nights import CAME, SPIKE, STOPPED, night
from .test_snapshots import last_minute

LARGE = (200, 50)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return night(tmp_path_factory.mktemp("recorded") / "night.ttrec")


@pytest.fixture
def look(
    snap_compare: Callable[..., bool], clock: Clock, monkeypatch: pytest.MonkeyPatch, recorded: Path
) -> Callable[..., None]:
    monkeypatch.delenv("NO_COLOR", raising=False)

    def check(size: tuple[int, int], at: float, width_s: int, told: str, **settings: Any) -> None:
        app = TurboApp(
            scripted, where="me@gpubox01", wall=clock.wall, monotonic=clock.monotonic, recordings=recorded,
            **settings,
        )  # fmt: skip

        async def before(pilot: Any) -> None:
            await until(pilot, lambda: app.link.state.link == "connected")
            events = last_minute("gpu")
            for second, event in enumerate(events):
                clock.passed = second - len(events) + 1.0
                app.link._take(event)
                if isinstance(event, MemorySampled) and event.device.balance is not None:
                    app.link.history(event.device.id).add(event.device.balance, clock.wall())
            clock.passed = 0.0
            await live(pilot)
            await pilot.press("2")
            # The moment stands in the right half, and what is around it is to be read first.
            last = min(int(at // width_s) + 20, int(NOW // width_s))
            app.dashboard._go(replace(app.dashboard.cursor, at=at, width_s=width_s, last=last))
            await until(pilot, lambda: told in panel_text(app, "history"), told)
            await until(pilot, lambda: "reading the recording" not in screen_text(app), "the moment")
            app.dashboard.tick()
            await pilot.pause()

        assert snap_compare(app, terminal_size=size, run_before=before)

    return check


@pytest.mark.parametrize("size", [SMALL, WIDE, LARGE], ids=["80x24", "120x36", "200x50"])
def test_seconds_ago(look: Callable[..., None], size: tuple[int, int]) -> None:
    look(size, NOW - 23.7, 1, "began")


@pytest.mark.parametrize("size", [SMALL, WIDE, LARGE], ids=["80x24", "120x36", "200x50"])
def test_the_neighbour_of_the_night(look: Callable[..., None], size: tuple[int, int]) -> None:
    look(size, CAME, 10, "appeared")


def test_a_spike_ten_minutes_a_column(look: Callable[..., None]) -> None:
    look(WIDE, SPIKE + 5, 600, "84.5 GiB taken")


@pytest.mark.parametrize("language", ["en", "zh_CN"])
def test_a_gap(look: Callable[..., None], language: str) -> None:
    told = "no engine ran" if language == "en" else "没有引擎运行"
    look(WIDE, STOPPED + 1800, 60, told, language=language)


def test_a_light_theme(look: Callable[..., None]) -> None:
    look(WIDE, CAME + 60, 60, "taken", theme="light")
