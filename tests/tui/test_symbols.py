"""The symbols: one table, one cell for one cell, and what a terminal says of itself."""

from __future__ import annotations

import io
import time
import tokenize
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from textual._compositor import ChopsUpdate, LayoutUpdate

from tests.tui.conftest import NOW, SMALL, WIDE, live, screen_text, scripted, until
from tests.tui.emulator import Emulator
from tests.tui.pty_console import SCRIPTED, Shown
from turbotui.app import TurboApp
from turbotui.client import scene_leaks, scenes
from turbotui.output import LeanUpdate
from turbotui.symbols import SAMPLE, TABLE, Symbols, guess, measured
from turbotui.theme import GLYPHS

ROOT = Path(__file__).parents[2] / "turbotui"
UTF8 = {"LC_ALL": "C.UTF-8"}
PLAIN = {"LC_ALL": "C"}


def symbol(character: str) -> bool:
    """Whether it is one of ours rather than a letter of somebody's language."""
    kind = unicodedata.category(character)[0]
    return not character.isascii() and kind not in "LM" and cell_len(character) < 2


def test_each_symbol_is_one_cell_and_so_is_what_stands_for_it() -> None:
    assert [
        s for s, ascii in TABLE.items() if cell_len(s) != 1 or len(ascii) != 1 or not ascii.isascii()
    ] == []


def test_the_parts_of_memory_stay_apart_in_ascii() -> None:
    shown = [TABLE.get(glyph, glyph) for glyph in GLYPHS.values()]
    assert len(set(shown)) == len(GLYPHS)


def test_every_symbol_in_the_console_is_in_the_table() -> None:
    missing = {}
    for path in ROOT.rglob("*.py"):
        for token in tokenize.generate_tokens(io.StringIO(path.read_text("utf-8")).readline):
            said = token.type == tokenize.STRING and not token.string.startswith(('"""', 'r"""'))
            for character in token.string if said else "":
                if symbol(character) and character not in TABLE:
                    missing[character] = path.name
    assert missing == {}


KEYS = (
    *(
        "m",
        "escape",
        "a",
        "escape",
        "?",
        "escape",
        "l",
        "escape",
        "exclamation_mark",
        "escape",
        "w",
        "escape",
    ),
    *("6", "slash", "escape", "z", "p", "p", "colon", "escape"),
)


@pytest.mark.parametrize("size", [WIDE, SMALL, (50, 10)])
@pytest.mark.parametrize("scene", ["busy", "idle", "cpu", "first_run", "pressed"])
async def test_no_scene_has_a_symbol_in_ascii(
    console: Callable[..., TurboApp], scene: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Emulator(*size)

    def display(app: TurboApp, screen: Any, update: Any) -> None:
        if isinstance(update, ChopsUpdate | LayoutUpdate) and not app._batch_count:
            terminal.feed(LeanUpdate(update, app.symbols).render_segments(app.console))
            check(terminal)

    def check(terminal: Emulator) -> None:
        wrong = {character for character in terminal.text() if symbol(character)}
        assert wrong == set(), terminal.text()

    monkeypatch.setattr(TurboApp, "_display", display)
    app = console(scripted(getattr(scenes, scene)(NOW), explain_switch=scenes.switch_plan), symbols="ascii")
    async with app.run_test(size=size) as pilot:
        await live(pilot)
        if scene == "busy" or size == WIDE:
            await pilot.press(*KEYS)
        await pilot.pause()
    shown = terminal.text()
    assert "GiB" in shown or size == (50, 10)
    if scene == "busy" and size == WIDE:
        assert "一只猫" in shown and "+ 1 Memory" in shown and "####" in shown


def test_what_people_wrote_stays_where_the_terminal_takes_it() -> None:
    ascii, bytes_only = Symbols(ascii=True), Symbols(ascii=True, letters=False)
    assert ascii.written("▶ naïve 猫 ☂ → …", 0) == "> naïve 猫 ? > ~"
    assert bytes_only.written("▶ naïve 猫", 0) == "> na?ve ??"
    assert Symbols().written("▶ 猫", 0) == "▶ 猫"
    # Where an ambiguous letter takes two cells, what follows is put in its place all the same.
    assert Symbols(ascii=True, wide=True).written("─ д x", 4) == "- д\x1b[8G x"


def test_the_terminals_word_stands_above_the_locales() -> None:
    assert guess("auto", UTF8) == Symbols()
    assert guess("auto", PLAIN) == Symbols(ascii=True, letters=False)
    assert guess("auto", UTF8 | {"TERM": "linux"}) == Symbols(ascii=True)
    cells = len(SAMPLE)
    assert measured(cells, "auto", PLAIN) == Symbols()
    assert measured(2 * cells, "auto", UTF8) == Symbols(ascii=True, wide=True)
    assert measured(3 * cells, "auto", UTF8) == Symbols(ascii=True, letters=False)
    assert measured(0, "auto", UTF8) == Symbols()
    assert measured(cells, "ascii", UTF8) == Symbols(ascii=True)
    assert measured(2 * cells, "unicode", UTF8) == Symbols(wide=True)


# -------------------------------------------------------------------------------- in a terminal

FRAMES = "╭ 1 Memory"
ASCII_FRAMES = "+ 1 Memory"


@pytest.mark.parametrize(
    ("cells", "environ", "shown"),
    [(1, UTF8, FRAMES), (2, UTF8, ASCII_FRAMES), (1, PLAIN, FRAMES)],
)
def test_the_symbols_are_those_that_the_terminal_has_room_for(
    cells: int, environ: dict[str, str], shown: str
) -> None:
    with Shown([*SCRIPTED, "idle"], environ=environ, ambiguous_cells=cells) as terminal:
        terminal.until(shown, "free")


class Late(Shown):
    """A terminal that says where its cursor is only when it is told to."""

    reports: tuple[bytes, ...] = ()

    def answer(self, report: bytes) -> None:
        self.reports = (*self.reports, report)


@pytest.mark.parametrize(("environ", "shown"), [(UTF8, FRAMES), (PLAIN, ASCII_FRAMES)])
def test_a_terminal_that_says_nothing_gets_what_its_locale_says_and_at_once(
    environ: dict[str, str], shown: str
) -> None:
    with Late([*SCRIPTED, "idle"], environ=environ) as terminal:
        terminal.until(shown)


def test_keys_that_are_typed_before_the_answer_are_not_lost_and_it_leaves_nothing() -> None:
    with Late([*SCRIPTED, "idle"], environ=UTF8, ambiguous_cells=2) as terminal:
        terminal.until(FRAMES, "free")
        assert len(terminal.reports) == 1
        # In one piece, as over a slow link: a key, the answer, a key.
        terminal.press(b"?" + terminal.reports[0])
        terminal.until("Enter")
        terminal.press(b"\x1b")
        time.sleep(0.2)
        shown = terminal.until(ASCII_FRAMES, "free")
        assert not [character for character in shown if symbol(character)]
        assert shown.startswith(" me@gpubox01")


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        (("C",), "left/right choose  Enter does it  esc back"),
        (("question_mark",), "Enter"),
        (("m",), "Enter"),
        (("l",), "left/right section  Enter all"),
    ],
)
async def test_keys_without_a_sign_have_a_name(
    console: Callable[..., TurboApp], keys: tuple[str, ...], named: str
) -> None:
    """A `/` for Enter would be another key."""
    app = console(scripted(scenes.busy(NOW), leaks=scene_leaks.leak_report(NOW)), symbols="ascii")
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        await pilot.press(*keys)
        await until(pilot, lambda: named in screen_text(app), named)
        assert "↵" not in screen_text(app)
    app = console(scripted(scenes.busy(NOW)))
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        await pilot.press("C")
        await until(pilot, lambda: "← → choose  ↵ does it" in screen_text(app), "the signs again")
