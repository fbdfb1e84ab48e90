"""What was planted, what the engine told of it, and what its remedy gave back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import msgspec

from engine.leaks.facts import Facts
from engine.wire import LeakReport, RemedyAction, RemedyResult, Verdict, VerdictKind
from tests.leaks.field import Field, line_of


@dataclass(frozen=True, kw_only=True)
class Plant:
    """One of the corpus, and what must be told of it."""

    name: str
    """Of its file in `plants`, but where its bed is grown in another way."""
    bytes: int | None
    """None where the test cannot know."""
    tolerance: float = 0.05
    """Of its bytes."""
    kind: VerdictKind = "tensor"
    holder: str | None = None
    """The holder's kind, where Python holds it."""
    holder_line: bool = True
    """Whether its file marks the line that the holder is written at."""
    component: str | None = None
    traced: bool = True
    """Whether the line that allocates must be told, or else why it is not."""

    def is_told_by(self, found: Verdict) -> bool:
        """Whether a verdict says of it what it is, how much, who holds it and who made it."""
        if (found.kind, found.leak) != (self.kind, True):
            return False
        if self.bytes is not None and abs((found.bytes or 0) - self.bytes) > self.bytes * self.tolerance:
            return False
        if self.holder is None:
            return self.component in (None, found.component)
        if found.holder is None or found.holder.kind != self.holder:
            return False
        if self.holder_line and (found.holder.file, found.holder.line) != line_of(self.name, "holder"):
            return False
        if not self.traced:
            return found.site is None and bool(found.site_reason)
        return found.site is not None and (found.site.file, found.site.line) == line_of(self.name, "planted")


@dataclass(frozen=True, kw_only=True)
class Bed:
    """Plants that are grown together, on a worker of their own; the remedy of the first is tried."""

    plants: tuple[Plant, ...]
    remedy: RemedyAction = "cleanup"
    jobs: int = 1
    grow: Callable[[Field], AbstractContextManager[None]] | None = None
    """In what other way than by jobs with each plant's file."""

    @property
    def name(self) -> str:
        return self.plants[0].name


@dataclass(frozen=True, kw_only=True)
class Harvest:
    report: LeakReport
    facts: Facts
    """What the report rested on."""
    told: dict[str, Verdict]
    """By the plant's name."""
    result: RemedyResult
    """Of the first plant's remedy."""
    after: LeakReport
    """A look after it."""


class Harvests:
    """Grows each bed once, whoever asks for it first."""

    def __init__(self, field: Field) -> None:
        self._field = field
        self._grown: dict[str, Harvest | AssertionError] = {}

    def of(self, bed: Bed) -> Harvest:
        """Grow it on a worker that a clean job has warmed up, look, run the remedy and look again."""
        if bed.name not in self._grown:
            try:
                self._grown[bed.name] = self._grow(bed)
            except AssertionError as error:
                self._grown[bed.name] = error
        grown = self._grown[bed.name]
        if isinstance(grown, AssertionError):
            raise grown
        return grown

    def _grow(self, bed: Bed) -> Harvest:
        field = self._field
        field.fresh_worker()
        field.trace(any(plant.traced for plant in bed.plants))
        with bed.grow(field) if bed.grow is not None else _by_files(field, bed):
            report, facts = field.report(), field.facts()
            assert facts.look is not None and facts.look.pid == field.live.worker_pid(), "of the real worker"
            told = {}
            for plant in bed.plants:
                found = [verdict for verdict in report.verdicts if plant.is_told_by(verdict)]
                assert len(found) == 1, f"{plant.name}: {len(found)} times in {explained(report)}"
                told[plant.name] = found[0]
            remedy = told[bed.name].remedy
            assert remedy is not None, told[bed.name]
            if remedy.action == "collect":  # which empties the cache as well
                field.empty_cache()
            result, after = field.remedy(remedy), field.report()
        return Harvest(report=report, facts=facts, told=told, result=result, after=after)


@contextmanager
def _by_files(field: Field, bed: Bed) -> Iterator[None]:
    for job in field.grow(*(plant.name for plant in bed.plants), jobs=bed.jobs):
        assert job.status == "done", job.error
    yield


def plants_of(beds: Iterable[Bed]) -> list[tuple[Bed, Plant]]:
    """Each plant with its bed."""
    return [(bed, plant) for bed in beds for plant in bed.plants]


def explained(report: LeakReport) -> str:
    """The report as a failed test shows it."""
    return msgspec.json.format(msgspec.json.encode(report)).decode()
