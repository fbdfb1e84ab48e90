"""What a terminal sends as a paste reaches the parser as text, whatever was copied and however it is cut."""

from __future__ import annotations

import pytest
from textual import events
from textual._xterm_parser import XTermParser

from turbotui.pastes import BEGIN, END, Pastes

COPIED = "hello \x1b 2 L\r\x1b[31mred\x1b[0m\x9b\x00\tend"


def told(pieces: list[str]) -> list[events.Key | events.Paste]:
    """What the parser makes of `pieces`, each from one read."""
    parser, pastes = XTermParser(), Pastes()
    kept = filter(None, map(pastes.keys_of, pieces))
    messages = [message for piece in kept for message in parser.feed(piece)]
    return [message for message in messages if isinstance(message, events.Key | events.Paste)]


@pytest.mark.parametrize("length", [1, 2, 3, 5, 7, 200])
def test_controls_of_a_paste_press_nothing(length: int) -> None:
    text = f"a{BEGIN}{COPIED}{END}b"
    first, paste, last = told([text[at : at + length] for at in range(0, len(text), length)])
    assert isinstance(paste, events.Paste) and paste.text == "hello  2 L\r[31mred[0m\tend"
    assert isinstance(first, events.Key) and isinstance(last, events.Key)
    assert (first.key, last.key) == ("a", "b")


def test_an_end_that_was_copied_ends_no_paste() -> None:
    (paste,) = told([f"{BEGIN}harmless{END}P{END}"])
    assert isinstance(paste, events.Paste) and paste.text == "harmless[201~P"


def test_what_is_no_character_is_no_key_but_shows_in_a_paste() -> None:
    key, paste = told([f"\ufffdq{BEGIN}a\ufffdb{END}"])
    assert isinstance(key, events.Key) and key.key == "q"
    assert isinstance(paste, events.Paste) and paste.text == "a\ufffdb"


def test_escape_and_later_the_rest_of_a_beginning_begin_nothing() -> None:
    pastes = Pastes()
    assert pastes.keys_of("\x1b") == "\x1b"
    pastes.waited()
    assert pastes.keys_of("[200~") == "[200~"
    assert pastes.keys_of("\x1b[A") == "\x1b[A"
