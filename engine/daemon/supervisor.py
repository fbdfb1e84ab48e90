"""The worker's keeper: starts it when work asks for the device and carries its messages.

Jobs and actions that need the device to themselves take `device_lock` in the order of its line.
What a person may ask of it is in `engine.daemon.actions`. Event loop's thread only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, Literal

import msgspec

from engine.config import EngineConfig
from engine.daemon.cancel import Cancel
from engine.daemon.line import DeviceLine
from engine.daemon.logbook import LogBook
from engine.daemon.memory import MemoryView
from engine.daemon.nursery import Nursery
from engine.daemon.receipts import receipt_text
from engine.daemon.residents import Residents
from engine.daemon.silence import Silence
from engine.daemon.worker import STOP_GRACE_S, WorkerExit, WorkerProcess, start_worker
from engine.errors import DeviceTaken, NotNow, WorkerDied, WorkerReplaced, WorkerSilent, WorkerStopped
from engine.planning.allocator import choose_allocator, unfulfilled
from engine.wire import (
    ActionProgressed,
    Event,
    JobProgress,
    Receipt,
    ReceiptAction,
    ReceiptIssued,
    ReceiptStep,
    WorkerState,
    WorkerStatus,
)
from engine.worker.channel import (
    ActionEnded,
    ActionStepped,
    AllocatorSample,
    CancelAction,
    CancelJob,
    ComponentChanged,
    Connected,
    Count,
    FromWorker,
    JobEnded,
    JobProgressed,
    LibrariesLoaded,
    MemoryMoved,
    RunJob,
    ToWorker,
    Unloaded,
    Wanted,
    WarmChanged,
    WorkerLog,
    WorkerReady,
    WorkerSettings,
)

CANCEL_AGAIN_S = 3.0
"""A second cancel before this is a person's double key, not a wish to end the worker."""
SILENT_S = 10.0
"""A worker speaks 10 times a second; one that is silent for so long is stopped or hangs."""
START_S = 60.0
"""What a forked worker gets until it is ready. A context takes 0.2 s; where no daemon keeps the driver
initialised, a host with 8 GPUs takes up to half a minute, which a kill would only begin anew."""
SLOW_START_S = 240.0
"""What one gets that has to import everything itself: 12 to 20 s, minutes from a network disk."""
SHOWN_SILENT_S = 3.0
"""A worker is shown as silent after this long: more than any pause of a healthy one."""


def _read_rate(path: Path) -> float | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, float]).get("ring_rate")
    except (OSError, msgspec.MsgspecError):
        return None


@dataclass(kw_only=True, slots=True, eq=False)
class _Action:
    """One that the worker was asked for and has not answered yet."""

    action: ReceiptAction
    target: str
    answer: asyncio.Future[Receipt]
    on_unloaded: Callable[[WorkerProcess, Unloaded], None] | None
    on_step: Callable[[ReceiptStep], None] | None
    late: bool = False
    """Whoever asked was told that the worker is silent; it may end the action all the same."""


class Supervisor:
    """Owns the one worker of this engine."""

    def __init__(
        self,
        *,
        config: EngineConfig,
        embeddings: Path,
        nursery: Nursery,
        memory: MemoryView,
        logbook: LogBook,
        worker_log: Path,
        rates: Path,
        publish: Callable[[Event], None],
        on_change: Callable[[], None],
        on_models: Callable[[], None],
        on_progress: Callable[[int, JobProgress], None],
    ) -> None:
        self.device_lock = DeviceLine()
        self.residents = Residents()
        self.last_receipt: Receipt | None = None
        self._config = config
        self._embeddings = embeddings
        self._nursery = nursery
        self._memory = memory
        self._logbook = logbook
        self._worker_log = worker_log
        self._publish = publish
        self._on_change = on_change
        self._on_models = on_models
        self._on_progress = on_progress
        self._worker: WorkerProcess | None = None
        self._starting: asyncio.Task[WorkerProcess] | None = None
        self._connected = asyncio.Event()
        self._ready: asyncio.Future[WorkerReady] | None = None
        self._ready_s: float | None = None
        self._state: WorkerState = "starting"
        self._last_error: str | None = None
        self._job: tuple[int, asyncio.Future[JobEnded]] | None = None
        self._actions: dict[int, _Action] = {}
        self._opened: tuple[Wanted, ...] = ()
        self._allocator = choose_allocator(config.allocator)
        self._allocator_told: str | None = None
        self.warm: WarmChanged | None = None
        self._rates = rates
        self._ring_rate = _read_rate(rates)
        self.on_ready: Callable[[], None] = lambda: None
        """Called when a fresh worker can take work."""
        self.used_at = time.monotonic()
        """When a job or an action last ended."""
        self._action_ids = count(1)
        self._context_measured_after_job = False
        self.on_late: Callable[[ReceiptAction, str, Receipt], None] = lambda action, target, receipt: None
        """Called with what a silent worker had been asked for and did when it spoke again."""
        self._silence = Silence()
        self._shown_silent = False
        self._cancelled_at: float | None = None
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
                ready_s=self._ready_s,
                forked=worker.forked,
                job_id=self._job[0] if self._job else None,
                rss_bytes=self._memory.rss_bytes(worker.pid),
                allocator=self._allocator_told,
                allocator_reason=self._allocator_reason(),
                warm_bytes=self.warm.total_bytes if self.warm else None,
                warm_rate=self.warm.rate if self.warm else None,
                warm_refusal=self.warm.refusal if self.warm else None,
                ring_rate=self._ring_rate,
            ),
        )

    def _shown_state(self) -> WorkerState:
        if self._shown_silent and self._state != "stopping":
            return "silent"
        late = any(action.late and action.action in ("switch", "load") for action in self._actions.values())
        return "loading" if late and self._state == "idle" else self._state

    def warm_of(self, model: str) -> dict[str, int] | None:
        """Registered bytes by component of `model`; None where nothing can be known of it."""
        if self.warm is None or self.warm.refusal is not None:
            return None
        found = ((*label.rpartition("/")[::2], size) for label, size in self.warm.warm.items())
        return {component: size for name, component, size in found if name == model}

    @property
    def registered_bytes(self) -> int | None:
        """Of weight files in host memory, each once; None without a worker that tells."""
        return self.warm.total_bytes if self.warm is not None else None

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
        return self._job[0] if self._job else None

    async def ensure_worker(self, opened: tuple[Wanted, ...] = ()) -> WorkerProcess:
        """The worker, started first when there is none; concurrent callers share one start.

        A worker that is started for this call looks at the files of `opened` while its libraries
        warm up: what a `Preload` will ask for.

        Raises:
            WorkerDied: it could not be started, or died before it was ready.
            WorkerStopped: the engine ends.
            DeviceTaken: something has it to itself.
            NotNow: no device has been chosen.
        """
        if self.closed is not None:
            raise DeviceTaken(self.closed)
        if self._worker is not None and self._starting is None:
            return self._worker
        if self._starting is None:
            self._opened = opened
            self._starting = asyncio.create_task(self._start())
            self._starting.add_done_callback(self._start_ended)
        starting = self._starting
        try:
            worker = await asyncio.shield(starting)
        except asyncio.CancelledError:
            if starting.cancelled():
                raise WorkerStopped("the engine was stopped while a worker started") from None
            raise  # the caller was cancelled, not the start
        if worker is not self._worker:
            raise WorkerDied(f"worker {worker.pid} died as soon as it was ready")
        return worker

    async def stop(self, reason: str) -> None:
        """End the worker and with it everything that it holds; a running job is not waited for."""
        if self._starting is not None:
            self._starting.cancel()
        if self._worker is not None:
            self._set_state("stopping")
            await self._worker.stop(reason, grace_s=0.0 if self._job else STOP_GRACE_S)

    def end(self, reason: str) -> None:
        """Kill the worker, which is not waited for; a running job is interrupted and queued again."""
        if self._starting is not None:
            self._starting.cancel()
        if self._worker is not None:
            self._set_state("stopping")
            self._worker.kill(reason)

    def look_after(self) -> None:
        """Called once a second: what a silent worker was asked for fails, and one told to stop ends."""
        silent = self._silence.look()
        worker = self._worker
        if worker is None:
            return
        if self._starting is not None:
            self._look_after_start(worker, silent)
            return
        if silent < SHOWN_SILENT_S:
            return
        if not self._shown_silent:
            self._show_silent(worker, f"says nothing, for {silent:.0f} s by now", silent=True)
        if silent < SILENT_S:
            return
        since_cancel = 0.0 if self._cancelled_at is None else time.monotonic() - self._cancelled_at
        if since_cancel >= SILENT_S:
            worker.kill(f"it was silent for {silent:.0f} s after a cancel")
        for action in self._actions.values():
            if not action.answer.done():
                action.late = True
                action.answer.set_exception(
                    WorkerSilent(
                        f"{action.target}: the worker has said nothing for {silent:.0f} s; if it speaks "
                        "again it may still do this, and the log tells; `turbotui cleanup` ends it and "
                        "starts another"
                    )
                )

    def _look_after_start(self, worker: WorkerProcess, silent: float) -> None:
        """End a worker that hangs before it is ready. Not waited for: in a driver's call it may not die."""
        limit = START_S if worker.forked else SLOW_START_S
        if silent < limit or self._state == "stopping":
            return
        self._last_error = None
        worker.kill(f"it said nothing for {limit:.0f} s and was not ready")
        self._logbook.write("worker", f"worker {worker.pid} hangs in its start and is ended", level="error")
        self._forget(
            WorkerDied(
                f"worker {worker.pid} was not ready after {limit:.0f} s without a word and was ended; ask "
                "again, and where that ends the same way look whether the device answers (`nvidia-smi`)"
            )
        )

    def _show_silent(self, worker: WorkerProcess, text: str, *, silent: bool) -> None:
        self._shown_silent = silent
        level: Literal["warning", "info"] = "warning" if silent else "info"
        self._logbook.write("worker", f"worker {worker.pid} {text}", level=level)
        self._on_change()

    async def _start(self) -> WorkerProcess:
        device_id = self._memory.device_id
        if device_id is None:
            raise NotNow("no device is in use; `turbotui status` says why")
        self._last_error, self._ready_s = None, None
        self._ready = asyncio.get_running_loop().create_future()
        worker = await start_worker(
            device_id,
            self._nursery,
            WorkerSettings(
                warm_budget_bytes=self._config.warm_budget_bytes,
                stream=self._config.stream,
                ring_rate=self._ring_rate,
                allocator=self._allocator.settings,
                vae_precision=self._config.vae_precision,
                embeddings=str(self._embeddings),
                embeddings_bytes=self._config.embedding_cache_bytes,
                opened=self._opened,
            ),
            needs_fresh_import=self._allocator.needs_fresh_import,
            log_path=self._worker_log,
            on_message=self._heard,
            on_exit=self._exited,
        )
        self._worker = worker
        self._silence.heard()
        self._shown_silent = False
        self._memory.worker_started(worker.pid, device_id)
        self._set_state("starting")
        ready = await self._ready
        self._ready_s = round(time.monotonic() - worker.asked_at, 3)
        self._allocator_told = ready.allocator
        self.on_ready()
        self._memory.worker_ready(ready)
        self._memory.measure_context()
        self._set_state("idle")
        how = "forked" if worker.forked else "started the slow way"
        self._logbook.write(
            "worker", f"worker {worker.pid} {how} on {ready.device_name}, ready in {self._ready_s:.2f} s"
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
        sentence = exit_.sentence()
        if self._nursery.pid is None and worker.forked and exit_.reason is None:
            sentence += ", with the nursery that it was forked from"
        elif self._last_error:
            sentence += f": {self._last_error}"
        self._logbook.write("worker", sentence, level="info" if expected else "error", memory=True)
        died: WorkerDied = WorkerStopped(sentence) if expected else WorkerDied(sentence)
        self._forget(died)

    def _forget(self, died: WorkerDied) -> None:
        """There is no worker any more: whoever waits for it learns that it `died`."""
        self._worker = None
        self._connected = asyncio.Event()
        self._memory.worker_gone()
        self._context_measured_after_job = False
        self.residents.clear()
        self.warm = None
        waiting: list[asyncio.Future[Any] | None] = [self._ready, self._job[1] if self._job else None]
        waiting += [action.answer for action in self._actions.values()]
        self._actions = {}
        for future in waiting:
            if future is not None and not future.done():
                future.set_exception(died)
                future.exception()  # marked as seen: nobody may be waiting any more
        self._on_models()
        self._on_change()

    def _allocator_reason(self) -> str | None:
        """Why the settings were asked for, and which of them did not come true."""
        if self._allocator_told is None:
            return None
        missed = unfulfilled(self._allocator.settings, self._allocator_told)
        if missed:
            names = ", ".join(missed)
            return f"asked for {self._allocator.settings}, but the allocator does not tell of {names}"
        return self._allocator.reason

    def _remember_ring_rate(self, rate: float | None) -> None:
        """Keep what a worker measured once, for those after it."""
        if rate is None or self._ring_rate is not None:
            return
        self._ring_rate = rate
        with suppress(OSError):  # it is measured again, then
            self._rates.write_bytes(msgspec.json.encode({"ring_rate": round(rate)}))

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
        answer: asyncio.Future[JobEnded] = asyncio.get_running_loop().create_future()
        self._job, self._cancelled_at = (message.job_id, answer), None
        self._set_state("running")
        worker.send(message)
        try:
            ended = await answer
        finally:
            self.used_at = time.monotonic()
            self._job, self._cancelled_at = None, None
            if self._worker is not None and self._state != "stopping":
                self._set_state("idle")
        if ended.worker_unusable:
            worker.kill("its device context broke")
        elif ended.manifest is not None and not self._context_measured_after_job:
            self._context_measured_after_job = True  # by now all libraries that jobs use are loaded
            self._memory.measure_context()
        return ended

    def cancel_job(self, job_id: int) -> None:
        """Ask the worker to stop this job at its next step; asked again after a while, end the worker."""
        if self._worker is None or self._job is None or self._job[0] != job_id:
            return
        now = time.monotonic()
        if self._cancelled_at is None:
            self._cancelled_at = now
            self._worker.send(CancelJob(job_id=job_id))
        elif now - self._cancelled_at > CANCEL_AGAIN_S:
            self._worker.kill(f"job {job_id} was cancelled twice and did not stop")

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
            WorkerSilent: it has said nothing for `SILENT_S`. What it does later is told by `on_late`.
        """
        worker = await self.ensure_worker()
        action_id = next(self._action_ids)
        answer: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        asked = _Action(action=action, target=target, answer=answer, on_unloaded=on_unloaded, on_step=on_step)
        self._actions[action_id] = asked
        worker.send(message(action_id))
        if cancel is not None:
            cancel.tell(lambda: worker.send(CancelAction(action_id=action_id)))
        try:
            return await answer
        finally:
            if not asked.late:
                self._actions.pop(action_id, None)
            if cancel is not None:
                cancel.tell(None)

    def _ended_late(self, action: _Action, receipt: Receipt) -> None:
        if receipt.ok and receipt.proof != "page-cache":
            why = "the worker's own count: it was silent for so long that nobody looked from outside"
            receipt = replace(receipt, proof_reason=receipt.proof_reason or why)
        self.used_at = time.monotonic()
        self.on_late(action.action, action.target, self.issue(receipt))
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
        """Wait for the context of the worker that `starting` brings; False where it does not come in time."""
        event = self._connected
        connected = asyncio.ensure_future(event.wait())
        waits: set[asyncio.Future[Any]] = {starting, connected}
        try:
            await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            connected.cancel()
        return event.is_set()

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

    def issue(self, receipt: Receipt) -> Receipt:
        """Make a receipt known: to the viewers, the log, and whoever asks for the newest."""
        receipt = replace(receipt, at=time.time())
        self.last_receipt = receipt
        self._publish(ReceiptIssued(receipt=receipt))
        self._logbook.write(
            receipt.action,
            receipt_text(receipt),
            level="info" if receipt.ok else "warning",
            job_id=receipt.job_id,
            memory=True,
        )
        return receipt

    def stepped(self, action: str, target: str, step: ReceiptStep) -> None:
        """Tell the viewers of a step of an action that the daemon itself takes."""
        self._publish(ActionProgressed(action=action, target=target, step=step))

    # ----------------------------------------------------------------- what the worker says

    def _heard(self, worker: WorkerProcess, message: FromWorker) -> None:
        if worker is not self._worker:
            return
        self._silence.heard()
        if self._shown_silent:
            self._show_silent(worker, "speaks again", silent=False)
        match message:
            case Connected():
                self._connected.set()
            case AllocatorSample():
                self._memory.heard_worker(message)
            case JobProgressed():
                self._on_progress(
                    message.job_id,
                    JobProgress(
                        stage=message.stage,
                        step=message.step,
                        steps=message.steps,
                        fraction=message.fraction,
                        eta_s=message.eta_s,
                        peak_bytes=message.peak_bytes,
                    ),
                )
            case ComponentChanged():
                self.residents.heard(message)
                self._on_models()
            case MemoryMoved():
                self.issue(message.receipt)
            case LibrariesLoaded():
                self._memory.measure_context()
            case WarmChanged():
                self.warm = message
                self._remember_ring_rate(message.ring_rate)
                self._on_models()
                self._on_change()
            case Unloaded():
                if (action := self._actions.get(message.action_id)) is not None and action.on_unloaded:
                    action.on_unloaded(worker, message)
            case JobEnded():
                if self._job is not None and self._job[0] == message.job_id and not self._job[1].done():
                    self._job[1].set_result(message)
            case ActionStepped():
                if (action := self._actions.get(message.action_id)) is not None:
                    if action.on_step is not None:
                        action.on_step(message.step)
                    self.stepped(action.action, action.target, message.step)
            case ActionEnded():
                action = self._actions.get(message.action_id)
                if action is not None and action.late:
                    del self._actions[message.action_id]
                    self._ended_late(action, message.receipt)
                elif action is not None and not action.answer.done():
                    action.answer.set_result(message.receipt)
            case WorkerReady():
                if self._ready is not None and not self._ready.done():
                    self._ready.set_result(message)
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
