"""Sentences and thresholds that several detectors share."""

from __future__ import annotations

from engine.units import KIB, MIB, counted
from engine.wire import Finding, Remedy, Trend

LEAST_NAMED = 16 * MIB
"""A cache or another thing that is no leak is worth a line from here on; a job takes a hundred times that."""
LEAST_LEAK = MIB
"""What stays without a sign of growth: a module's tables and constants are smaller, each."""
LEAST_GROWING = 16 * KIB
EXPLAINED = 0.5
"""Of the rise of the floors: holders that make up so much of it are its reason, and are told themselves."""
HOUR_S = 3600
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


def growth(trend: Trend) -> tuple[str, ...]:
    """What a trend that grows says, with its figures and where it does."""
    return (f"Growth: {trend.text}.",)


def least_bytes(trend: Trend | None) -> int:
    """From which size on something that stays is told, by the trend that it would make."""
    if trend is None:
        return LEAST_LEAK
    return min(LEAST_LEAK, max(LEAST_GROWING, round(rise_bytes(trend) * SHARE_OF_RISE)))


def rise_bytes(trend: Trend) -> int:
    """What a floor has risen in all, by its slope: the first and the last may be off by themselves."""
    return max(0, round((trend.bytes_each or 0.0) * (trend.count - 1)))


def ago(age_s: float) -> str:
    """`less than a minute ago`, `42 minutes ago`, `3 hours ago`."""
    if age_s < 60:
        return "less than a minute ago"
    if age_s < 2 * HOUR_S:
        return f"{counted(int(age_s // 60), 'minute')} ago"
    if age_s < 48 * HOUR_S:
        return f"{counted(int(age_s // HOUR_S), 'hour')} ago"
    return f"{counted(int(age_s // (24 * HOUR_S)), 'day')} ago"


def of_finding(finding: Finding) -> tuple[str, ...]:
    """A finding's own evidence, and its cost in time where that is known."""
    return (*finding.evidence, *((f"About then: {finding.changed}",) if finding.changed else ()))
