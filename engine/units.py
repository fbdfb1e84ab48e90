"""Byte counts in the engine's sentences and settings. The console and the CLI have `turbotui.format`."""

from __future__ import annotations

import re
from fractions import Fraction

GIB = 2**30
MIB = 2**20
KIB = 2**10

UNITS = {
    "b": 1,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
}
SIZE = re.compile(r"(-?[0-9]{1,20}(?:\.[0-9]{1,20})?)\s*([A-Za-z]*)", re.ASCII)


def parse_size(text: str) -> int:
    """`8 GiB`, `1.5GiB`, `500 MB` or `8589934592` in bytes; fractions of a byte are dropped.

    Raises:
        ValueError: it is no size. `8 G` is none: some read 2**30 in it and some 10**9.
    """
    match = SIZE.fullmatch(text.strip())
    number, unit = match.groups() if match else ("", "")
    scale = UNITS.get(unit.lower()) if unit else 1
    if match is None or scale is None or (not unit and "." in number):
        raise ValueError(f"{text!r} is no size; write it as 8 GiB, 500 MB or a whole number of bytes")
    return int(Fraction(number) * scale)


def size_text(num_bytes: int) -> str:
    """`13.54 GiB`, `84.2 MiB`, `71.9 KiB` or `512 B`."""
    if abs(num_bytes) >= GIB:
        return f"{num_bytes / GIB:.2f} GiB"
    if abs(num_bytes) >= MIB:
        return f"{num_bytes / MIB:.1f} MiB"
    return f"{num_bytes / KIB:.1f} KiB" if abs(num_bytes) >= KIB else f"{num_bytes} B"


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """`1 video`, `3 videos`; `plural` where it is not the noun and an s."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"
