"""The ledger of a job's stages: how long each took, and what the device held before, at most, and after."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from engine.wire import StageRecord
from engine.worker.backend import Backend

OnLine: TypeAlias = Callable[[tuple[StageRecord, ...], str | None, int | None], None]
"""Hears the lines so far whenever one begins or ends: they, the one that is being measured, and what the
device held before it."""


class StageLedger:
    """One job's. Used by the thread that computes."""

    def __init__(
        self,
        backend: Backend,
        *,
        clock: Callable[[], float],
        on_peak: Callable[[int], None],
        on_line: OnLine | None = None,
    ) -> None:
        """`on_peak` hears the most bytes that each stage held."""
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
        """Writes the line of `stage` when the block has ended, and not where it raises."""
        began = self._clock()
        before = self._backend.live_bytes()
        self._backend.start_peak()
        if self._on_line is not None:
            self._on_line(self.records, stage, before)
        yield
        # Not the whole device: weights for the next stage may be travelling.
        self._backend.mark_compute().wait()
        peak = max(before, self._backend.peak_bytes())
        self._on_peak(peak)
        self._records.append(
            StageRecord(
                stage=stage,
                elapsed_s=self._clock() - began,
                before_bytes=before,
                peak_bytes=peak,
                after_bytes=self._backend.live_bytes(),
            )
        )
        if self._on_line is not None:
            self._on_line(self.records, None, None)
