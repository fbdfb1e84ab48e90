"""What should come down after each job or switch, and does not: a floor of our worker that grows."""

from __future__ import annotations

from collections.abc import Iterator

from engine.checks.facts import Facts
from engine.units import size_text
from engine.wire import Finding


def floors(facts: Facts) -> Iterator[Finding]:
    """One for each floor of the live worker whose slope is no noise."""
    for trend in facts.growing:
        if trend.bytes_each is None:
            continue
        # By the slope: the first floor and the last may be off by themselves.
        shown = trend.count
        risen = round(trend.bytes_each * (shown - 1))
        worker = facts.workers[0] if facts.workers else None
        each = size_text(round(trend.bytes_each))
        what = "device memory" if trend.what == "device" else f"{trend.what} memory"
        per = "job" if trend.over == "jobs" else "switch"
        yield Finding(
            kind="floor",
            severity="warning",
            title=f"The worker's {what} grows by {each} with every {per}.",
            evidence=(
                f"By what is left after each: {trend.text}.",
                f"Over the last {shown} it has risen by {size_text(risen)}.",
            ),
            bytes=risen,
            remedy="`turbotui leaks` says who holds it; a fresh worker gives all of it back.",
            remedy_command="turbotui cleanup",
            device_id=worker.device_id if worker is not None else None,
            pid=worker.pid if worker is not None else None,
            component=f"{trend.what}/{trend.over}",
        )
