"""Owns OSC 52: the sequence that puts text on the clipboard of the person's own terminal."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from turbotui.notices import through_multiplexer

MOST_BYTES = 74_994
"""Of the text: what xterm and others take whole, being 100,000 bytes of sequence."""
SCREEN_BYTES = 700
"""GNU screen passes on at most 768 bytes at once."""


def fitting(text: str) -> tuple[str, bool]:
    """As much of `text` as a terminal takes, and whether that is all of it."""
    data = text.encode("utf-8", "replace")
    if len(data) <= MOST_BYTES:
        return text, True
    return data[:MOST_BYTES].decode("utf-8", "ignore"), False


def clipboard_sequence(text: str, environ: Mapping[str, str]) -> str:
    """What puts `text` on the clipboard, through tmux or screen where there is one.

    tmux takes the plain sequence with `set-clipboard on` and hands on the wrapped one with
    `allow-passthrough on`; which of them holds is not known here, so it gets both.
    """
    encoded = base64.b64encode(text.encode("utf-8", "replace")).decode("ascii")
    plain = f"\x1b]52;c;{encoded}\a"
    if environ.get("TMUX"):
        return plain + through_multiplexer(plain, environ)
    if environ.get("STY"):
        pieces = (plain[at : at + SCREEN_BYTES] for at in range(0, len(plain), SCREEN_BYTES))
        return "".join(through_multiplexer(piece, environ) for piece in pieces)
    return plain
