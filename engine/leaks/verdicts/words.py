"""Sentences and thresholds that several detectors share."""

from __future__ import annotations

from collections.abc import Iterator

from engine.units import KIB, MIB, size_text
from engine.wire import Finding, Remedy, Trend

LEAST_NAMED = 16 * MIB
"""A cache or another thing that is no leak is worth a line from here on; a job takes a hundred times that."""
LEAST_LEAK = MIB
"""What stays without a sign of growth: a module's tables and constants are smaller, each."""
LEAST_GROWING = 16 * KIB
SHARE_OF_RISE = 0.1
"""What is found while the floors rise: that has shown already that something leaks. What holds less than
this share of the rise is not its reason, such as a table that a module made once."""


def cleanup(num_bytes: int | None) -> Remedy:
    """The end of the worker, where nothing less gives it back."""
    return Remedy(
        action="cleanup",
        text="End the worker, which gives back all that it holds, and start a fresh one.",
        command="turbotui cleanup",
        predicted_bytes=num_bytes,
    )


def collect(num_bytes: int | None) -> Remedy:
    return Remedy(
        action="collect",
        text="Have Python look for cycles, and empty the cache; it is safe under a running job.",
        predicted_bytes=num_bytes,
    )


def growth(trend: Trend) -> Iterator[str]:
    """What a trend that grows says, with its figures."""
    if trend.bytes_each is None or trend.low is None or trend.high is None:
        return
    count = trend.count
    each, low, high = (size_text(round(size)) for size in (trend.bytes_each, trend.low, trend.high))
    if trend.over == "jobs":
        yield f"Its floor rises by {each} with every job, over {count} of them (95 %: {low} to {high})."
    else:
        yield f"Its floor rises by {each} with every switch, over {count} of them (95 %: {low} to {high})."
    if trend.stage is not None and trend.component is not None:
        yield f"It rises in the stage {trend.stage}, which uses {trend.component}."
    elif trend.stage is not None:
        yield f"It rises in the stage {trend.stage}."


def least_bytes(trend: Trend | None) -> int:
    """From which size on something that stays is told, by the trend that it would make."""
    if trend is None:
        return LEAST_LEAK
    return min(LEAST_LEAK, max(LEAST_GROWING, round(rise_bytes(trend) * SHARE_OF_RISE)))


def rise_bytes(trend: Trend) -> int:
    """What the shown floors have risen in all."""
    return 0 if len(trend.floors) < 2 else max(0, trend.floors[-1] - trend.floors[0])


def of_finding(finding: Finding) -> tuple[str, ...]:
    """A finding's own evidence, and its cost in time where that is known."""
    return (*finding.evidence, *((f"About then: {finding.changed}",) if finding.changed else ()))
