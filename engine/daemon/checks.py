"""The baseline check as the daemon runs it: facts gathered, findings told, only new ones said aloud.

Asked for, when somebody opens an event stream, and hourly. The look through /proc happens in a
thread with a time; one that hangs in the kernel is left behind and said to be. Loop's thread only.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from engine.checks.facts import CardChange, Facts
from engine.checks.ledger import Ledger, identity
from engine.checks.run import find, unknown
from engine.checks.scan import Scan, scan
from engine.checks.unseen import LEAST_BYTES, unseen_bytes
from engine.config import EngineConfig
from engine.daemon.logbook import LogBook
from engine.daemon.memory import MemoryView
from engine.daemon.supervisor import Supervisor
from engine.daemon.threads import in_thread
from engine.jobs.liveness import read_boot_id
from engine.paths import user_name
from engine.planning.allocator import choose_allocator
from engine.wire import (
    NOBODYS,
    CheckReport,
    DeviceProcess,
    DeviceStatus,
    EngineStatus,
    Event,
    FindingsChanged,
    Receipt,
    ReceiptIssued,
    Trend,
)

HOURLY_S = 3600.0
OPENED_S = 60.0
"""A stream that opens sooner after a check starts no other: commands open streams, too."""
PATIENCE_S = 0.8
"""What the look through /proc gets, of the second that a check may take."""
FIRST_READING_S, LOOK_S = 0.5, 0.02
"""How long a check that is asked for as the engine starts waits for something to look at."""
TETHER_S = 0.2
"""What a child gets to follow its engine between two looks, each of which looks twice: it ends at once, or
hangs. The whole check stays within its second."""
CHANGES = 200
LOG_LINES = 200
RECEIPTS = 20
HISTORY_S, HISTORY_COLUMNS = 600.0, 300
ALLOCATOR_VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")


class Checks:
    """Looks, remembers, and tells what is new."""

    def __init__(
        self,
        *,
        memory: MemoryView,
        supervisor: Supervisor,
        logbook: LogBook,
        config: EngineConfig,
        environ: dict[str, str],
        engine: Callable[[], EngineStatus],
        file: Path,
        publish: Callable[[Event], None],
        growing: Callable[[], tuple[Trend, ...]] = tuple,
        look: Callable[..., Scan] = scan,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`environ` is the environment that workers get, `growing` the floors that grow by the memory ledger,
        `look` the look through /proc.
        """
        self._growing = growing
        self._memory = memory
        self._supervisor = supervisor
        self._logbook = logbook
        self._asked_allocator = choose_allocator(config.allocator).settings
        self._environ = {name: environ[name] for name in ALLOCATOR_VARIABLES if environ.get(name)}
        self._engine = engine
        self._publish = publish
        self._look = look
        self._clock = clock
        self._ledger = Ledger(file, read_boot_id())
        self._on_card: dict[str, dict[tuple[int, float | None], DeviceProcess]] = {}
        self._changes: deque[CardChange] = deque(maxlen=CHANGES)
        self._receipts: deque[Receipt] = deque(maxlen=RECEIPTS)
        self._running: asyncio.Task[CheckReport] | None = None
        self._looking: asyncio.Task[Scan] | None = None
        self._left: set[tuple[int, float]] = set()
        """Pid and start of what the last look found left behind."""
        self._last_at: float | None = None
        """By the clock."""
        self._was_watched = False
        self.report: CheckReport | None = None
        """The newest one."""
        self._told: frozenset[tuple[str, ...]] = frozenset()

    # ----------------------------------------------------------------- what happens

    def sampled(self, status: DeviceStatus) -> None:
        """A device was read: note who came and who left."""
        if status.kind != "cuda":
            return
        now = {(process.pid, process.start_time): process for process in status.processes}
        before = self._on_card.get(status.id)
        self._on_card[status.id] = now
        if before is None or before.keys() == now.keys():
            return
        at = time.time()
        for came, some, others in ((True, now, before), (False, before, now)):
            for key, process in some.items():
                if key not in others and process.ours is None:
                    self._changes.append(CardChange(at=at, device_id=status.id, process=process, came=came))

    def heard(self, event: Event) -> None:
        """An event was published: receipts are kept for the checks to come."""
        if isinstance(event, ReceiptIssued):
            self._receipts.append(event.receipt)

    def look_around(self, *, watched: bool) -> None:
        """Once a second: check hourly, and when somebody has begun to watch."""
        opened, self._was_watched = watched and not self._was_watched, watched
        if not self._memory.statuses() or self._running is not None:
            self._was_watched = watched and not opened  # asked again when there is something to look at
            return
        age = None if self._last_at is None else self._clock() - self._last_at
        if age is None or age >= HOURLY_S or (opened and age >= OPENED_S):
            self._begin().add_done_callback(self._ended_unasked)

    def look_soon(self) -> None:
        """Something was told that a check would find; one that is under way may be past it."""
        if self._running is not None:
            self._running.add_done_callback(lambda _done: self.look_soon())
        else:
            self._begin().add_done_callback(self._ended_unasked)

    async def check(self) -> CheckReport:
        """Look now; who asks while a check runs gets that one's report."""
        waited = 0.0
        while not self._memory.statuses() and waited < FIRST_READING_S:
            await asyncio.sleep(LOOK_S)
            waited += LOOK_S
        return await asyncio.shield(self._running or self._begin())

    # ----------------------------------------------------------------- a check

    def _begin(self) -> asyncio.Task[CheckReport]:
        task = asyncio.create_task(self._check())
        self._running = task
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[CheckReport]) -> None:
        if self._running is task:
            self._running = None

    def _ended_unasked(self, task: asyncio.Task[CheckReport]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._logbook.write("bug", f"checking: {type(error).__name__}: {error}", level="error")

    async def _check(self) -> CheckReport:
        began = time.monotonic()
        self._last_at = self._clock()
        seen = await self._look_for_left()
        facts = self._gather(seen)
        clean_at = self._ledger.clean_at
        report = self._ledger.take(facts, find(facts), unknown(facts), time.monotonic() - began)
        self.report = report
        self._tell(report, clean_at)
        try:
            await in_thread(partial(self._ledger.write, self._ledger.encode()), name="findings")
        except OSError as error:
            self._logbook.write("check", f"findings cannot be kept: {error.strerror}", level="warning")
        return report

    async def _look_for_left(self) -> Scan | None:
        """What /proc shows; what looks left behind is looked at again once its engine is dead for long."""
        seen = await self._scan()
        if not _left_in(seen) <= self._left:
            await asyncio.sleep(TETHER_S)
            seen = await self._scan()
        self._left = _left_in(seen)
        return seen

    async def _scan(self) -> Scan | None:
        """What /proc shows; None where the look has not ended in time, this one or one before it."""
        if self._looking is None or self._looking.done():
            on_gpus = {
                process.pid
                for device in self._memory.statuses()
                if device.kind == "cuda"
                for process in device.processes
            }
            holders = any((unseen_bytes(device) or 0) >= LEAST_BYTES for device in self._memory.statuses())
            look = partial(self._look, on_gpus, uid=os.getuid(), find_holders=holders)
            self._looking = asyncio.create_task(in_thread(look, name="check"))
        await asyncio.wait({self._looking}, timeout=PATIENCE_S)
        if not self._looking.done():
            return None
        if (error := self._looking.exception()) is not None:
            self._logbook.write("bug", f"looking at /proc: {type(error).__name__}: {error}", level="error")
            return None
        return self._looking.result()

    def _gather(self, seen: Scan | None) -> Facts:
        memory, engine = self._memory, self._engine()
        host = memory.host
        devices = memory.statuses()
        facts = Facts(
            at=time.time(),
            since_boot=time.clock_gettime(time.CLOCK_BOOTTIME),
            host=socket.gethostname(),
            uid=os.getuid(),
            user=user_name(),
            devices=devices,
            workers=self._supervisor.statuses(),
            counters=memory.counters,
            versions=memory.versions,
            allocator_asked=self._asked_allocator,
            allocator_environment=self._environ,
            nursery_state=engine.nursery.state,
            nursery_detail=engine.nursery.detail,
            nursery_device_files=engine.nursery.device_files,
            probe_age_s=engine.probe_age_s,
            host_total_bytes=host.total_bytes if host else None,
            host_available_bytes=host.available_bytes if host else None,
            host_limited_by_cgroup=host.limited_by_cgroup if host else False,
            growing=self._growing(),
            receipts=tuple(self._receipts),
            log=self._logbook.tail(LOG_LINES),
            changes=tuple(self._changes),
            unseen_since={
                device.id: since for device in devices if (since := self._unseen_since(device)) is not None
            },
        )
        if seen is None:
            return replace(facts, scanned=False)
        return replace(facts, processes=seen.processes, scanned=seen.complete)

    def _unseen_since(self, device: DeviceStatus) -> float | None:
        """When its unseen memory rose to what it is; None where the history does not go back so far."""
        if (unseen_bytes(device) or 0) < LEAST_BYTES:
            return None
        since: float | None = None
        columns = self._memory.recorder.history(device.id, HISTORY_S, HISTORY_COLUMNS)
        for column in reversed(columns):
            if not column.samples:
                continue
            high = sum(part.high_bytes for kind, part in column.parts.items() if kind in NOBODYS)
            if high < LEAST_BYTES:
                return since
            since = column.starts_at
        return None  # as far back as anybody looked

    def _tell(self, report: CheckReport, clean_at: float | None) -> None:
        new = [finding for finding in report.findings if finding.new]
        kinds = frozenset(identity(finding) for finding in report.findings)
        gone = self._told - kinds
        self._told = kinds
        loud = [finding.title for finding in new if finding.severity != "info"]
        if loud:
            count = f"{len(loud)} new finding{'s' if len(loud) > 1 else ''}"
            was = f"; clean at {time.strftime('%H:%M', time.localtime(clean_at))}" if clean_at else ""
            text = f"{count}: {' '.join(loud)}{was}"
            self._logbook.write("check", text, level="warning", memory=True)
        if new or gone:
            self._publish(FindingsChanged(report=report))


def _left_in(seen: Scan | None) -> set[tuple[int, float]]:
    return set() if seen is None else {(one.pid, one.start_time) for one in seen.processes if one.left}
