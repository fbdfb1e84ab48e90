"""Owns a line of text that is typed where no field stands: a list's filter."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from textual.events import Key as KeyEvent


def edited(text: str, event: KeyEvent) -> str:
    """`text` after a key, as readline would have it; a key that edits nothing leaves it."""
    if event.key in ("backspace", "ctrl+h"):
        return text[:-1]
    if event.key == "ctrl+u":
        return ""
    if event.key == "ctrl+w":
        head, space, _word = text.rstrip().rpartition(" ")
        return head + space
    return text + event.character if event.is_printable and event.character else text
