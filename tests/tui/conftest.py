"""Consoles over scripted engines, with a clock that stands still and one time zone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from textual import _wait
from textual.events import Key
from textual.keys import _character_to_key

from engine.wire import Event
from turbotui.app import TurboApp
from turbotui.client.script import Step
from turbotui.client.scripted import ScriptedClient
from turbotui.text import use_language

NOW = 1_790_000_000.0
"""2026-09-21 14:13:20 UTC."""
WIDE = (120, 36)
SMALL = (80, 24)

# After each key Textual looks in such steps, two at the least, whether the console still computes: most of
# the time that these tests take. Half as long shows it still; a quarter not always.
_wait.SLEEP_GRANULARITY = 1 / 100
_wait.SLEEP_IDLE = _wait.SLEEP_GRANULARITY / 20


@pytest.fixture(autouse=True)
def _one_time_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()
    use_language("en")


class Clock:
    """Wall and monotonic time that move only by hand."""

    def __init__(self) -> None:
        self.passed = 0.0

    def wall(self) -> float:
        return NOW + self.passed

    def monotonic(self) -> float:
        return 1000.0 + self.passed


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def console(clock: Clock, tmp_path: Path) -> Callable[..., TurboApp]:
    """Builds an app over a client, or over a list of events."""

    def build(source: ScriptedClient | list[Event], **settings: Any) -> TurboApp:
        client = source if isinstance(source, ScriptedClient) else scripted(*source)
        settings.setdefault("draft_path", tmp_path / "draft.json")
        settings.setdefault("where", "me@gpubox01")
        return TurboApp(lambda: client, wall=clock.wall, monotonic=clock.monotonic, **settings)

    return build


def scripted(*events: Event, **answers: Any) -> ScriptedClient:
    return ScriptedClient([Step(event=event) for event in events], answers=answers)


async def until(pilot: Any, condition: Callable[[], bool], what: str = "") -> None:
    """Wait for what a thread brings about; two seconds are plenty."""
    deadline = time.monotonic() + 3.0
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what or condition}"
        await pilot.pause(0.02)
    await pilot.pause()


async def live(pilot: Any) -> None:
    """Wait until the script's snapshot is drawn."""
    await until(pilot, lambda: pilot.app.link.state.engine is not None, "a snapshot")
    pilot.app.dashboard.tick()
    await pilot.pause()


async def burst(pilot: Any, *keys: str) -> None:
    """Keys in one write: the console sees the second before the first has had its effect.

    So is a long text typed, too: `pilot.press` waits after each letter.
    """
    for key in keys:
        character = key if len(key) == 1 else None
        pilot.app.post_message(Key(key if character is None else _character_to_key(character), character))
    await pilot.pause(0.1)


async def settled(pilot: Any, for_s: float = 0.5) -> None:
    """Wait until nothing has moved for so long: answers that come late make a dialog higher."""
    deadline = time.monotonic() + 5.0
    shown, since = screen_text(pilot.app), time.monotonic()
    while time.monotonic() - since < for_s:
        assert time.monotonic() < deadline, "it never comes to rest"
        await pilot.pause(0.05)
        now = screen_text(pilot.app)
        if now != shown:
            shown, since = now, time.monotonic()


def screen_text(app: TurboApp) -> str:
    """What is on the screen, row by row."""
    return "\n".join(strip.text for strip in app.screen._compositor.render_strips())


def panel_text(app: TurboApp, panel_id: str) -> str:
    panel = app.dashboard.query_one(f"#{panel_id}")
    return "\n".join(panel.render_line(y).text for y in range(panel.size.height))
