"""What a screen behind a dialog sends: all that changes of it, soon, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pyte
import pytest
from textual._compositor import ChopsUpdate, Compositor, LayoutUpdate
from textual.events import Key

from engine.wire import JobChanged
from turbotui.app import TurboApp
from turbotui.client import scenes
from turbotui.output import LeanUpdate

from .conftest import NOW, SMALL, WIDE, Clock, live

Build = Callable[..., TurboApp]


class Sent:
    """A terminal that was sent what the compositor has made since."""

    def __init__(self, app: TurboApp) -> None:
        self._app = app
        self._screen = pyte.Screen(*app.size)
        self._stream = pyte.Stream(self._screen)
        self.bytes = 0

    def take(self, update: ChopsUpdate | LayoutUpdate) -> None:
        text = LeanUpdate(update).render_segments(self._app.console)
        self.bytes += len(text.encode())
        self._stream.feed(text)

    @property
    def text(self) -> str:
        return "\n".join(self._screen.display)

    @property
    def header(self) -> str:
        return str(self._screen.display[0])


@contextmanager
def sent(app: TurboApp) -> Iterator[Sent]:
    taken, render = Sent(app), Compositor.render_update

    def told(self: Compositor, *args: Any, **kwargs: Any) -> Any:
        update = render(self, *args, **kwargs)
        if isinstance(update, ChopsUpdate | LayoutUpdate):
            taken.take(update)
        return update

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Compositor, "render_update", told)
        yield taken


@pytest.mark.parametrize(("size", "keys"), [(WIDE, ("question_mark",)), (WIDE, ("l",)), (SMALL, ("m",))])
async def test_header_and_clock_go_on_behind_a_dialog(
    console: Build, clock: Clock, size: tuple[int, int], keys: tuple[str, ...]
) -> None:
    app = console([scenes.busy(NOW)])
    async with app.run_test(size=size) as pilot:
        await live(pilot)
        await pilot.press(*keys)
        assert app.screen is not app.dashboard
        await pilot.pause(0.3)
        job = app.link.state.running
        assert job is not None and job.progress is not None
        with sent(app) as terminal:
            app.screen.refresh()
            await pilot.pause(0.1)
            assert "14:13" in terminal.header
            terminal.bytes = 0
            for step in range(1, 7):
                clock.passed = float(step)
                progress = replace(job.progress, eta_s=60.0 - step)
                app.link._take(JobChanged(job=replace(job, progress=progress)))
                app.dashboard.tick()
                await pilot.pause(0.05)
                assert f"14:13:{20 + step}" in terminal.header or size == SMALL, terminal.header
                if size == WIDE:
                    assert f"~{60 - step}" in terminal.header, terminal.header
            if size == SMALL:  # its clock shows no seconds
                clock.passed = 60.0
                app.dashboard.tick()
                await pilot.pause(0.05)
                assert "14:14" in terminal.header
            assert terminal.bytes < 7 * 1500


async def test_what_is_typed_into_a_dialog_is_shown_while_much_changes_behind_it(
    console: Build, clock: Clock
) -> None:
    app = console([scenes.busy(NOW)])
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("m")
        await pilot.pause(0.3)
        with sent(app) as terminal:
            app.screen.refresh()
            await pilot.pause(0.1)
            typed = ""
            for step, letter in enumerate("wan2 wan2"):
                clock.passed += 1.0
                app.dashboard.tick()
                # Between the change behind and its drawing, sooner and later.
                await asyncio.sleep(step * 0.003)
                app.post_message(Key(letter, letter) if letter != " " else Key("ctrl+u", None))
                typed = "" if letter == " " else typed + letter
                await pilot.pause(0.15)
                assert f" {typed}▏" in terminal.text or not typed, (step, terminal.text)
                assert f":{20 + step + 1} " in terminal.header


async def test_behind_a_dialog_pictures_are_drawn_twice_a_second(console: Build) -> None:
    app = console([scenes.busy(NOW)])
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        assert app.dashboard._interval == pytest.approx(0.1)
        await pilot.press("question_mark")
        app.dashboard.tick()
        assert app.dashboard._interval == pytest.approx(0.5)
        await pilot.press("escape")
        app.dashboard.tick()
        assert app.dashboard._interval == pytest.approx(0.1)


async def test_a_new_jobs_window_is_not_drawn_again_while_nothing_changes(console: Build) -> None:
    app = console([scenes.busy(NOW)])
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("a")
        await pilot.pause(0.6)
        with sent(app) as terminal:
            await pilot.pause(1.2)
        assert terminal.bytes < 1000
