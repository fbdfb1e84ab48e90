"""The memory ledger as a worker writes it: a line of each kind, and to the byte what a stage leaves."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from engine.errors import EngineError, JobCancelled
from engine.wire import LedgerLine
from engine.worker import pipeline
from engine.worker.channel import Ledgered, ModelFiles, RunJob
from engine.worker.cpu import CpuBackend
from engine.worker.memory_ledger import Kept
from engine.worker.pipeline import run_job, shape_of
from engine.worker.store import ComponentStore

from .conftest import BUDGET, I2V, LARGE, SMALL, Seen, load

MakeJob = Callable[..., RunJob]


class Books:
    """A store whose lines are kept, and jobs run on it as the worker's loop does."""

    def __init__(self, backend: CpuBackend, seen: Seen) -> None:
        self.written: list[Ledgered] = []
        self.backend = backend
        self.store = ComponentStore(
            backend,
            on_component=seen.components.append,
            on_moved=seen.receipts.append,
            on_line=self.written.append,
        )

    def run(self, job: RunJob, cancelled: Callable[[], bool] = lambda: False) -> list[LedgerLine]:
        """The lines of this job."""
        first = len(self.written)
        shape = shape_of(job)
        with self.store.ledger.job(job.job_id, model=job.model.name, shape=shape) as line:
            try:
                run_job(job, self.store, self.backend, report=lambda _told: None, cancelled=cancelled)
            except EngineError:
                line.end(ok=False)
            else:
                line.end()
        self.store._mover.carrier.carry(self._settled())  # what travels still has ended after this
        return [told.line for told in self.written[first:]]

    def _settled(self) -> Any:
        return type("Nothing", (), {"run": staticmethod(lambda: None)})

    def lines(self, kind: str) -> list[LedgerLine]:
        return [told.line for told in self.written if told.line.kind == kind]


@pytest.fixture
def books(backend: CpuBackend, seen: Seen) -> Books:
    return Books(backend, seen)


@pytest.fixture
def picture(tmp_path: Path) -> str:
    path = tmp_path / "picture.png"
    Image.radial_gradient("L").convert("RGB").save(path)
    return str(path)


def floors(lines: list[LedgerLine]) -> dict[str, int | None]:
    return {line.target: line.floor_bytes for line in lines if line.kind in ("stage", "job")}


@pytest.mark.parametrize("model", [SMALL, I2V])
def test_after_each_stage_there_is_what_the_job_needs_and_nothing_else(
    books: Books, job: MakeJob, picture: str, model: str
) -> None:
    asked = job(model, steps=4, image=picture if model == I2V else None)
    books.run(asked)  # opens the model, which computes tables
    lines = books.run(asked)
    own = next(line for line in lines if line.kind == "job")
    print(floors(lines), own.floor_before_bytes, [(l.target, l.kept_bytes) for l in lines])
    assert own.floor_bytes == own.floor_before_bytes
    assert set(floors(lines).values()) == {own.floor_before_bytes}
