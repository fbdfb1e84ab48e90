"""Owns the times beneath the graph: ago in seconds while it follows now, else clock times and dates."""

from __future__ import annotations

import time
from collections.abc import Iterator

from turbotui.format import cell_width, clock
from turbotui.past.cursor import WITHIN_S
from turbotui.text import t

APART = 12
"""Columns from one label to the next, at least."""
STEPS_S = (15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800)
AGO_STEP_S = 15

Label = tuple[int, str]
"""The column that it ends at, from the left, and its text."""


def ago_labels(count: int) -> Iterator[Label]:
    """Of a picture whose columns are the last `count` seconds, the newest at its right."""
    for ago in range(AGO_STEP_S * ((count - 1) // AGO_STEP_S), -1, -AGO_STEP_S):
        yield count - 1 - ago, t("history.now") if ago == 0 else _ago(ago)


def time_labels(last: int, count: int, width_s: int, now: float) -> Iterator[Label]:
    """Of `count` columns of `width_s` up to number `last`: times of day, and dates where a day begins."""
    first = last - count + 1
    step_s = next((step for step in STEPS_S if step >= APART * width_s), STEPS_S[-1])
    shift = time.localtime(last * width_s).tm_gmtoff
    at = ((first * width_s + shift) // step_s + 1) * step_s - shift
    newest = int(now // width_s)
    room = count - (cell_width(t("history.now")) + 1 if newest == last else 0)
    while at // width_s <= last:
        place = int(at // width_s) - first
        if place < room:
            yield place, time_label(at, step_s)
        at += step_s
    if newest == last:
        yield count - 1, t("history.now")


def time_label(at: float, step_s: float) -> str:
    """`02:41`, with seconds where labels are less than a minute apart; the date where a day begins."""
    local = time.localtime(at)
    if step_s >= 3600 and local.tm_hour == local.tm_min == 0:
        return time.strftime("%m-%d", local)
    if step_s >= 86400:  # clocks were changed since
        return time.strftime("%m-%d", local)
    return clock(at) if step_s < 60 else time.strftime("%H:%M", local)


def cursor_label(at: float, width_s: int, now: float) -> str:
    """The cursor's own, dated where it is not of today."""
    # What ends a column of more than a second is told by the round time that it ends with.
    at += 0.0 if width_s == 1 else WITHIN_S
    local = time.localtime(at)
    text = clock(at)
    return text if local[:3] == time.localtime(now)[:3] else f"{time.strftime('%m-%d', local)} {text}"


def _ago(seconds: int) -> str:
    return f"-{seconds}s" if seconds < 120 or seconds % 60 else f"-{seconds // 60}m"
