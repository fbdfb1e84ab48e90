"""Finds what grows from job to job, or from unload to unload."""

from __future__ import annotations

from engine.wire import Trend, Verdict
from turbotui.format import bytes_text
from turbotui.leaklog.remedies import remedy
from turbotui.leaklog.scan import LogFact
from turbotui.leaklog.story import Story
from turbotui.leaklog.verdicts.floors import LEAST_COUNT, Floors
from turbotui.leaklog.words import whole_card


class Growth:
    """Floors over jobs: what PyTorch holds at the first look after each, or else what the card does.

    A program that tells no end of a job tells what is allocated after each: then every such line is a floor.
    """

    def __init__(self) -> None:
        self._allocated = Floors("jobs")
        # Apart: whichever of them is told first after a job, they are no floors of one series.
        self._allocated_after, self._card_after = Floors("jobs"), Floors("jobs")
        self._due: set[Floors] = set()
        """Of a job that has ended: where nobody has looked since."""
        self._total: int | None = None

    def see(self, fact: LogFact, story: Story) -> None:
        event = fact.event
        self._total = event.total_bytes or self._total
        match event.kind:
            case "job":
                self._due = {self._allocated_after, self._card_after}
            case "allocated" if event.allocated_bytes is not None:
                self._allocated.take(event.allocated_bytes)
                self._after(self._allocated_after, event.allocated_bytes)
            case "memory" if event.used_bytes is not None:
                self._after(self._card_after, event.used_bytes)
            case "loading" | "loaded" | "unloading" | "unloaded" | "parts_out" | "started":
                self._due = set()
                for floors in (self._allocated, self._allocated_after, self._card_after):
                    floors.begin()

    def _after(self, floors: Floors, num_bytes: int) -> None:
        if floors in self._due:
            self._due.remove(floors)
            floors.take(num_bytes)

    def trends(self) -> tuple[Trend, ...]:
        return self._of()[0]

    def _of(self) -> tuple[tuple[Trend, ...], bool]:
        """The trend of the floors that tell most, and whether they are the whole card's."""
        found = [
            (floors.trends(), floors is self._card_after)
            for floors in (self._allocated_after, self._card_after, self._allocated)
        ]
        enough = (one for one in found if one[0] and one[0][0].count >= LEAST_COUNT)
        return next(enough, None) or next((one for one in found if one[0]), ((), False))

    def verdicts(self, story: Story) -> tuple[Verdict, ...]:
        found, whole = self._of()
        return tuple(growing(trend, story, self._total, whole=whole) for trend in found if trend.grows)


def growing(trend: Trend, story: Story, total_bytes: int | None, *, whole: bool) -> Verdict:
    """What a trend that grows means; `whole` is that of the whole card."""
    assert trend.bytes_each is not None and trend.low is not None and trend.high is not None
    each, low, high = (bytes_text(round(figure)) for figure in (trend.bytes_each, trend.low, trend.high))
    first, last = trend.floors[0], trend.floors[-1]
    evidence = [
        f"Floors of {trend.count} jobs rose from {bytes_text(first)} to {bytes_text(last)}.",
        f"The slope is {each} a job (95 %: {low} to {high}).",
        "No model was loaded or unloaded meanwhile.",
    ]
    if whole:
        evidence.append(whole_card())
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
