"""Sentences that several detectors share, and places in a log as they name them."""

from __future__ import annotations

import time

from turbotui.format import bytes_text

MIB = 2**20
LEAST = 512 * MIB
"""What differs by less is the programs' own rounding and the driver's."""


def place(line: int, at: float | None) -> str:
    """`14 (14:03:01)`, as a sentence names a line."""
    return str(line) if at is None else f"{line} ({time.strftime('%H:%M:%S', time.localtime(at))})"


def whole_card() -> str:
    return "This is the figure of the whole card, so another program's memory is in it."


def held(name: str, num_bytes: int | None) -> str:
    """`Wan2.1-1.3B 6.20 GiB`, or the name alone where nobody said how much it takes."""
    shown = name or "a model"
    return shown if num_bytes is None else f"{shown} {bytes_text(num_bytes)}"
