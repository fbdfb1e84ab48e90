"""Finds what grows from job to job, or from unload to unload."""

from __future__ import annotations

from engine.wire import Trend, Verdict
from turbotui.format import bytes_text
from turbotui.leaklog.remedies import remedy
from turbotui.leaklog.scan import LogFact
from turbotui.leaklog.story import Story
from turbotui.leaklog.verdicts.floors import Floors


class Growth:
    """Floors over jobs: what PyTorch holds, or the card, at the first look after each.

    A program that tells no end of a job tells what is allocated after each: then every such line is a floor.
    """

    def __init__(self) -> None:
        self._allocated = Floors("jobs")
        self._after_jobs = Floors("jobs")
        self._due = False
        """A job has ended, and nobody has looked since."""
        self._total: int | None = None

    def see(self, fact: LogFact, story: Story) -> None:
        event = fact.event
        self._total = event.total_bytes or self._total
        match event.kind:
            case "job":
                self._due = True
            case "allocated" if event.allocated_bytes is not None:
                self._allocated.take(event.allocated_bytes)
                self._after(event.allocated_bytes)
            case "memory" if event.used_bytes is not None:
                self._after(event.used_bytes)
            case "loading" | "loaded" | "unloading" | "unloaded" | "parts_out" | "started":
                self._due = False
                self._allocated.begin()
                self._after_jobs.begin()

    def _after(self, num_bytes: int) -> None:
        if self._due:
            self._due = False
            self._after_jobs.take(num_bytes)

    def trends(self) -> tuple[Trend, ...]:
        return self._after_jobs.trends() or self._allocated.trends()

    def verdicts(self, story: Story) -> tuple[Verdict, ...]:
        return tuple(growing(trend, story, self._total) for trend in self.trends() if trend.grows)


def growing(trend: Trend, story: Story, total_bytes: int | None) -> Verdict:
    """What a trend that grows means."""
    assert trend.bytes_each is not None and trend.low is not None and trend.high is not None
    each, low, high = (bytes_text(round(figure)) for figure in (trend.bytes_each, trend.low, trend.high))
    first, last = trend.floors[0], trend.floors[-1]
    evidence = [
        f"Floors of {trend.count} jobs rose from {bytes_text(first)} to {bytes_text(last)}.",
        f"The slope is {each} a job (95 %: {low} to {high}).",
        "No model was loaded or unloaded meanwhile.",
    ]
    if total_bytes is not None and trend.bytes_each > 0 and total_bytes > last:
        jobs = int((total_bytes - last) / trend.bytes_each)
        evidence.append(f"At this rate {bytes_text(total_bytes)} are full after {jobs} more.")
    return Verdict(
        kind="tensor",
        leak=True,
        title=f"What stays after a job grows by {each} with each.",
        evidence=tuple(evidence),
        bytes=max(0, last - first),
        site_reason="a log does not tell who holds it",
        remedy=remedy("growth", story.program, max(0, last - first)),
    )
