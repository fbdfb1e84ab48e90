"""An answer that comes after its screen was left is for nobody: nothing of the screen is drawn again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from engine.wire import AuditPage, CheckReport
from turbotui.app import TurboApp
from turbotui.client import scene_leaks, scene_plans, scenes
from turbotui.screens.window import WindowScreen

from .conftest import NOW, WIDE, live, scripted, until

Build = Callable[..., TurboApp]


@pytest.mark.parametrize(
    ("keys", "asked", "answer"),
    [
        (("t",), "audit", AuditPage(lines=(), older=False)),
        (("b", "r"), "check", CheckReport(at=NOW, elapsed_s=0.1, findings=(), new=0, clean_at=NOW)),
        (("l",), "leaks", scene_leaks.leak_report(NOW)),
        (("exclamation_mark",), "reset_plan", scene_plans.reset_plan("0")),
        (("m",), "explain_switch", None),
    ],
)
async def test_what_comes_late_draws_nothing(
    console: Build, keys: tuple[str, ...], asked: str, answer: Any
) -> None:
    answers = threading.Event()

    def wait(*question: Any) -> Any:
        assert answers.wait(10)
        return answer if answer is not None else scenes.switch_plan(*question)

    client = scripted(scenes.busy(NOW), **{asked: wait})
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press(keys[0])
        screen = app.screen
        assert isinstance(screen, WindowScreen)
        await until(pilot, lambda: screen.painted)
        await pilot.press(*keys[1:])
        await until(pilot, lambda: any(name == asked for name, *_ in client.asked))
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.dashboard)
        drawn: list[str] = []
        screen.refresh_panel = lambda: drawn.append("window")  # type: ignore[method-assign]
        screen.panel.redraw = lambda: drawn.append("panel")  # type: ignore[method-assign]
        before = [thread for thread in threading.enumerate() if thread.name.startswith("call-")]
        answers.set()
        await until(pilot, lambda: not any(thread.is_alive() for thread in before))
        await pilot.pause()
        assert not drawn
