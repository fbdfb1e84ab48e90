"""How the console looks, pinned as SVG; `pytest --snapshot-update` after a change that was meant."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from engine.wire import Event, FindingsChanged, MemorySampled, Snapshot
from turbotui.app import TurboApp
from turbotui.client import scene_plans, scenes
from turbotui.text import t
from turbotui.text.spoken import word

from .conftest import NOW, SMALL, WIDE, Clock, live, screen_text, scripted, settled, until

SECONDS = 70
NEWER = (("b",), ("R",), ("X",), ("exclamation_mark",), ("5", "j", "enter"))
ANSWERED: dict[str, Callable[[], str]] = {
    "a": lambda: t("new.fits"),
    "m": lambda: t("switch.same"),
    "R": lambda: t("reset.title", index=2),
    "X": lambda: t("full.title"),
    "exclamation_mark": lambda: word("holders"),
}
"""What is on the screen once the engine has answered, by key."""
NEWER_NAMES = ("findings", "reset", "full-cleanup", "sheet", "process")


def last_minute(scene: str) -> list[Event]:
    """A snapshot, then a sample for each second of the minute before NOW."""
    if scene == "first":
        return [scenes.first_run(NOW)]
    if scene == "cpu":
        events: list[Event] = [scenes.cpu(NOW)]
        for second in range(SECONDS):
            live_bytes = int((60 << 20) * abs(math.sin(second / 9))) if second > 25 else 0
            balance = scenes.host_balance(NOW, weights=(84 << 20) if second > 20 else 0, live=live_bytes)
            events.append(MemorySampled(device=scenes.host(NOW, balance)))
        return events
    events = [scenes.pressed(NOW) if scene == "pressed" else scenes.busy(NOW)]
    events.append(FindingsChanged(report=scene_plans.found(NOW)))
    for second in range(SECONDS):
        live_gib = 3.1 + 2.4 * abs(math.sin(second / 4)) if second > 26 else 0.0
        balance = scenes.gpu_balance(
            NOW, live=live_gib, weights=13.7 if second > 22 else 2.6, unseen=14.0 if second > 8 else 0.0
        )
        events.append(MemorySampled(device=scenes.gpu(NOW, balance)))
    return events


@pytest.fixture
def look(
    snap_compare: Callable[..., bool], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    # The palette of the fixture itself: a person's NO_COLOR must not change the picture.
    monkeypatch.delenv("NO_COLOR", raising=False)

    def check(scene: str, size: tuple[int, int], *keys: str, **settings: Any) -> None:
        events = last_minute(scene)
        app = TurboApp(
            lambda: scripted(
                explain_switch=scenes.switch_plan,
                reset_plan=scene_plans.reset_plan,
                full_cleanup_plan=lambda: scene_plans.full_cleanup_plan(NOW),
            ),
            where="me@gpubox01",
            wall=clock.wall,
            monotonic=clock.monotonic,
            **settings,
        )
        gap = range(31, 34) if scene == "gpu" else range(0)

        async def before(pilot: Any) -> None:
            # The minute is played in the loop itself, so that each sample falls into its own second.
            await until(pilot, lambda: app.link.state.link == "connected")
            for second, event in enumerate(events):
                clock.passed = second - len(events) + 1.0
                if second not in gap or isinstance(event, Snapshot):
                    app.link._take(event)
                    if isinstance(event, MemorySampled) and event.device.balance is not None:
                        app.link.history(event.device.id).add(event.device.balance, clock.wall())
            clock.passed = 0.0
            await live(pilot)
            for key in keys:
                await pilot.press(key)
                await pilot.pause()
            if (answered := ANSWERED.get("".join(keys))) is not None:
                await until(pilot, lambda: answered() in screen_text(app))
                await settled(pilot, 0.2)
            app.dashboard.tick()
            await pilot.pause()

        assert snap_compare(app, terminal_size=size, run_before=before)

    return check


@pytest.mark.parametrize("size", [SMALL, WIDE], ids=["80x24", "120x36"])
@pytest.mark.parametrize("scene", ["gpu", "cpu", "first", "pressed"])
def test_the_dashboard(look: Callable[..., None], scene: str, size: tuple[int, int]) -> None:
    look(scene, size)


@pytest.mark.parametrize("size", [SMALL, WIDE], ids=["80x24", "120x36"])
@pytest.mark.parametrize(
    "keys",
    [*(("m",), ("u",), ("a",), ("enter",), ("question_mark",), ("E",), ("C",), ("W",)), *NEWER],
    ids=[*("switch", "unload", "new-job", "job", "help", "restart", "cleanup", "warm"), *NEWER_NAMES],
)
def test_a_dialog(look: Callable[..., None], keys: tuple[str, ...], size: tuple[int, int]) -> None:
    # At 80x24 the job's page is opened from the queue.
    look("gpu", size, *(("4",) if keys == ("enter",) else ()), *keys, restart_engine=lambda: None)


@pytest.mark.parametrize("tab", ["3", "4", "5", "6"])
def test_a_tab_at_80x24(look: Callable[..., None], tab: str) -> None:
    look("gpu", SMALL, tab)


@pytest.mark.parametrize("theme", ["light", "high-contrast", "terminal16"])
def test_a_theme(look: Callable[..., None], theme: str) -> None:
    look("gpu", WIDE, theme=theme)


def test_chinese(look: Callable[..., None]) -> None:
    look("cpu", WIDE, language="zh_CN")


def test_findings_in_chinese(look: Callable[..., None]) -> None:
    look("gpu", SMALL, "b", language="zh_CN")


def test_a_large_terminal(look: Callable[..., None]) -> None:
    look("gpu", (200, 50))
