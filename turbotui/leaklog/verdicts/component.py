"""Finds models and parts that stay loaded: after their unload, or while another model comes."""

from __future__ import annotations

from dataclasses import dataclass

from engine.wire import Trend, Verdict
from turbotui.format import bytes_text
from turbotui.leaklog.remedies import remedy
from turbotui.leaklog.scan import LogFact
from turbotui.leaklog.story import Story
from turbotui.leaklog.words import place

MOST_NAMED = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class _Kept:
    line: int
    at: float | None
    bytes: int | None
    after: str
    """The sentence that says why it should be gone."""
    title: str
    jobs: int = 0
    """That ended between the coming of another model and the moment that it was seen."""


class Component:
    """By `model/part`, the first time that each was seen to stay."""

    def __init__(self) -> None:
        self._unloaded: dict[str, str] = {}
        """Model to where its unload was completed."""
        self._coming: dict[str, tuple[str, int]] = {}
        """Model that was there before another came to where that was, and jobs that had ended by then."""
        self._kept: dict[str, _Kept] = {}

    def see(self, fact: LogFact, story: Story) -> None:
        event, where = fact.event, place(fact.line, fact.at)
        match event.kind:
            case "unloaded" | "parts_out":
                gone = [event.model] if event.model is not None else list(story.loaded)
                # Its parts went, and then it says once more that all of it has.
                self._unloaded = dict.fromkeys((name for name in gone if name), where) or self._unloaded
                for name in self._unloaded:
                    self._coming.pop(name, None)
            case "loading":
                self._unloaded.pop(event.model or "", None)
                self._coming.pop(event.model or "", None)
                for name in story.loaded:
                    if name and name != event.model:
                        self._coming.setdefault(name, (where, story.jobs))
            case "models":
                self._look(fact, story)
            case "oom":
                self._blame(fact, story)
            case "started":
                self._unloaded, self._coming = {}, {}

    def _look(self, fact: LogFact, story: Story) -> None:
        for model in fact.event.models:
            parts = [part for part, state in model.parts if state]
            for part in parts:
                if model.name in self._unloaded:
                    after = f"Its model was unloaded in line {self._unloaded[model.name]}."
                    name = f"{model.name}/{part}"
                    self._keep(
                        name, fact, None, after, f"{name} stays loaded, though its model was unloaded."
                    )

    def _blame(self, fact: LogFact, story: Story) -> None:
        """A model that nobody unloaded before another came, where memory ran out then."""
        for name, (where, jobs) in self._coming.items():
            if name in story.loaded:
                here = place(fact.line, fact.at)
                after = f"Another model came in line {where}, and memory ran out in line {here}."
                title = f"{name} was still loaded when memory ran out for another model."
                self._keep(name, fact, story.sizes.get(name), after, title, story.jobs - jobs)

    def _keep(
        self, name: str, fact: LogFact, size: int | None, after: str, title: str, jobs: int = 0
    ) -> None:
        if name not in self._kept and len(self._kept) < MOST_NAMED:
            self._kept[name] = _Kept(
                line=fact.line, at=fact.at, bytes=size, after=after, title=title, jobs=jobs
            )

    def trends(self) -> tuple[Trend, ...]:
        return ()

    def verdicts(self, story: Story) -> tuple[Verdict, ...]:
        # ComfyUI's models are parts of one job, and it says nothing of one that it uses again.
        parts = story.program == "comfyui"
        return tuple(
            _verdict(name, kept, story) for name, kept in self._kept.items() if not (parts and kept.jobs)
        )


def _verdict(name: str, kept: _Kept, story: Story) -> Verdict:
    where = place(kept.line, kept.at)
    there = f"It was still there in line {where}; no line tells its size."
    if kept.bytes is not None:
        there = f"It was still there in line {where}, with {bytes_text(kept.bytes)}."
    return Verdict(
        kind="component",
        leak=True,
        title=kept.title,
        evidence=(there, kept.after),
        bytes=kept.bytes,
        component=name,
        remedy=remedy("component", story.program, kept.bytes),
    )
