"""The worker's keeper: starts it when work asks for the device and carries its messages.

Jobs and actions that need the device to themselves take `device_lock` in the order of its line.
What a person may ask of it is in `engine.daemon.actions`. Event loop's thread only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from engine.daemon.cancel import Cancel
from engine.daemon.inspections import Inspections
from engine.daemon.line import DeviceLine
from engine.daemon.logbook import LogBook
from engine.daemon.memory import MemoryView
from engine.daemon.nursery import Nursery
from engine.daemon.pending_actions import PendingActions
from engine.daemon.previews import Previews
from engine.daemon.receipt_book import ReceiptBook
from engine.daemon.residents import Residents
from engine.daemon.silence_watch import SilenceWatch
from engine.daemon.warm_files import WarmFiles
from engine.daemon.worker import STOP_GRACE_S, WorkerExit, WorkerProcess
from engine.daemon.worker_job import WorkerJob
from engine.daemon.worker_starter import WorkerStarter
from engine.errors import DeviceTaken, NotNow, WorkerDied, WorkerNotStarted, WorkerReplaced, WorkerStopped
from engine.wire import JobProgress, Receipt, ReceiptAction, ReceiptStep, WorkerState, WorkerStatus
from engine.worker.channel import (
    ActionEnded,
    ActionStepped,
    AllocatorSample,
    ComponentChanged,
    Connected,
    Count,
    FromWorker,
    JobEnded,
    JobPreviewed,
    JobProgressed,
    JobStaged,
    Ledgered,
    LibrariesLoaded,
    MemoryMoved,
    RunJob,
    ToWorker,
    Unloaded,
    Wanted,
    WarmChanged,
    WorkerLog,
    WorkerReady,
)
from engine.worker.leaks.facts import Inspected


class Supervisor:
    """Owns the one worker of this engine."""

    def __init__(
        self,
        *,
        starter: WorkerStarter,
        nursery: Nursery,
        memory: MemoryView,
        logbook: LogBook,
        receipts: ReceiptBook,
        on_change: Callable[[], None],
        on_models: Callable[[], None],
        on_progress: Callable[[int, JobProgress], None],
        previews: Previews,
    ) -> None:
        self.device_lock = DeviceLine()
        self.residents = Residents()
        self.warm = WarmFiles()
        self.previews = previews
        self.inspections = Inspections(lambda: self._worker)
        self._starter = starter
        self._nursery = nursery
        self._memory = memory
        self._logbook = logbook
        self._receipts = receipts
        self._on_change = on_change
        self._on_models = on_models
        self._worker: WorkerProcess | None = None
        self._starting: asyncio.Task[WorkerProcess] | None = None
        self._state: WorkerState = "starting"
        self._last_error: str | None = None
        self._job = WorkerJob(on_progress=on_progress)
        self._pending = PendingActions(receipts, on_late=self._ended_late)
        self.on_ready: Callable[[], None] = lambda: None
        """Called when a fresh worker can take work."""
        self.used_at = time.monotonic()
        """When a job or an action last ended."""
        self._context_measured_after_job = False
        self.on_late: Callable[[ReceiptAction, str, Receipt], None] = lambda action, target, receipt: None
        """Called with what a silent worker had been asked for and did when it spoke again."""
        self.on_line: Callable[[WorkerProcess, Ledgered], None] = lambda worker, message: None
        """Called with each line of the memory ledger."""
        self._watch = SilenceWatch(self._job, self._pending, logbook, on_change=on_change)
        self.closed: str | None = None
        """Why no worker may start now, while something has the whole device to itself."""

    # ----------------------------------------------------------------- the worker's life

    @property
    def pid(self) -> int | None:
        return self._worker.pid if self._worker is not None else None

    def statuses(self) -> tuple[WorkerStatus, ...]:
        worker = self._worker
        if worker is None:
            return ()
        return (
            WorkerStatus(
                pid=worker.pid,
                device_id=worker.device_id,
                state=self._shown_state(),
                started_at=worker.started_at,
                ready_s=self._starter.ready_s,
                forked=worker.forked,
                job_id=self._job.id,
                rss_bytes=self._memory.rss_bytes(worker.pid),
                allocator=self._starter.allocator_told,
                allocator_reason=self._starter.allocator_reason,
                warm_bytes=self.warm.registered_bytes,
                warm_rate=self.warm.rate,
                warm_refusal=self.warm.refusal,
                ring_rate=self._starter.rates.ring(worker.device_id),
            ),
        )

    def _shown_state(self) -> WorkerState:
        if self._watch.shown and self._state != "stopping":
            return "silent"
        return "loading" if self._pending.loads_late and self._state == "idle" else self._state

    def count(self) -> None:
        """Ask the worker for its counters now."""
        if self._worker is not None:
            self._worker.send(Count())

    @property
    def worker(self) -> WorkerProcess | None:
        return self._worker

    @property
    def starting(self) -> bool:
        """Whether a worker is being started, which may not have a process yet."""
        return self._starting is not None

    @property
    def running_job(self) -> int | None:
        return self._job.id

    async def ensure_worker(self, opened: tuple[Wanted, ...] = ()) -> WorkerProcess:
        """The worker, started first when there is none; concurrent callers share one start.

        A worker that is started for this call looks at the files of `opened` while its libraries
        warm up: what a `Preload` will ask for.

        Raises:
            WorkerNotStarted: it could not be started, or died before it was ready.
            WorkerStopped: the engine ends.
            DeviceTaken: something has it to itself.
            NotNow: no device has been chosen.
        """
        if self.closed is not None:
            raise DeviceTaken(self.closed)
        if self._worker is not None and self._starting is None:
            return self._worker
        if self._starting is None:
            self._starting = asyncio.create_task(self._start(opened))
            self._starting.add_done_callback(self._start_ended)
        starting = self._starting
        try:
            worker = await asyncio.shield(starting)
        except asyncio.CancelledError:
            if starting.cancelled():
                raise WorkerStopped("the engine was stopped while a worker started") from None
            raise  # the caller was cancelled, not the start
        if worker is not self._worker:
            raise WorkerNotStarted(f"worker {worker.pid} died as soon as it was ready")
        return worker

    async def stop(self, reason: str) -> None:
        """End the worker and with it everything that it holds; a running job is not waited for."""
        if self._starting is not None:
            self._starting.cancel()
        if self._worker is not None:
            self._set_state("stopping")
            await self._worker.stop(reason, grace_s=STOP_GRACE_S if self._job.id is None else 0.0)

    def end(self, reason: str) -> None:
        """Kill the worker, which is not waited for; a running job is interrupted and queued again."""
        if self._starting is not None:
            self._starting.cancel()
        if self._worker is not None:
            self._set_state("stopping")
            self._worker.kill(reason)

    def look_after(self) -> None:
        """Called once a second; see `SilenceWatch.look`."""
        starting, stopping = self.starting, self._state == "stopping"
        died = self._watch.look(self._worker, starting=starting, stopping=stopping)
        if died is not None:
            self._forget(died)

    async def _start(self, opened: tuple[Wanted, ...]) -> WorkerProcess:
        device_id = self._memory.device_id
        if device_id is None:
            raise NotNow("no device is in use; `turbotui status` says why")
        self._last_error = None
        try:
            worker = await self._starter.start(
                device_id, opened, on_message=self._heard, on_exit=self._exited
            )
        except WorkerDied as died:
            raise WorkerNotStarted(str(died)) from died
        self._worker = worker
        self._watch.began()
        self._memory.worker_started(worker.pid, device_id)
        self._set_state("starting")
        ready = await self._starter.ready(worker)
        self.on_ready()
        self._memory.worker_ready(ready)
        self._memory.measure_context()
        self._set_state("idle")
        how = "forked" if worker.forked else "started the slow way"
        self._logbook.write(
            "worker",
            f"worker {worker.pid} {how} on {ready.device_name}, ready in {self._starter.ready_s:.2f} s",
        )
        return worker

    def _start_ended(self, task: asyncio.Task[WorkerProcess]) -> None:
        if self._starting is task:
            self._starting = None
        if not task.cancelled():
            task.exception()  # every caller has its own copy; this one silences the loop's complaint

    def _exited(self, worker: WorkerProcess, exit_: WorkerExit) -> None:
        if worker is not self._worker:
            self._logbook.write("worker", exit_.sentence(), memory=True)  # one that was let go
            return
        expected = self._state == "stopping"
        # What it said at its end is short and its own; what it printed is all there is where it said nothing.
        sentence = exit_.sentence() if expected or self._last_error else exit_.told()
        if self._nursery.pid is None and worker.forked and exit_.reason is None:
            sentence += ", with the nursery that it was forked from"
        elif self._last_error:
            sentence += f": {self._last_error}"
        self._logbook.write("worker", sentence, level="info" if expected else "error", memory=True)
        if expected:
            self._forget(WorkerStopped(sentence))
        elif self.starting or self._job.untaken:
            self._forget(WorkerNotStarted(sentence))
        else:
            self._forget(WorkerDied(sentence))

    def _forget(self, died: WorkerDied) -> None:
        """There is no worker any more: whoever waits for it learns that it `died`."""
        self._worker = None
        self._memory.worker_gone()
        self._context_measured_after_job = False
        self.residents.clear()
        self.warm.clear()
        self._starter.worker_died(died)
        self._job.worker_died(died)
        self._pending.worker_died(died)
        self.inspections.worker_died(died)
        self._on_models()
        self._on_change()

    def _set_state(self, state: WorkerState) -> None:
        self._state = state
        self._on_change()

    # ----------------------------------------------------------------- jobs

    async def run_job(self, message: RunJob) -> JobEnded:
        """Run one job on the worker; the caller holds `device_lock`.

        Raises:
            WorkerDied: the worker ended under it.
        """
        worker = await self.ensure_worker()
        answer = self._job.begin(message.job_id)
        self._set_state("running")
        worker.send(message)
        try:
            ended = await answer
        finally:
            self.used_at = time.monotonic()
            self._job.end()
            self.busy("idle")
        if ended.worker_unusable:
            worker.kill("its device context broke")
        elif ended.manifest is not None and not self._context_measured_after_job:
            self._context_measured_after_job = True  # by now all libraries that jobs use are loaded
            self._memory.measure_context()
        return ended

    def cancel_job(self, job_id: int) -> None:
        """Ask the worker to stop this job at its next step; asked again after a while, end the worker."""
        if self._worker is not None:
            self._job.cancel(self._worker, job_id)

    # ----------------------------------------------------------------- actions

    async def ask(
        self,
        action: ReceiptAction,
        target: str,
        message: Callable[[int], ToWorker],
        *,
        on_unloaded: Callable[[WorkerProcess, Unloaded], None] | None = None,
        on_step: Callable[[ReceiptStep], None] | None = None,
        cancel: Cancel | None = None,
    ) -> Receipt:
        """Send an action to the worker, started first if need be, and give its receipt as it wrote it.

        `on_unloaded` runs when a switch has given back what it will; it sees to the Proceed. `on_step`
        has each step as the worker tells it. A `cancel` reaches it from now on; its receipt says so.

        Raises:
            WorkerDied: the worker ended under it.
            WorkerSilent: it has said nothing for too long. What it does later is told by `on_late`.
        """
        worker = await self.ensure_worker()
        return await self._pending.ask(
            worker, action, target, message, on_unloaded=on_unloaded, on_step=on_step, cancel=cancel
        )

    def _ended_late(self, action: ReceiptAction, target: str, receipt: Receipt) -> None:
        self.used_at = time.monotonic()
        self.on_late(action, target, receipt)
        self._on_change()

    def let_go(self, reason: str) -> WorkerProcess | None:
        """Stop the worker where it is, in a job or a call that hangs, and forget it.

        Its memory stays until the caller kills what is returned; another one can be started before.
        """
        worker = self._worker
        if worker is not None:
            worker.freeze()
            self._starting = None
            self._forget(WorkerReplaced(f"worker {worker.pid} was ended: {reason}"))
        return worker

    async def forked(self, starting: asyncio.Future[WorkerProcess]) -> WorkerProcess:
        """The process of the worker that `starting` brings, which cannot take work yet.

        Raises:
            WorkerDied: its start has failed.
        """
        while self._worker is None and not starting.done():
            await asyncio.sleep(0.001)
        return self._worker or await starting

    async def connected(self, starting: asyncio.Future[WorkerProcess], *, timeout_s: float) -> bool:
        """As `WorkerStarter.connected`."""
        return await self._starter.connected(starting, timeout_s=timeout_s)

    async def retire(self, reason: str) -> None:
        """End the idle worker; returns when it is gone. The next work starts another."""
        worker = self._worker
        if worker is not None:
            self._set_state("stopping")
            await worker.stop(reason)

    def busy(self, state: WorkerState) -> None:
        """What the worker does now, for the viewers; `idle` unless it is ending."""
        if self._worker is not None and self._state != "stopping":
            self._set_state(state)

    # ----------------------------------------------------------------- what the worker says

    def _heard(self, worker: WorkerProcess, message: FromWorker) -> None:
        if worker is not self._worker:
            return
        self._watch.heard(worker)
        match message:
            case Connected() | WorkerReady():
                self._starter.heard(message)
            case AllocatorSample():
                self._memory.heard_worker(message)
            case ComponentChanged():
                self.residents.heard(message)
                self._on_models()
            case Ledgered():
                self.on_line(worker, message)
            case MemoryMoved():
                self._receipts.issue(message.receipt)
            case Inspected():
                self.inspections.heard(message)
            case LibrariesLoaded():
                self._memory.measure_context()
            case WarmChanged():
                self.warm.heard(message)
                self._starter.rates.measured(worker.device_id, message.ring_rate)
                self._on_models()
                self._on_change()
            case JobProgressed() | JobEnded():
                self._job.heard(message)
            case JobPreviewed() | JobStaged():
                self.previews.heard(message)
            case Unloaded() | ActionStepped() | ActionEnded():
                self._pending.heard(worker, message)
            case WorkerLog():
                if message.level == "error":
                    self._last_error = message.text
                self._logbook.write(
                    message.event,
                    message.text,
                    level=message.level,  # type: ignore[arg-type]  # the worker's levels are ours
                    job_id=message.job_id,
                    memory=message.memory,
                )
