"""How the screen of leaks looks, pinned as SVG."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from turbotui.app import TurboApp
from turbotui.client import scene_leaks, scenes

from .conftest import NOW, SMALL, WIDE, Clock, live, screen_text, scripted, until

LARGE = (200, 50)
SHOWN = {
    "leaks": ((), WIDE, "en"),
    "leaks-large": ((), LARGE, "en"),
    "leaks-small": ((), SMALL, "en"),
    "leaks-segments": (("right", "right"), SMALL, "en"),
    "leaks-chinese": ((), WIDE, "zh_CN"),
    "leaks-chinese-small": (("right",), SMALL, "zh_CN"),
    "remedy": (("f",), WIDE, "en"),
    "verdict": (("enter",), SMALL, "en"),
}
"""Keys after the report has come, the terminal's size and the language."""


@pytest.mark.parametrize("name", SHOWN)
def test_the_screen_of_leaks(
    snap_compare: Callable[..., bool], clock: Clock, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    keys, size, language = SHOWN[name]
    _look(snap_compare, clock, monkeypatch, keys, size, language, "")


@pytest.mark.parametrize("size", [SMALL, WIDE], ids=["80x24", "120x36"])
def test_without_colours(
    snap_compare: Callable[..., bool], clock: Clock, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    _look(snap_compare, clock, monkeypatch, ("right", "right"), size, "en", "1")


def _look(
    snap_compare: Callable[..., bool],
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    keys: tuple[str, ...],
    size: tuple[int, int],
    language: str,
    no_color: str,
) -> None:
    if no_color:
        monkeypatch.setenv("NO_COLOR", no_color)
    else:
        monkeypatch.delenv("NO_COLOR", raising=False)
    engine = scripted(scenes.busy(NOW), leaks=scene_leaks.leak_report(NOW))
    app = TurboApp(
        lambda: engine,
        where="me@gpubox01",
        wall=clock.wall,
        monotonic=clock.monotonic,
        language=language,
    )

    async def before(pilot: Any) -> None:
        await live(pilot)
        await pilot.press("l")
        await until(pilot, lambda: "81,204" in screen_text(app), "a report")
        await until(pilot, lambda: bool(getattr(app.screen, "painted", False)))
        await pilot.press(*keys)
        app.dashboard.tick()
        await pilot.pause()

    assert snap_compare(app, terminal_size=size, run_before=before)
