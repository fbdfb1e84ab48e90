"""The lines of the memory ledger as the worker writes them: what it held before, at most and after.

Two looks at counters for each line: 0.1 ms on a GPU. On cpu, where no allocator counts, the live
tensors are looked for among Python's objects: 1 to 3 ms. Nothing that goes wrong here reaches who
is measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from torch import Tensor

from engine.wire import Held, LedgerKind, LedgerLine
from engine.worker.backend import Backend, Counted
from engine.worker.channel import Ledgered
from engine.worker.heap import trim_heap

Answer = TypeVar("Answer")
NOTHING = Counted()


def tell_nobody(message: Ledgered) -> None:
    """Where no ledger is kept."""


class OpenLine:
    """A line that has begun; `end` writes it, once."""

    def __init__(
        self,
        ledger: MemoryLedger,
        kind: LedgerKind,
        target: str,
        *,
        model: str | None,
        job_id: int | None,
        shape: str | None,
        peak: bool,
    ) -> None:
        self._ledger = ledger
        self._kind: LedgerKind = kind
        self._target = target
        self._model = model
        self._job_id = job_id
        self._shape = shape
        self._peak = peak
        self._open = True
        self.highest = NOTHING
        """The peaks of what was measured inside it, where it has none of its own."""
        self._weights = ledger.weights()
        self._before = ledger.count()
        self._began = ledger.clock()

    def end(self, *, ok: bool = True, kept_bytes: int = 0) -> None:
        """Write it; harmless a second time."""
        if not self._open:
            return
        self._open = False
        ledger = self._ledger
        ended = ledger.clock()
        if self._kind == "job":
            # Else the host's floor would go up and down by what glibc keeps: 30 MiB of a demo model's job.
            trim_heap()
        after, before = ledger.count(), self._before
        peak = ledger.peak() if self._peak else self.highest
        if self._peak:
            ledger.passed(peak)
        line = LedgerLine(
            id=0,
            at=ledger.wall_clock(),
            kind=self._kind,
            target=self._target,
            device_id="",
            worker="",
            model=self._model,
            job_id=self._job_id,
            shape=self._shape,
            ok=ok,
            elapsed_s=round(max(0.0, ended - self._began), 4),
            weights=Held(before=self._weights, after=ledger.weights()),
            kept_bytes=kept_bytes,
            allocated=_held(before.allocated_bytes, peak.allocated_bytes, after.allocated_bytes),
            reserved=_held(before.reserved_bytes, peak.reserved_bytes, after.reserved_bytes),
            rss=_held(before.host_bytes, peak.host_bytes, after.host_bytes),
            pinned=_held(before.pinned_bytes, peak.pinned_bytes, after.pinned_bytes),
        )
        ledger.write(Ledgered(line=line, began_at=self._began, ended_at=ended))


class MemoryLedger:
    """One worker's. Any thread; peaks are measured by the one that computes."""

    def __init__(
        self,
        backend: Backend,
        weights: Callable[[], Mapping[str, int]],
        tell: Callable[[Ledgered], None] = tell_nobody,
        *,
        shares_files: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """`weights()` are the resident bytes by component; `tell` has each line as it ends.

        `shares_files()` says whether weight files are mapped whose pages the kernel counts as shared memory:
        all of that is left out then, for theirs cannot be told from any other.
        """
        self.clock = clock
        self.wall_clock = wall_clock
        self._backend = backend
        self._weights = weights
        self._tell = tell
        self._shares_files = shares_files
        self._job: OpenLine | None = None

    def begin(
        self,
        kind: LedgerKind,
        target: str,
        *,
        model: str | None = None,
        job_id: int | None = None,
        shape: str | None = None,
        peak: bool = False,
    ) -> OpenLine:
        """Begin a line. With `peak` the device's peak is taken from here on: one such line at a time."""
        if peak:
            self._quietly(self._backend.start_peak, None)
        return OpenLine(self, kind, target, model=model, job_id=job_id, shape=shape, peak=peak)

    @contextmanager
    def line(
        self,
        kind: LedgerKind,
        target: str,
        *,
        model: str | None = None,
        job_id: int | None = None,
        peak: bool = False,
    ) -> Iterator[OpenLine]:
        """A line for the length of the block; not ok where that raises."""
        line = self.begin(kind, target, model=model, job_id=job_id, peak=peak)
        try:
            yield line
        except BaseException:
            line.end(ok=False)
            raise
        line.end()

    @contextmanager
    def job(self, job_id: int, *, model: str, shape: str) -> Iterator[OpenLine]:
        """The line of a job, whose peaks are the highest of its stages'; the block ends it itself."""
        line = self.begin("job", f"job {job_id}", model=model, job_id=job_id, shape=shape)
        self._job = line
        try:
            yield line
        finally:
            self._job = None
            line.end(ok=False)

    # ----------------------------------------------------------------- what lines ask

    def weights(self) -> int:
        """Of resident components, on the way or there."""
        return sum(self._weights().values())

    def count(self) -> Counted:
        counted = self._quietly(self._backend.count, NOTHING)
        return replace(counted, shared_bytes=None) if self._shares_files() else counted

    def peak(self) -> Counted:
        return self._quietly(self._backend.count_peak, NOTHING)

    def passed(self, peak: Counted) -> None:
        """A stage has ended with this peak."""
        if self._job is not None:
            self._job.highest = self._job.highest.highest(peak)

    def write(self, message: Ledgered) -> None:
        self._quietly(lambda: self._tell(message), None)

    @staticmethod
    def _quietly(call: Callable[[], Answer], otherwise: Answer) -> Answer:
        try:
            return call()
        except Exception:  # a ledger is worth no job: what cannot be read is None in it
            return otherwise


class Kept:
    """Bytes of the tensors that a job still needs, by what they are for; keeps none of them alive."""

    def __init__(self, device_type: str) -> None:
        """What lies elsewhere, as a random state on the host of a GPU, does not count."""
        self._device_type = device_type
        self._sizes: dict[str, int] = {}

    @property
    def bytes(self) -> int:
        return sum(self._sizes.values())

    def put(self, name: str, *tensors: Tensor | None, more: int = 0) -> None:
        """`name` is these now, and `more` bytes that cannot be reached from here."""
        storages = {
            storage.data_ptr(): storage.nbytes()
            for tensor in tensors
            if tensor is not None and tensor.device.type == self._device_type
            for storage in (tensor.untyped_storage(),)
        }
        self._sizes[name] = sum(storages.values()) + more

    def drop(self, *names: str) -> None:
        for name in names:
            self._sizes.pop(name, None)


def _held(before: int | None, peak: int | None, after: int | None) -> Held:
    known = [size for size in (before, peak, after) if size is not None]
    return Held(before=before, peak=None if peak is None else max(known), after=after)
