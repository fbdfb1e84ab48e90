"""What was planted, what the engine told of it, and what its remedy gave back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
    kind: VerdictKind = "tensor"
    holder: str | None = None
    """The holder's kind, where Python holds it."""
    bytes: int
    remedy: RemedyAction = "cleanup"
    jobs: int = 1
    traced: bool = True
    holder_line: bool = True
    """Whether its file marks the line that the holder is written at."""
    component: str | None = None
    grow: Callable[[Field], AbstractContextManager[None]] | None = None
    """How it is grown, where no file of `plants` has its name."""

    def is_told_by(self, found: Verdict) -> bool:
        """Whether a verdict says of it what it is, by whom it is held and, where traced, who made it."""
        if (found.kind, found.leak) != (self.kind, True):
            return False
        if self.holder is None:
            return self.component in (None, found.component)
        if found.holder is None or found.holder.kind != self.holder:
            return False
        if self.holder_line and (found.holder.file, found.holder.line) != line_of(self.name, "holder"):
            return False
        site = None if found.site is None else (found.site.file, found.site.line)
        return site == (line_of(self.name, "planted") if self.traced else None)


@dataclass(frozen=True, kw_only=True)
class Harvest:
    plant: Plant
    report: LeakReport
    facts: Facts
    """What the report rested on."""
    told: Verdict
    """Of the plant."""
    result: RemedyResult
    """Of the verdict's remedy."""
    after: LeakReport
    """A look after it."""


class Harvests:
    """Grows each plant once, whoever asks for it first."""

    def __init__(self, field: Field) -> None:
        self._field = field
        self._grown: dict[str, Harvest | AssertionError] = {}

    def of(self, plant: Plant) -> Harvest:
        """Grow it on a worker that a clean job has warmed up, look, run the remedy and look again."""
        if plant.name not in self._grown:
            try:
                self._grown[plant.name] = self._grow(plant)
            except AssertionError as error:
                self._grown[plant.name] = error
        grown = self._grown[plant.name]
        if isinstance(grown, AssertionError):
            raise grown
        return grown

    def _grow(self, plant: Plant) -> Harvest:
        field = self._field
        field.fresh_worker()
        field.trace(plant.traced)
        with plant.grow(field) if plant.grow is not None else _by_file(field, plant):
            report = field.report()
            facts = field.facts()
            told = [found for found in report.verdicts if plant.is_told_by(found)]
            assert len(told) == 1, explained(report)
            remedy = told[0].remedy
            assert remedy is not None, told[0]
            if remedy.action == "collect":  # which empties the cache as well
                field.empty_cache()
            result, after = field.remedy(remedy), field.report()
        return Harvest(plant=plant, report=report, facts=facts, told=told[0], result=result, after=after)


@contextmanager
def _by_file(field: Field, plant: Plant) -> Iterator[None]:
    for job in field.grow(plant.name, jobs=plant.jobs):
        assert job.status == "done", job.error
    yield


def explained(report: LeakReport) -> str:
    """The report as a failed test shows it."""
    return msgspec.json.format(msgspec.json.encode(report)).decode()
