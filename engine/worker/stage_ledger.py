"""The ledger of a job's stages: how long each took, and what the device held before, at most, and after."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TypeAlias

from engine.wire import StageRecord
from engine.worker.backend import Backend
from engine.worker.memory_ledger import Kept, MemoryLedger

OnLine: TypeAlias = Callable[[tuple[StageRecord, ...], str | None, int | None, StageRecord | None], None]
"""Hears the lines so far whenever one begins or ends: they, the one that is being measured, what the device
held before it, and the one that was cut off by what ended the job."""


class StageLedger:
    """One job's. Used by the thread that computes."""

    def __init__(
        self,
        backend: Backend,
        *,
        clock: Callable[[], float],
        on_peak: Callable[[int], None],
        on_line: OnLine | None = None,
        memory: MemoryLedger,
        job_id: int,
        model: str,
        shape: str,
    ) -> None:
        """`on_peak` hears the most bytes that each stage held, `memory` keeps its line after the job."""
        self._line = partial(memory.begin, "stage", job_id=job_id, model=model, shape=shape, peak=True)
        self.kept = Kept(backend.device.type)
        """What the job needs after the stage that ends next."""
        self._backend = backend
        self._clock = clock
        self._on_peak = on_peak
        self._on_line = on_line
        self._records: list[StageRecord] = []

    @property
    def records(self) -> tuple[StageRecord, ...]:
        """In the order in which they ended."""
        return tuple(self._records)

    @contextmanager
    def measured(self, stage: str) -> Iterator[None]:
        """Writes the line of `stage` when the block has ended; where it raises, the memory ledger's alone."""
        began = self._clock()
        before = self._backend.live_bytes()
        line = self._line(stage)  # which begins the peak
        if self._on_line is not None:
            self._on_line(self.records, stage, before, None)
        try:
            yield
            # Not the whole device: weights for the next stage may be travelling.
            self._backend.mark_compute().wait()
        except BaseException:
            line.end(ok=False, kept_bytes=self.kept.bytes)
            if self._on_line is not None:
                # A device that broke has no counters any more; then it is not known how far the stage came.
                with suppress(RuntimeError, OSError, MemoryError):
                    self._on_line(self.records, None, None, self._record(stage, began, before))
            raise
        line.end(kept_bytes=self.kept.bytes)
        record = self._record(stage, began, before)
        self._on_peak(record.peak_bytes)
        self._records.append(record)
        if self._on_line is not None:
            self._on_line(self.records, None, None, None)

    def _record(self, stage: str, began: float, before: int) -> StageRecord:
        return StageRecord(
            stage=stage,
            elapsed_s=self._clock() - began,
            before_bytes=before,
            peak_bytes=max(before, self._backend.peak_bytes()),
            after_bytes=self._backend.live_bytes(),
        )
