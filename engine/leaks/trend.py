"""Whether what should come down after each job or switch comes down: floors, their slope, and where it grows.

Of one worker process: a fresh one begins anew. Device memory is counted to the byte by the allocator, so
that any lasting slope is one; host memory moves by itself, so that a slope must be worth telling.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Literal, TypeAlias

from engine.leaks.sentences import trend_text
from engine.leaks.slope import Slope, goes_on, slope_of
from engine.units import KIB, MIB
from engine.wire import LedgerLine, Trend

What: TypeAlias = Literal["device", "host", "pinned"]
Over: TypeAlias = Literal["jobs", "switches"]

LEAST_COUNT = 6
"""Floors that a slope is told of."""
MOST_COUNT = 200
FIRST = 2
"""Jobs of a shape, and switches to a model, that still fill caches and load libraries."""
MANY = 4 * LEAST_COUNT
"""Ends of which hardly two are alike, after which their floors are taken as they come."""
SHOWN_FLOORS = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Noise:
    """What a floor does by itself."""

    bytes_each: int
    """A slope of less is none."""
    rise_bytes: int
    """The least that the floors must have risen in all."""


NOISE: dict[What, Noise] = {
    "device": Noise(bytes_each=512, rise_bytes=4 * KIB),
    # The real worker on cpu, 200 jobs of the smallest demo model, its heap trimmed before each reading: all
    # floors within 0.9 MiB, +3.1 KiB a job by fragments, and of any 6 in a row at least +11 KiB in the worst.
    "host": Noise(bytes_each=32 * KIB, rise_bytes=4 * MIB),
    "pinned": Noise(bytes_each=4 * KIB, rise_bytes=MIB),
}


def trends(lines: Sequence[LedgerLine]) -> tuple[Trend, ...]:
    """How each floor of the newest worker in `lines` moves, over jobs and over switches.

    `lines` of one device by id, the oldest first; what there are too few of has no slope.
    """
    if not lines:
        return ()
    newest = lines[-1].worker
    own = [line for line in lines if line.worker == newest]
    found = []
    series: dict[Over, list[_End]] = {"jobs": _jobs(own), "switches": _switches(own)}
    for over, ends in series.items():
        for what in FLOORS:
            floors = _settled(what, ends)[-MOST_COUNT:]
            if floors:
                trend = _trend(what, over, floors, own)
                found.append(replace(trend, text=trend_text(trend, LEAST_COUNT)))
    return tuple(found)


def host_floor(line: LedgerLine) -> int | None:
    """The worker's own host memory but for weights that lie in it, as they do on cpu."""
    if line.rss.after is None:
        return None
    if line.device_id != "cpu":
        return line.rss.after
    live = line.allocated.after
    return None if live is None else line.rss.after - live


FLOORS: dict[What, Callable[[LedgerLine], int | None]] = {
    "device": lambda line: line.floor_bytes,
    "host": host_floor,
    "pinned": lambda line: line.pinned.after,
}


_End: TypeAlias = tuple[LedgerLine, bool]
"""The line of a job's or a switch's end, and whether it is among the first of its kind."""


def _jobs(lines: Sequence[LedgerLine]) -> list[_End]:
    return _ends([line for line in lines if line.kind == "job"], lambda line: (line.model, line.shape))


def _switches(lines: Sequence[LedgerLine]) -> list[_End]:
    return _ends([line for line in lines if line.kind == "switch"], lambda line: line.target)


def _ends(lines: Sequence[LedgerLine], alike: Callable[[LedgerLine], object]) -> list[_End]:
    seen: dict[object, int] = defaultdict(int)
    found = []
    for line in lines:
        key = alike(line)
        found.append((line, seen[key] < FIRST))
        seen[key] += 1
    return found


def _settled(what: What, ends: Sequence[_End]) -> list[tuple[LedgerLine, int]]:
    """The floors of those that are not the first of their kind, less what the first ones have added.

    What fills a cache is no growth, and what grows meanwhile is one all the same. Host memory moves too much
    for such a difference: there it begins anew. On the device nothing of each new shape may stay for ever:
    where hardly any is like another, all are taken.
    """
    floor = FLOORS[what]
    found: list[tuple[LedgerLine, int]] = []
    every: list[tuple[LedgerLine, int]] = []
    added, before = 0, None
    for line, first in ends:
        if (size := floor(line)) is None:
            continue
        every.append((line, size))
        if first and what == "host":
            found.clear()
        elif first:
            added += size - before if before is not None else 0
        else:
            found.append((line, size - added))
        before = size
    many = what == "device" and len(found) < LEAST_COUNT and len(every) >= MANY
    return every if many else found


def _trend(
    what: What, over: Over, floors: Sequence[tuple[LedgerLine, int]], own: Sequence[LedgerLine]
) -> Trend:
    sizes = tuple(size for _line, size in floors)
    shown = sizes[-SHOWN_FLOORS:]
    if len(sizes) < LEAST_COUNT:
        return Trend(what=what, over=over, count=len(sizes), bytes_each=None, floors=shown)
    slope = slope_of(sizes)
    rises = partial(_rises, what)
    grows = rises(sizes, slope) and goes_on(sizes, pause=LEAST_COUNT, rises=rises)
    stage, component = _where(what, [line for line, _size in floors], own) if grows else (None, None)
    return Trend(
        what=what,
        over=over,
        count=len(sizes),
        bytes_each=slope.value,
        low=slope.low,
        high=slope.high,
        grows=grows,
        component=component,
        stage=stage,
        floors=shown,
    )


def _rises(what: What, sizes: Sequence[float], slope: Slope) -> bool:
    noise = NOISE[what]
    return slope.low >= noise.bytes_each and median(sizes[-3:]) - median(sizes[:3]) >= noise.rise_bytes


def _where(
    what: What, ends: Sequence[LedgerLine], own: Sequence[LedgerLine]
) -> tuple[str | None, str | None]:
    """The stage, and the component that it uses, in which the floor rises most from line to line."""
    floor = FLOORS[what]
    jobs = {line.job_id for line in ends if line.job_id is not None}
    rises: dict[str, list[int]] = defaultdict(list)
    before: dict[int, int] = {}
    for line in own:
        if line.kind != "stage" or line.job_id not in jobs or (size := floor(line)) is None:
            continue
        assert line.job_id is not None
        if line.job_id in before:
            rises[line.target].append(size - before[line.job_id])
        elif (start := _start(what, line)) is not None:
            rises[line.target].append(size - start)
        before[line.job_id] = size
    if not rises:
        return None, None
    stage = max(rises, key=lambda name: median(rises[name]))
    if median(rises[stage]) <= 0:
        return None, None
    return stage, COMPONENT_OF.get(stage.partition(" ")[0], stage.partition(" ")[2] or None)


COMPONENT_OF = {"text": "text", "image": "vae", "decode": "vae"}
"""A stage that uses one component whatever the model; `denoise` names its own, or uses `dit`."""


def _start(what: What, line: LedgerLine) -> int | None:
    """The floor before a job's first stage."""
    match what:
        case "device":
            return line.floor_before_bytes
        case "host":
            if line.device_id != "cpu":
                return line.rss.before
            live = line.allocated.before
            return None if live is None or line.rss.before is None else line.rss.before - live
        case "pinned":
            return line.pinned.before
