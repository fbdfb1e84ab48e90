"""Finds what did not come back when models were unloaded."""

from __future__ import annotations

from dataclasses import dataclass

from engine.wire import Trend, Verdict
from turbotui.format import bytes_text
from turbotui.leaklog.remedies import remedy
from turbotui.leaklog.scan import LogFact
from turbotui.leaklog.story import Reading, Story
from turbotui.leaklog.verdicts.floors import Floors
from turbotui.leaklog.words import LEAST, MIB, place, whole_card

CONTEXT = 1536 * MIB
"""What a process of PyTorch keeps while it lives: the driver's context and loaded code, 0.3 to 1.3 GiB."""
SOON_S = 1.0
"""A driver may count memory for so long after it was given back."""
CACHE_SHARE = 0.8


@dataclass(kw_only=True, slots=True)
class Left:
    """One unload, and the least that was there after it."""

    line: int
    at: float | None
    before: int | None
    cleared: bool
    used: Reading | None = None
    allocated: Reading | None = None
    cache: Reading | None = None
    empty: int | None = None
    """What was there before anything was loaded in this run."""
    residue: int | None = None
    """What the program itself says did not come."""

    @property
    def stayed(self) -> int | None:
        """Bytes beyond an empty process; None where nobody looked after it."""
        if self.residue is not None:
            return self.residue
        if self.allocated is not None:
            return self.allocated.bytes
        if self.used is None:
            return None
        return self.used.bytes - (CONTEXT if self.empty is None else self.empty)


class Stayed:
    """Of all unloads that left nothing loaded, the one after which the most stayed."""

    def __init__(self) -> None:
        self._open: Left | None = None
        self._worst: Left | None = None
        self._count = 0
        self._left_much = 0
        self._floors = Floors("switches")

    def see(self, fact: LogFact, story: Story) -> None:
        event = fact.event
        match event.kind:
            case "unloaded" | "parts_out" if not _others_stay(fact, story):
                self._unloaded(fact, story)
            case "cleared" if self._open is not None:
                self._open.cleared = True
            case "memory" | "allocated" | "cache":
                self._look(fact)
            case "loading" | "loaded":
                self._close()
            case "started":
                self._close()
                self._floors.begin()

    def _unloaded(self, fact: LogFact, story: Story) -> None:
        residue = fact.event.residue_bytes
        if self._open is not None and residue is None:
            return  # its parts went, and now it says that it is done
        self._close()
        used = None if story.used is None else story.used.bytes
        self._open = Left(
            line=fact.line, at=fact.at, before=used, cleared=False, empty=story.empty_bytes, residue=residue
        )

    def _look(self, fact: LogFact) -> None:
        event, left = fact.event, self._open
        if left is None:
            return
        if event.kind == "memory" and event.used_bytes is not None:
            left.used = _lower(left.used, event.used_bytes, fact)
        if event.kind == "allocated" and event.allocated_bytes is not None:
            left.allocated = _lower(left.allocated, event.allocated_bytes, fact)
        if event.kind == "cache" and event.used_bytes is not None:
            left.cache = _lower(left.cache, event.used_bytes, fact)

    def _close(self) -> None:
        left, self._open = self._open, None
        if left is None or (stayed := left.stayed) is None:
            return
        self._count += 1
        if left.residue is None:
            self._floors.take(stayed if left.used is None else left.used.bytes)
        if stayed >= LEAST:
            self._left_much += 1
            worst = None if self._worst is None else self._worst.stayed
            if worst is None or stayed >= worst:
                self._worst = left

    def trends(self) -> tuple[Trend, ...]:
        self._close()
        return self._floors.trends()

    def verdicts(self, story: Story) -> tuple[Verdict, ...]:
        self._close()
        left = self._worst
        if left is None or left.stayed is None:
            return ()
        stayed = left.stayed
        is_cache = left.cache is not None and left.cache.bytes >= stayed * CACHE_SHARE
        size = bytes_text(stayed)
        return (
            Verdict(
                kind="cache" if is_cache else "tensor",
                leak=not is_cache,
                title=f"Unloaded, and {size} stayed, which is PyTorch's cache."
                if is_cache
                else f"Unloaded, but {size} stayed.",
                evidence=tuple(_evidence(left, self._count, self._left_much)),
                bytes=stayed,
                site_reason="a log does not tell who holds it",
                remedy=remedy("cache" if is_cache else "stayed", story.program, stayed),
            ),
        )


def _evidence(left: Left, count: int, much: int) -> list[str]:
    told = [f"It was unloaded in line {place(left.line, left.at)}."]
    if left.residue is not None:
        told.append("So the program itself says, which compared what it expected with what came.")
    elif left.allocated is not None:
        where = place(left.allocated.line, left.allocated.at)
        told.append(f"After it {bytes_text(left.allocated.bytes)} were still allocated, in line {where}.")
    elif left.used is not None:
        where = place(left.used.line, left.used.at)
        if left.before is not None and left.before > left.used.bytes:
            was = bytes_text(left.before)
            told.append(f"The card went from {was} to {bytes_text(left.used.bytes)}, in line {where}.")
        else:
            told.append(f"After it the card still held {bytes_text(left.used.bytes)}, in line {where}.")
        if left.empty is None:
            told.append(
                f"Nobody looked before the first load; {bytes_text(CONTEXT)} are left to the context."
            )
        else:
            told.append(f"Before the first load it held {bytes_text(left.empty)}.")
        told.append(whole_card())
        if left.at is not None and left.used.at is not None and left.used.at - left.at < SOON_S:
            told.append("It was read within a second of the unload; some may have come back after that.")
    if left.cache is not None:
        told.append(f"The cache held {bytes_text(left.cache.bytes)} of it.")
    elif left.residue is None:
        told.append(
            "The cache had been emptied, so live tensors hold it."
            if left.cleared
            else "No line says that the cache was emptied, so some of it may be cache."
        )
    if count > 1:
        told.append(f"It was so after {much} of {count} unloads.")
    return told


def _others_stay(fact: LogFact, story: Story) -> bool:
    """Whether models are left of which the line does not speak; what a program proved is told anyway."""
    if fact.event.residue_bytes is not None:
        return False
    return fact.event.model is not None and bool(set(story.loaded) - {fact.event.model})


def _lower(before: Reading | None, num_bytes: int, fact: LogFact) -> Reading:
    if before is not None and before.bytes <= num_bytes:
        return before
    return Reading(bytes=num_bytes, line=fact.line, at=fact.at)
