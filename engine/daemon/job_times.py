"""How long jobs took, and so how long the next one will: from those that are done, and nothing else."""

from __future__ import annotations

import statistics
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass

from engine.models.model import Model
from engine.planning.admission import Admitted
from engine.planning.shapes import dit_tokens
from engine.wire import AttentionKind, Event, Job, JobChanged

KEPT = 64
"""Done jobs of each model that are remembered."""
NEWEST = 5
"""Of those alike, so many decide: a machine is not what it was last month."""
FARTHEST = 8.0
"""A job of more than so many times another's work, or less, says nothing about it: fixed costs and the
square of attention would show."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """Seconds from a job's start to its video."""

    seconds: float
    exact: bool
    """By jobs of this very size, length and number of steps; else scaled from the nearest ones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shape:
    resolution: str
    aspect_ratio: str
    frames: int
    steps: int
    attention: AttentionKind
    topk: float | None
    samples: int


class JobTimes:
    """By model. Event loop's thread only."""

    def __init__(self, jobs: Iterable[Job] = ()) -> None:
        """`jobs` are from before, oldest first."""
        self._done: dict[str, deque[tuple[_Shape, float]]] = defaultdict(lambda: deque(maxlen=KEPT))
        for job in jobs:
            self.learn(job)

    def hear(self, event: Event) -> None:
        """Learn from what the engine tells its viewers."""
        if isinstance(event, JobChanged):
            self.learn(event.job)

    def learn(self, job: Job) -> None:
        """Remember how long it took, if it is done."""
        spec = job.spec
        if job.status != "done" or job.started_at is None or job.finished_at is None:
            return
        if spec.resolution is None or spec.aspect_ratio is None or spec.frames is None or spec.steps is None:
            return  # of a build that did not fill them in
        if (elapsed_s := job.finished_at - job.started_at) > 0:  # the wall clock may have been set
            shape = _Shape(
                resolution=spec.resolution,
                aspect_ratio=spec.aspect_ratio,
                frames=spec.frames,
                steps=spec.steps,
                # Jobs of builds that knew one kind only say nothing.
                attention="dense" if spec.attention == "auto" else spec.attention,
                topk=spec.sla_topk,
                samples=spec.samples,
            )
            self._done[job.model].append((shape, elapsed_s))

    def expect(self, model: Model, admitted: Admitted) -> Expected | None:
        """For a request to `model`; None where no job of it comes near."""
        done = self._done.get(model.name, ())
        work = dit_tokens(admitted.width, admitted.height, admitted.frames) * admitted.steps
        work *= admitted.spec.samples
        by_work: dict[int, list[float]] = defaultdict(list)
        for shape, elapsed_s in done:
            if (shape.attention, shape.topk) != (admitted.attention, admitted.sla_topk):
                continue  # which of them is faster, and by how much, depends on the device and the size
            if (known := _work(model, shape)) is not None:
                by_work[known].append(elapsed_s)
        if not by_work:
            return None
        nearest = min(by_work, key=lambda known: max(known / work, work / known))
        if not 1 / FARTHEST <= work / nearest <= FARTHEST:
            return None
        took = statistics.median(by_work[nearest][-NEWEST:])
        return Expected(seconds=took * work / nearest, exact=nearest == work)


def _work(model: Model, shape: _Shape) -> int | None:
    """Tokens times steps of all samples; None where the model has no such size any more."""
    for row in model.card.table:
        if (row.name, row.aspect_ratio) == (shape.resolution, shape.aspect_ratio):
            return dit_tokens(row.width, row.height, shape.frames) * shape.steps * shape.samples
    return None
