"""Finds a cache that is never emptied."""

from __future__ import annotations

from engine.wire import Trend, Verdict
from turbotui.format import GIB, bytes_text
from turbotui.leaklog.remedies import remedy
from turbotui.leaklog.scan import LogFact
from turbotui.leaklog.story import Reading, Story
from turbotui.leaklog.words import place

LEAST_CACHE = GIB
LEAST_LOOKS = 2
FELL = 0.5
"""A cache that has lost so much of itself was emptied, whoever did it."""


class Uncleared:
    """In the run in which it held the most at last."""

    def __init__(self) -> None:
        self._first: Reading | None = None
        self._most: Reading | None = None
        self._looks = 0
        self._worst: tuple[Reading, Reading, int] | None = None

    def see(self, fact: LogFact, story: Story) -> None:
        event = fact.event
        if event.kind == "cleared":
            self._begin()
        elif event.kind == "started":
            self._close()
        elif event.kind == "cache" and event.used_bytes is not None:
            reading = Reading(bytes=event.used_bytes, line=fact.line, at=fact.at)
            if self._most is not None and event.used_bytes < self._most.bytes * FELL:
                self._begin()
            self._first = self._first or reading
            self._looks += 1
            if self._most is None or reading.bytes >= self._most.bytes:
                self._most = reading

    def _close(self) -> None:
        """A run has ended, and nobody had emptied it."""
        first, most, looks = self._first, self._most, self._looks
        self._begin()
        if first is None or most is None or looks < LEAST_LOOKS or most.bytes < LEAST_CACHE:
            return
        if self._worst is None or most.bytes >= self._worst[1].bytes:
            self._worst = (first, most, looks)

    def _begin(self) -> None:
        self._first = self._most = None
        self._looks = 0

    def trends(self) -> tuple[Trend, ...]:
        return ()

    def verdicts(self, story: Story) -> tuple[Verdict, ...]:
        self._close()
        if self._worst is None:
            return ()
        first, most, looks = self._worst
        return (
            Verdict(
                kind="cache",
                leak=False,
                title=f"The cache of {bytes_text(most.bytes)} was never emptied.",
                evidence=(
                    f"It went from {bytes_text(first.bytes)} in line {place(first.line, first.at)} to "
                    f"{bytes_text(most.bytes)} in line {place(most.line, most.at)}.",
                    f"It was told {looks} times, and no line says that it was emptied.",
                    "It is no leak: PyTorch uses it again, but no other program can.",
                ),
                bytes=most.bytes,
                remedy=remedy("cache", story.program, most.bytes),
            ),
        )
