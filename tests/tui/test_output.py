"""What is written to the terminal: the same picture as Textual's own way, in fewer bytes, none unread."""

from __future__ import annotations

import queue
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from rich.color import ColorSystem
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.strip import Strip

from engine.wire import JobChanged, MemorySampled
from tests.tui.conftest import NOW, SMALL, WIDE, Clock, live, scripted
from tests.tui.emulator import Emulator
from turbotui.app import TurboApp
from turbotui.client import scenes
from turbotui.output import PLAIN, LeanUpdate, between, codes_of, is_behind


@pytest.mark.parametrize("size", [WIDE, SMALL])
async def test_the_picture_is_that_of_textuals_own_way(
    console: Callable[..., TurboApp], clock: Clock, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, ours = Emulator(*size), Emulator(*size)
    counts = [0, 0]

    def display(app: TurboApp, screen: Any, update: Any) -> None:
        if not isinstance(update, ChopsUpdate | LayoutUpdate) or app._batch_count:
            return
        for place, (terminal, one) in enumerate(((theirs, update), (ours, LeanUpdate(update)))):
            written = one.render_segments(app.console)
            counts[place] += len(written)
            terminal.look = PLAIN
            terminal.feed(written)
        assert ours.cells == theirs.cells

    monkeypatch.setattr(TurboApp, "_display", display)
    client = scripted(scenes.busy(NOW))
    app = console(client)
    async with app.run_test(size=size) as pilot:
        await live(pilot)
        whole = list(counts)
        for step in range(12):
            clock.passed += 0.7
            balance = scenes.gpu_balance(NOW + clock.passed, live=3.0 + step / 3)
            client.push(MemorySampled(device=replace(scenes.gpu(NOW), balance=balance)))
            client.push(JobChanged(job=scenes.running_job(NOW, fraction=step / 12)))
            await pilot.pause(0.06)
            app.dashboard.tick()
            await pilot.press(*("j", "3", "?", "escape", "4", "p", "p")[step % 7 : step % 7 + 1])
            await pilot.pause()
        assert "Memory" in ours.text() or "weights" in ours.text()
        assert "一只猫" in ours.text() or size == SMALL
    assert whole[1] < 0.75 * whole[0]
    assert counts[1] - whole[1] < 0.7 * (counts[0] - whole[0])


def test_a_character_of_two_cells_is_never_written_by_half() -> None:
    line = Strip([Segment("ab 一只"), Segment("猫在", Style(bold=True)), Segment("é雪 z")])
    for first in range(line.cell_length):
        for last in range(first + 1, line.cell_length + 1):
            shown = Emulator(line.cell_length, 1)
            shown.feed("\x1b[1;1H" + line.text)
            update = LeanUpdate(ChopsUpdate([{0: line}], [(0, first, last)], [[line.cell_length]]))
            shown.feed(update.render_segments(Console(color_system="truecolor")))
            assert shown.text() == line.text, (first, last)


def test_only_what_differs_between_two_styles_is_told() -> None:
    system = ColorSystem.TRUECOLOR
    blue = codes_of(Style(color="#0000ff", bgcolor="#101010"), system)
    bold = codes_of(Style(color="#0000ff", bgcolor="#101010", bold=True), system)
    red = codes_of(Style(color="#ff0000", bgcolor="#101010"), system)
    assert between(blue, red) == "\x1b[38;2;255;0;0m"
    assert between(blue, bold) == "\x1b[1m"
    assert between(bold, blue).startswith("\x1b[0;")
    assert between(bold, PLAIN) == "\x1b[0m"


def test_a_terminal_that_does_not_read_is_noticed() -> None:
    waiting: queue.Queue[str] = queue.Queue(30)
    driver: Any = SimpleNamespace(_writer_thread=SimpleNamespace(_queue=waiting))
    assert not is_behind(driver) and not is_behind(None)
    for piece in "abc":
        waiting.put(piece)
    assert is_behind(driver)
