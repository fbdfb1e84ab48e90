"""Keys that were sent before a dialog was in sight, and keys that repeat, do nothing in any that acts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from turbotui.app import TurboApp
from turbotui.client import scene_plans, scenes
from turbotui.echo import ASK, LATE_S, TRIES, WAIT_S, Echo
from turbotui.screens.window import WindowScreen

from .conftest import NOW, WIDE, burst, live, scripted, until
from .test_danger import plan

Build = Callable[..., TurboApp]

ACTS = {
    "C": (("C",), ("right", "enter"), "cleanup"),
    "E": (("E",), ("right", "enter"), "restart"),
    "K": (("5", "j", "K"), ("right", "enter", "right", "enter"), "kill"),
    "R": (("R",), ("2", "right", "enter"), "reset"),
    "X": (("X",), ("right", "enter"), "full_cleanup"),
    "m": (("m",), ("down", "enter"), "switch"),
    "u": (("u",), ("enter",), "unload"),
    "W": (("W",), ("enter",), "warm"),
    "job": (("4", "G", "enter"), ("d",), "duplicate"),
}
"""By name: what opens the dialog, what agrees in it, and what is asked of the engine then."""
DOES = {
    "cleanup",
    "restart",
    "kill",
    "reset",
    "full_cleanup",
    "switch",
    "unload",
    "warm",
    "drop_warm",
    "duplicate",
}


def acted(client: Any) -> set[str]:
    return {call[0] for call in client.asked} & DOES


@pytest.fixture
def acting(console: Build) -> tuple[TurboApp, Any]:
    client = scripted(
        scenes.busy(NOW),
        explain_switch=scenes.switch_plan,
        reset_plan=plan(),
        full_cleanup_plan=lambda: scene_plans.full_cleanup_plan(NOW),
    )
    return console(client, restart_engine=lambda: client.asked.append(("restart",))), client


async def test_keys_sent_before_a_dialog_was_in_sight_do_nothing_in_it(
    acting: tuple[TurboApp, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    app, client = acting
    monkeypatch.setattr(WindowScreen, "_now_painted", lambda self: None)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        for name, (opens, agrees, _asked) in ACTS.items():
            await pilot.press(*opens)
            await until(pilot, lambda: app.screen is not app.dashboard, f"{name} opens")
            await pilot.press(*agrees)
            await pilot.pause()
            assert not acted(client), name
            while app.screen is not app.dashboard:
                await pilot.press("escape")
                await pilot.pause()
        # The sheet begins nothing either.
        await pilot.press("exclamation_mark", "C", "right", "enter", "escape")
        await pilot.pause()
        assert not acted(client)


async def test_the_same_keys_act_once_it_is(acting: tuple[TurboApp, Any]) -> None:
    app, client = acting
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        for name, (opens, agrees, asked) in ACTS.items():
            await pilot.press(*opens)
            await until(pilot, lambda: app.screen is not app.dashboard, f"{name} opens")
            await pilot.pause()
            await pilot.press(*agrees)
            await until(pilot, lambda: bool(acted(client)), f"{name} acts")
            assert asked in acted(client) or acted(client) == {"drop_warm"}, name
            client.asked.clear()
            while app.screen is not app.dashboard:
                await pilot.press("escape")
                await pilot.pause()


async def test_a_key_that_repeats_ends_nothing(acting: tuple[TurboApp, Any]) -> None:
    app, client = acting
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        for key in ("C", "E", "K", "R", "X"):
            await pilot.press("5", *[key] * 12)
            await pilot.pause()
            await pilot.press(*["enter"] * 12)
            await pilot.pause()
            assert not acted(client), key
            while app.screen is not app.dashboard:
                await pilot.press("escape")
                await pilot.pause()


async def test_keys_of_one_write_end_a_dialog_once(acting: tuple[TurboApp, Any]) -> None:
    app, client = acting
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        for opens in ("C", "m", "t", "exclamation_mark", "question_mark"):
            await pilot.press(opens)
            await until(pilot, lambda: getattr(app.screen, "painted", False), opens)
            screen = app.screen
            screen.dismiss(None)
            screen.dismiss(None)
            await until(pilot, lambda: app.screen is app.dashboard)
            await pilot.pause()
        await pilot.press("C")
        await until(pilot, lambda: getattr(app.screen, "painted", False))
        await burst(pilot, *["enter"] * 5)
        await pilot.pause()
        assert not acted(client) and app.is_running


def test_a_terminal_says_when_it_has_drawn_or_is_not_waited_for() -> None:
    written: list[str] = []
    timers: list[tuple[float, Callable[[], None]]] = []
    drawn: list[int] = []
    echo = Echo(written.append, lambda after, call: timers.append((after, call)))
    echo.when_drawn(lambda: drawn.append(1))
    echo.when_drawn(lambda: drawn.append(2))
    assert written == [ASK, ASK] and not drawn
    echo.answered()
    assert drawn == [1]
    echo.answered()
    echo.answered()  # asked by somebody else
    assert drawn == [1, 2]
    for _after, call in timers:
        call()
    assert drawn == [1, 2]
    echo.when_drawn(lambda: drawn.append(3))
    assert timers[-1][0] == WAIT_S
    timers[-1][1]()  # a hitch: this one was waited for long enough, and the next is asked again
    assert drawn == [1, 2, 3]
    for number in range(4, 4 + TRIES):
        echo.when_drawn(lambda number=number: drawn.append(number))  # type: ignore[misc]
        assert drawn[-1] == number - 1
        echo.answered()  # late: it is the hitch's, and nobody's any more
        assert drawn[-1] == number - 1
        echo.answered()
        assert drawn[-1] == number
        echo.when_drawn(lambda: None)
        timers[-1][1]()


def test_a_terminal_that_never_answers_is_asked_a_few_times_and_again_once_it_does() -> None:
    written: list[str] = []
    timers: list[tuple[float, Callable[[], None]]] = []
    drawn: list[int] = []
    echo = Echo(written.append, lambda after, call: timers.append((after, call)))
    for number in range(TRIES):
        echo.when_drawn(lambda: drawn.append(0))
        assert len(drawn) == number
        next(call for after, call in reversed(timers) if after == WAIT_S)()
    echo.when_drawn(lambda: drawn.append(9))
    assert drawn[-1] == 9 and len(written) == TRIES
    echo.answered()
    echo.when_drawn(lambda: drawn.append(10))
    assert drawn[-1] == 9 and len(written) == TRIES + 1
    # Answers that never came are forgotten, so that the next one is the newest question's.
    for call in [call for after, call in timers if after == LATE_S]:
        call()
    echo.answered()
    assert drawn[-1] == 10
