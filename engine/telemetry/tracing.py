"""Follows one process's bytes at 1 kHz until it holds few enough: the measurement behind a receipt."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from engine.telemetry.samples import Trace, Traced

PERIOD_S = 0.001
TIMEOUT_LIMIT_S = 600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """What a process holds at one moment."""

    num_bytes: int | None
    """None where it is not listed, or is and its bytes are not told."""
    listed: bool
    """Whether the device's list, which could be read, has an entry of it."""
    alive: bool


UNKNOWN = Held(num_bytes=None, listed=True, alive=True)
"""Nothing could be read: neither bytes nor their absence."""


def follow(
    trace: Trace,
    read: Callable[[], Held],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Traced:
    """Read until the process holds at most `trace.until_bytes`, it cannot be known, or time is up.

    A process that is not listed holds nothing if it has ended or was listed before. One that
    lives and never was listed is invisible to us, which proves nothing.
    """
    started = clock()
    deadline = started + min(trace.timeout_s, TIMEOUT_LIMIT_S)
    first: int | None = None
    latest: int | None = None
    seen = False
    while True:
        held = read()
        latest = held.num_bytes
        if not held.listed and (seen or not held.alive):
            latest = 0
        if not seen:
            first = held.num_bytes
            seen = held.num_bytes is not None
        reached = latest is not None and latest <= trace.until_bytes
        if reached or latest is None or clock() >= deadline:
            return Traced(
                trace_id=trace.trace_id,
                start_bytes=first,
                end_bytes=latest,
                elapsed_s=clock() - started,
                reached=reached,
            )
        sleep(PERIOD_S)
