"""The memory ledger as the daemon keeps it: the worker's lines, the driver's figures beside them, trends.

Lines are written one after the other by a thread: a disk that hangs holds them, and nobody else.
Event loop's thread only, but for what is said to run in that thread.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from engine.daemon.disk_line import DiskLine
from engine.daemon.logbook import LogBook
from engine.daemon.threads import in_thread
from engine.daemon.worker import WorkerProcess
from engine.errors import StorageUnusable
from engine.leaks.ledger import LedgerStore
from engine.leaks.sentences import ONE, signed
from engine.leaks.trend import trends
from engine.telemetry.samples import DeviceReading, FromProbe
from engine.wire import Event, Held, LedgerKind, LedgerLine, LedgerPage, Receipt, ReceiptIssued, Trend
from engine.worker.channel import Ledgered

READINGS = 6000
"""Of the driver's list, ten a second: ten minutes, and what is longer has its newest ones."""
TREND_LINES = 4000
"""Of one worker; 200 jobs with what they load and all their stages."""
LAST_LINES_S = 1.0
"""How long the end waits for the last lines' disk."""
GIVES_ALL_BACK = {"cleanup": "cleanup", "park": "cleanup"}
"""Actions after whose receipt a worker has gone with all that it held."""


class LedgerBook:
    """Every line of this engine, and how the floors of the worker move."""

    def __init__(
        self,
        path: Path,
        logbook: LogBook,
        *,
        worker: Callable[[], WorkerProcess | None],
        on_grown: Callable[[], None] = lambda: None,
    ) -> None:
        """`worker` gives the live worker; `on_grown()` runs when a floor has begun to grow."""
        self.on_grown = on_grown
        self.problem: str | None = None
        """Why lines are not kept."""
        self.trends: tuple[Trend, ...] = ()
        self.worker: str | None = None
        """Whose trends they are."""
        self._logbook = logbook
        self._live = worker
        self._disk = DiskLine("ledger")
        self._readings: deque[tuple[float, int, int | None]] = deque(maxlen=READINGS)
        """When, the worker's pid, its bytes."""
        self._last: LedgerLine | None = None
        self._told: set[tuple[str, str, str]] = set()
        self._lines: deque[LedgerLine] = deque(maxlen=TREND_LINES)
        """Of the newest worker; the disk's thread has them."""
        self._recalled = False
        self._store: LedgerStore | None = None
        try:
            self._store = LedgerStore(path)
        except StorageUnusable as error:
            self._refused(error)

    async def close(self) -> None:
        """Wait for the last lines, for `LAST_LINES_S` at most."""
        if await self._disk.done(LAST_LINES_S) and self._store is not None:
            self._store.close()

    @property
    def growing(self) -> tuple[Trend, ...]:
        """Floors of the live worker that grow; what an ended one held has gone with it."""
        worker = self._live()
        if worker is None or self.worker != name_of(worker):
            return ()
        return tuple(trend for trend in self.trends if trend.grows)

    # ----------------------------------------------------------------- what arrives

    def read(self, message: FromProbe) -> None:
        """The probe has read a device: note what the worker's process holds on it."""
        worker = self._live()
        if worker is None or not isinstance(message, DeviceReading) or message.device_id != worker.device_id:
            return
        held = next((process.bytes for process in message.processes if process.pid == worker.pid), None)
        self._readings.append((message.taken_at, worker.pid, held))

    def heard(self, worker: WorkerProcess, message: Ledgered) -> None:
        """The worker has ended a line."""
        self._keep(
            replace(
                message.line,
                device_id=worker.device_id,
                worker=name_of(worker),
                device=self._device(worker.pid, message.began_at, message.ended_at),
            )
        )

    def told(self, event: Event) -> None:
        """An event was published: a receipt may tell of a worker's end."""
        if isinstance(event, ReceiptIssued) and event.receipt.action in GIVES_ALL_BACK:
            self._ended(event.receipt)

    def _ended(self, receipt: Receipt) -> None:
        last = self._last
        if last is None or not receipt.expected_bytes:
            return  # there was no worker, or it had told nothing
        on_cpu = last.device_id == "cpu"
        gone = receipt.residue_bytes if receipt.residue_bytes is not None else None
        seen = Held(before=receipt.expected_bytes, after=gone)
        self._last = None
        self._keep(
            LedgerLine(
                id=0,
                at=time.time(),
                kind="cleanup",
                target=receipt.target,
                device_id=last.device_id,
                worker=last.worker,
                ok=receipt.ok,
                elapsed_s=receipt.elapsed_s,
                weights=Held(before=last.weights.after, after=0),
                allocated=_to_nothing(last.allocated),
                reserved=_to_nothing(last.reserved),
                device=Held() if on_cpu else seen,
                rss=_to_nothing(last.rss),
                pinned=_to_nothing(last.pinned),
            )
        )

    def _device(self, pid: int, began: float, ended: float) -> Held:
        """The worker's entry of the driver's list before, within and at the end of an action."""
        before: int | None = None
        within: list[int] = []
        for taken_at, whose, size in self._readings:
            if whose != pid or size is None or taken_at > ended:
                continue
            if taken_at <= began:
                before = size
            else:
                within.append(size)
        if not within:
            return Held(before=before)
        return Held(
            before=before, peak=max([*within, *([] if before is None else [before])]), after=within[-1]
        )

    # ----------------------------------------------------------------- keeping

    def _keep(self, line: LedgerLine) -> None:
        self._last = line
        if self._store is None:
            return
        done: list[tuple[Trend, ...]] = []
        failed: list[StorageUnusable] = []
        write = partial(self._write, self._store, line, done, failed)
        if not self._disk.put(write, told=lambda _error: self._written(line, done, failed)):
            self._refused(StorageUnusable(f"{self._store.path} is not written: its disk does not answer"))

    def _write(
        self,
        store: LedgerStore,
        line: LedgerLine,
        done: list[tuple[Trend, ...]],
        failed: list[StorageUnusable],
    ) -> None:
        """In the disk's thread."""
        self._recall(store)
        try:
            line = store.write(line)
        except StorageUnusable as error:
            failed.append(error)  # trends go on by what is remembered
        if self._lines and self._lines[-1].worker != line.worker:
            self._lines.clear()
        self._lines.append(line)
        if line.kind in ("job", "switch"):
            done.append(trends(list(self._lines)))

    def _recall(self, store: LedgerStore) -> None:
        """In the disk's thread: what was written before this engine, read when it is first wanted."""
        if self._recalled:
            return
        self._recalled = True
        with suppress(StorageUnusable):  # told by who reads or writes next
            if (worker := store.newest_worker()) is not None:
                self._lines.extend(store.read(TREND_LINES, worker=worker)[0][::-1])

    def _look_back(self, store: LedgerStore, found: list[tuple[str, tuple[Trend, ...]]]) -> None:
        """In the disk's thread: the trends of what was written before."""
        self._recall(store)
        if self._lines:
            found.append((self._lines[-1].worker, trends(list(self._lines))))

    def _looked_back(self, found: list[tuple[str, tuple[Trend, ...]]]) -> None:
        if self.worker is None and found:
            self.worker, self.trends = found[0]

    def _written(
        self, line: LedgerLine, done: list[tuple[Trend, ...]], failed: list[StorageUnusable]
    ) -> None:
        if failed:
            self._refused(failed[0])
        elif self.problem is not None:
            self.problem = None
            self._logbook.write("ledger", "the memory ledger is written again")
        if not done:
            return
        self.worker, self.trends = line.worker, done[0]
        if line.kind == "job":
            self._tell_job(line)
        for trend in self.trends:
            key = (line.worker, trend.what, trend.over)
            if trend.grows and key not in self._told:
                self._told.add(key)
                self._logbook.write("floor", f"it grows: {trend.text}", level="warning", memory=True)
                self.on_grown()

    def _tell_job(self, line: LedgerLine) -> None:
        """What a job has left behind, and how that was with those before it."""
        before, after = line.floor_before_bytes, line.floor_bytes
        if before is None or after is None:
            return
        over = next((trend for trend in self.trends if (trend.what, trend.over) == ("device", "jobs")), None)
        last = ""
        if over is not None and over.bytes_each is not None:
            last = f"; last {over.count} {over.over} {signed(over.bytes_each)} a {ONE[over.over]}"
        self._logbook.write(
            "floor",
            # Short enough for the log's row at 80 columns, where its end would be cut.
            f"job {line.job_id} left {signed(after - before)}{last}",
            job_id=line.job_id,
            memory=True,
        )

    def _refused(self, error: StorageUnusable) -> None:
        if self.problem is None:
            self._logbook.write("ledger", f"lines are not kept: {error}", level="warning")
        self.problem = str(error)

    # ----------------------------------------------------------------- asked from outside

    async def page(
        self,
        limit: int,
        *,
        before: int | None,
        job_id: int | None,
        kinds: Collection[LedgerKind],
        model: str | None,
    ) -> LedgerPage:
        """Some lines, the newest first, also those that are being written now."""
        if self.worker is None and self._store is not None:
            found: list[tuple[str, tuple[Trend, ...]]] = []
            look_back = partial(self._look_back, self._store, found)
            self._disk.put(look_back, told=lambda _error: self._looked_back(found))
        await self._disk.done(LAST_LINES_S)
        lines: list[LedgerLine] = []
        older, problem = False, self.problem
        if self._store is not None:
            read = partial(self._store.read, limit, before=before, job_id=job_id, kinds=kinds, model=model)
            try:
                lines, older = await in_thread(read, name="ledger-read")
            except StorageUnusable as error:
                problem = str(error)
        return LedgerPage(
            lines=tuple(lines), older=older, trends=self.trends, worker=self.worker, problem=problem
        )


def name_of(worker: WorkerProcess) -> str:
    """Tells one worker process from the next."""
    return f"{worker.pid} {worker.start_time or 0.0:.2f}"


def _to_nothing(held: Held) -> Held:
    """Of a process that has ended, whatever is still counted for it elsewhere."""
    return Held(before=held.after, after=None if held.after is None else 0)
