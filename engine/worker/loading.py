"""One component's weights on their way to the device, and the thread on which they travel.

A load opens its segments' gates one after the other, so a net can compute with the first blocks
while the last are still under way. It owns no memory: whoever attached the arena detaches it when
the load has failed.
"""

from __future__ import annotations

import queue
import threading
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import starmap
from pathlib import Path

from torch import Tensor

from engine.errors import EngineError, JobCancelled
from engine.models.index import ComponentIndex, check_unchanged
from engine.units import size_text
from engine.worker.backend import Backend, Batch, Mark, Source
from engine.worker.faults import as_engine_error, forget
from engine.worker.region import POLL_S, Gate
from engine.worker.stream import Transfer, open_sources, parts_of
from engine.worker.warm import WarmTier

SEGMENTS_AHEAD = 3
"""Whose copies are queued at once: enough to keep the bus busy, few enough to stop soon."""


class Vacancy:
    """Where a segment still holds another's weights: the point from which on it may be overwritten."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._left: tuple[Mark, Gate] | None = None
        self._failure: EngineError | None = None

    def leave(self, mark: Mark, gate: Gate) -> None:
        """The other is done with it once `mark` has passed; the weights to come open `gate`."""
        with self._changed:
            self._left = (mark, gate)
            if self._failure is not None:
                gate.fail(self._failure)
            self._changed.notify_all()

    def wait(self, check: Callable[[], None]) -> tuple[Mark, Gate]:
        """Until it was left; `check` runs now and then and may raise."""
        with self._changed:
            while self._left is None:
                self._changed.wait(POLL_S)
                check()
            return self._left

    def fail(self, failure: EngineError) -> None:
        """No weights will come, whether it was left or will be."""
        with self._changed:
            self._failure = failure
            if self._left is not None:
                self._left[1].fail(failure)


class Loading:
    """Copies a component's segments in their order; `run` it, or give it to a `Carrier`."""

    def __init__(
        self,
        label: str,
        index: ComponentIndex,
        transfers: Sequence[Transfer],
        memory: Tensor,
        gates: Sequence[Gate] | Sequence[Vacancy],
        backend: Backend,
        warm: WarmTier | None,
        *,
        total_bytes: int,
        began: float,
        on_end: Callable[[Loading], None],
    ) -> None:
        """`gates` are those of the segments; vacancies where another still computes with them.

        `on_end` runs on the thread that ran it, when all weights are there or none will come.
        """
        self.label = label
        self.total_bytes = total_bytes
        self.began = began
        self.done_bytes = 0
        self.failure: EngineError | None = None
        self._index = index
        self._by_segment: list[list[Transfer]] = [[] for _ in gates]
        for transfer in transfers:
            self._by_segment[transfer.segment].append(transfer)
        self._memory: Tensor | None = memory
        self._gates = [gate for gate in gates if isinstance(gate, Gate)]
        self._vacancies = [gate for gate in gates if isinstance(gate, Vacancy)]
        self._backend = backend
        self._warm = warm
        self._on_end = on_end
        self._cancelled = False
        self._finished = False
        self._ended = threading.Event()
        # The region's bytes may have been freed by work that is still queued.
        self._after = backend.mark_compute()

    @property
    def ok(self) -> bool:
        """Whether all weights are there."""
        return self._finished and self.failure is None

    def cancel(self) -> None:
        """Give up soon; returns once nothing of it is under way."""
        self._cancelled = True
        self._ended.wait()

    def wait(self, poll: Callable[[], None]) -> None:
        """Until it has ended; `poll` runs now and then and may raise."""
        while not self._ended.wait(POLL_S):
            poll()

    def run(self, moved: Callable[[int], None] | None = None) -> None:
        """Copy everything; how it ended is in `failure`. `moved(bytes)` may raise to end it."""

        def count(num_bytes: int) -> None:
            self.done_bytes += num_bytes
            self._check()
            if moved is not None:
                moved(num_bytes)

        failure: EngineError | None = None
        try:
            transfers = [transfer for segment in self._by_segment for transfer in segment]
            with open_sources(self._index.files, transfers, self._warm) as sources:
                self._backend.copies_wait(self._after)
                self._copy(sources, count)
        except Exception as error:  # whatever it was, those who wait at the gates must be told
            failure = as_engine_error(
                error, self._backend, f"loading {self.label} ({size_text(self.total_bytes)})"
            )
            forget(error)
        self._memory = None  # a load that is remembered must not keep a tensor of weights
        if failure is not None:
            self._fail(failure)
        self._finished = True
        try:
            self._on_end(self)
        finally:
            # Last: who waited to drop it must not be told afterwards that it is there.
            self._ended.set()

    def _copy(self, sources: Mapping[Path, Source], count: Callable[[int], None]) -> None:
        memory, queued = self._memory, deque[Mark]()
        assert memory is not None, "a load runs once"

        def batch(number: int, gate: Gate) -> Batch:
            self._check()

            def arrive(mark: Mark) -> None:
                if number == len(self._by_segment) - 1:
                    # No pass ends with weights of a file that was written to while it was read.
                    mark.wait()
                    self._check_files()
                gate.arrive(mark)
                queued.append(mark)
                if len(queued) > SEGMENTS_AHEAD:
                    queued.popleft().wait()

            return Batch(parts=parts_of(self._by_segment[number], memory, sources), queued=arrive)

        try:
            if not self._vacancies:  # in one go: the next segment is read while this one is sent
                self._backend.copy(starmap(batch, enumerate(self._gates)), count)
            for number, vacancy in enumerate(self._vacancies):
                left, gate = vacancy.wait(self._check)
                self._backend.copies_wait(left)
                self._backend.copy([batch(number, gate)], count)
        finally:
            # Also when it is given up: the files' pages must stay as long as the device reads them.
            for mark in queued:
                mark.wait()

    def _fail(self, failure: EngineError) -> None:
        self.failure = failure
        for gate in self._gates:
            gate.fail(failure)
        for vacancy in self._vacancies:
            vacancy.fail(failure)

    def _check_files(self) -> None:
        for file in self._index.files:
            check_unchanged(file)

    def _check(self) -> None:
        if self._cancelled:
            raise JobCancelled(f"loading {self.label} was given up")


class Carrier:
    """The thread that runs loads beside the one that computes, in the order they were given."""

    def __init__(self) -> None:
        self._loads: queue.SimpleQueue[Loading] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="carrier", daemon=True).start()

    def carry(self, loading: Loading) -> None:
        self._loads.put(loading)

    def _run(self) -> None:
        while True:
            try:
                self._loads.get().run()
            except Exception:  # of who was told of its end: the next load must not wait for ever
                traceback.print_exc()
