"""Owns how figures become text: bytes, seconds, times of day, and text of an exact cell width.

Every figure that a person sees comes from here, so that the same bytes read the same in the
console, the CLI and the messages. Unknown is None and shows as a dash, never as 0. GiB is
2**30 bytes. Widths are terminal cells by the same table that Textual draws with.
"""

from __future__ import annotations

import time
from typing import Literal

from rich.cells import cell_len

UNKNOWN = "-"
ELLIPSIS = "…"
GIB = 2**30
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def gib(count: int | None, digits: int = 1) -> str:
    """`count` bytes in GiB without the unit: `38.7`. What would round to nothing shows as `<0.1`."""
    if count is None:
        return UNKNOWN
    text = f"{count / GIB:.{digits}f}"
    if count and not float(text):
        return f"{'<' if count > 0 else '>-'}{10**-digits:.{digits}f}"
    return text


def short_bytes(count: int | None) -> str:
    """`count` for a column headed GiB: `13.5`; below a tenth of one, MiB with an M: `84M`."""
    if count is None:
        return UNKNOWN
    if abs(count) >= 0.0995 * GIB or not count:
        return f"{count / GIB:.1f}" if count else "0"
    return f"{count / 2**20:.0f}M" if abs(count) >= 2**20 else f"{count / 2**10:.0f}K"


def bytes_text(count: int | None) -> str:
    """`count` bytes with a unit, to three digits: `812 B`, `24.1 MiB`, `13.5 GiB`, `131 GiB`."""
    if count is None:
        return UNKNOWN
    sign, value, unit = ("-" if count < 0 else ""), float(abs(count)), 0
    # 1023.5 would round up to 1024 of its unit, which is 1 of the next.
    while value >= 1023.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{sign}{value:.0f} {_UNITS[0]}" if unit == 0 else f"{sign}{_three_digits(value)} {_UNITS[unit]}"


def seconds(duration: float | None) -> str:
    """A duration in the units that matter: `24 ms`, `0.31 s`, `6.2 s`, `41 s`, `3m12s`, `2h05m`, `3d04h`."""
    if duration is None:
        return UNKNOWN
    if duration < 0:
        return f"-{seconds(-duration)}"
    if duration < 0.0995:
        return f"{duration * 1000:.0f} ms"
    if duration < 0.995:
        return f"{duration:.2f} s"
    if duration < 9.95:
        return f"{duration:.1f} s"
    whole = round(duration)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def time_left(eta_s: float) -> str:
    """A job's time left, which is an estimate and says so: `~6.2 s`."""
    return f"~{seconds(eta_s)}"


STALE_S = 1.0
"""A device is read ten times a second: what is older is told with its age."""


def stale_text(age_s: float | None) -> str | None:
    """`4.0 s` of a reading that is older than it should be; None for one that is not."""
    return seconds(age_s) if age_s is not None and age_s > STALE_S else None


def clock(at: float | None) -> str:
    """Wall-clock time of day in this host's zone, `14:02:11`; `at` is seconds since the epoch."""
    return UNKNOWN if at is None else time.strftime("%H:%M:%S", time.localtime(at))


def percent(fraction: float | None) -> str:
    """`0.714` as `71 %`."""
    return UNKNOWN if fraction is None else f"{fraction * 100:.0f} %"


def cell_width(text: str) -> int:
    """How many terminal cells `text` takes: 2 for a Chinese character, 0 for a combining mark."""
    return cell_len(text)


def clip(text: str, cells: int) -> str:
    """`text` in at most `cells` cells; what was cut off is marked by an ellipsis.

    A character of two cells is never halved, so the result may be one cell short.
    """
    if cell_width(text) <= cells:
        return text
    if cells < 1:
        return ""
    room = cells - 1
    # A prefix of `room` characters is wide enough but where characters have no width at all.
    kept = text[:room]
    while len(kept) < len(text) and cell_width(kept) <= room:
        kept = text[: len(kept) + 1]
    while kept and cell_width(kept) > room:
        kept = kept[:-1]
    return kept + ELLIPSIS


def clip_middle(text: str, cells: int) -> str:
    """`text` in at most `cells` cells, cut in its middle: names differ in their beginnings and ends."""
    if cell_width(text) <= cells:
        return text
    head = clip(text, cells // 2)[:-1]
    tail = text
    while tail and cell_width(head) + 1 + cell_width(tail) > cells:
        tail = tail[1:]
    return clip(head + ELLIPSIS + tail, cells)


def pad(text: str, cells: int, align: Literal["left", "right"] = "left") -> str:
    """`text` in exactly `cells` cells: clipped, then filled with spaces after it (or before, `right`)."""
    kept = clip(text, cells)
    fill = " " * (cells - cell_width(kept))
    return fill + kept if align == "right" else kept + fill


_CLOSING = frozenset("，。；：、！？）》」』”’…")
_OPENING = frozenset("（《「『“‘")


def wrapped(text: str, cells: int) -> list[str]:
    """`text` in lines of at most `cells` cells, broken in the latter half of a line where that is possible.

    Breaks are at spaces and beside Chinese characters, but no line begins with a closing mark or ends with
    an opening one. Two spaces stand between things, and come before one that stands between words. A word
    that has no break is broken where the line is full.
    """
    lines: list[str] = []
    rest = text
    while cell_width(rest) > cells > 0:
        fit = used = 0
        while fit < len(rest) and used + cell_width(rest[fit]) <= cells:
            used += cell_width(rest[fit])
            fit += 1
        fit = max(1, fit)
        places = range(fit, fit // 2, -1)
        between = (place for place in range(fit, fit // 3, -1) if rest[place : place + 2] == "  ")
        fit = next(between, next((place for place in places if _breaks(rest, place)), fit))
        lines.append(rest[:fit])
        rest = rest[fit:].lstrip(" ")
    return [*lines, rest]


def _breaks(text: str, place: int) -> bool:
    """Whether a line may end before `place`."""
    before, after = text[place - 1], text[place]
    if after == " ":
        return True
    beside = max(cell_width(before), cell_width(after)) == 2
    return beside and after not in _CLOSING and before not in _OPENING


def _three_digits(value: float) -> str:
    """1.00 to 1023: two decimals below 10, one below 100, else none, by the rounded value."""
    if value < 9.995:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 99.95 else f"{value:.0f}"
