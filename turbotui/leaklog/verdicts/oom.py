"""Tells what memory ran out for, what lacked, and what could have been free."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from engine.wire import Trend, Verdict, VerdictKind
from turbotui.foreign.events import ForeignEvent
from turbotui.format import bytes_text
from turbotui.leaklog.remedies import Trouble, remedy
from turbotui.leaklog.scan import LogFact
from turbotui.leaklog.story import Story
from turbotui.leaklog.words import MIB, held, place

TOGETHER_LINES = 200
"""Lines that tell of one event: a traceback lies between the first word and its figures."""
TOGETHER_S = 5.0
MOST_OOMS = 50
LEAST_ROOM = 64 * MIB
LEAST_LEFT = 512 * MIB

Could: TypeAlias = tuple[Trouble, str, int | None]
"""What could have gone: by which trouble it is mended, its name, and its bytes."""


@dataclass(kw_only=True, slots=True)
class LogOom:
    """One time that memory ran out, as far as its lines tell."""

    line: int
    at: float | None
    last_line: int
    asked_bytes: int | None = None
    free_bytes: int | None = None
    total_bytes: int | None = None
    allocated_bytes: int | None = None
    unallocated_bytes: int | None = None
    """Reserved by PyTorch and not in use: its cache."""
    used_bytes: int | None = None
    others: tuple[tuple[int, int], ...] = ()
    loaded: tuple[tuple[str, int | None], ...] = field(default=())
    """Models that were loaded then, but for the one that came."""
    left_bytes: int | None = None
    """What an earlier unload had left."""

    @property
    def lacks_bytes(self) -> int | None:
        """How much more it would have taken."""
        if self.asked_bytes is None or self.free_bytes is None:
            return None
        return max(0, self.asked_bytes - self.free_bytes)

    @property
    def could(self) -> tuple[Could, ...]:
        """What could have gone, the cheapest first."""
        found: list[Could] = []
        if self.unallocated_bytes is not None and self.unallocated_bytes >= LEAST_ROOM:
            found.append(("fragmented", "cache", self.unallocated_bytes))
        if self.left_bytes is not None and self.left_bytes >= LEAST_LEFT:
            found.append(("stayed", "what an unload left", self.left_bytes))
        found += [("component", name, size) for name, size in self.loaded]
        found += [("others", f"process {pid}", size) for pid, size in self.others]
        return tuple(found)


class Oom:
    """All of them; alike ones are one verdict."""

    def __init__(self) -> None:
        self.all: list[LogOom] = []
        self.count = 0

    def see(self, fact: LogFact, story: Story) -> None:
        if fact.event.kind != "oom":
            return
        now = self.all[-1] if self.all else None
        if now is None or not _same(now, fact):
            self.count += 1
            now = LogOom(line=fact.line, at=fact.at, last_line=fact.line)
            if len(self.all) >= MOST_OOMS:
                self.all.pop()  # the newest place is overwritten: the first ones tell how it began
            self.all.append(now)
            self._note(now, story)
        now.last_line = fact.line
        _fill(now, fact.event)

    def _note(self, now: LogOom, story: Story) -> None:
        coming = story.coming
        now.loaded = tuple(
            (name, story.sizes.get(name)) for name in story.loaded if coming is not None and name != coming
        )
        now.total_bytes = story.total_bytes
        now.left_bytes = story.left_bytes
        if story.cache is not None:
            now.unallocated_bytes = story.cache.bytes

    def trends(self) -> tuple[Trend, ...]:
        return ()

    def verdicts(self, story: Story) -> tuple[Verdict, ...]:
        alike: dict[tuple[Trouble, int | None], list[LogOom]] = {}
        for one in self.all:
            alike.setdefault((_trouble(one), one.asked_bytes), []).append(one)
        return tuple(_verdict(trouble, ooms, story) for (trouble, _asked), ooms in alike.items())


def _same(now: LogOom, fact: LogFact) -> bool:
    """Whether a line goes on about the one before: with figures that it lacked, or with the same ones."""
    if fact.line - now.last_line > TOGETHER_LINES:
        return False
    if now.at is not None and fact.at is not None and fact.at - now.at > TOGETHER_S:
        return False
    asked = fact.event.asked_bytes
    return now.asked_bytes is None or asked is None or asked == now.asked_bytes


def _fill(now: LogOom, event: ForeignEvent) -> None:
    now.asked_bytes = event.asked_bytes or now.asked_bytes
    if event.free_bytes is not None:
        now.free_bytes = event.free_bytes
    now.total_bytes = event.total_bytes or now.total_bytes
    now.used_bytes = event.used_bytes or now.used_bytes
    if event.allocated_bytes is not None:
        now.allocated_bytes = event.allocated_bytes
        if event.reserved_bytes is not None:
            now.unallocated_bytes = max(0, event.reserved_bytes - event.allocated_bytes)
    now.others = event.others or now.others


KINDS: dict[Trouble, VerdictKind] = {
    "fragmented": "fragmented",
    "stayed": "tensor",
    "component": "component",
    "others": "process",
    "room": "tensor",
}


def _trouble(one: LogOom) -> Trouble:
    """The cheapest thing that would have been enough; `room` where all together was not."""
    lacks = one.lacks_bytes
    if lacks is None:
        return one.could[0][0] if one.could else "room"
    together = 0
    for trouble, _name, size in one.could:
        together += size or 0
        if together >= lacks:
            return trouble
    return "room"


def _verdict(trouble: Trouble, ooms: list[LogOom], story: Story) -> Verdict:
    one = ooms[0]
    asked, lacks = one.asked_bytes, one.lacks_bytes
    where = place(one.line, one.at)
    title = (
        f"Memory ran out in line {where}."
        if asked is None
        else f"Memory ran out in line {where}: {bytes_text(asked)} were asked for."
    )
    return Verdict(
        kind=KINDS[trouble],
        # What lacks room is too large for the card; what stays in its way is what leaks.
        leak=False,
        title=title,
        evidence=tuple(_evidence(one, len(ooms))),
        bytes=lacks,
        remedy=remedy(trouble, story.program, lacks),
    )


def _evidence(one: LogOom, count: int) -> list[str]:
    told = []
    if one.free_bytes is not None and one.total_bytes is not None:
        told.append(f"Of {bytes_text(one.total_bytes)} there were {bytes_text(one.free_bytes)} free.")
    elif one.used_bytes is not None and one.total_bytes is not None:
        told.append(f"Of {bytes_text(one.total_bytes)} there were {bytes_text(one.used_bytes)} in use.")
    if one.allocated_bytes is not None:
        told.append(f"PyTorch had {bytes_text(one.allocated_bytes)} in live tensors.")
    could = one.could
    if could:
        names = ", ".join(held(name, size) for _trouble_of, name, size in could)
        told.append(f"Could have gone: {names}.")
    else:
        told.append("Nothing is known that could have gone.")
    if (lacks := one.lacks_bytes) is not None:
        together = sum(size or 0 for _trouble_of, _name, size in could)
        told.append(
            f"It lacked {bytes_text(lacks)}, and that would have been enough."
            if together >= lacks
            else f"It lacked {bytes_text(lacks)}, so that {bytes_text(lacks - together)} were still missing."
        )
    if count > 1:
        told.append(f"So it was {count} times.")
    return told
