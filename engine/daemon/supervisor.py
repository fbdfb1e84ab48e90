"""The worker's keeper: starts it when work asks for the device, carries its messages, proves its actions.

Jobs and switches need the device to themselves and take `device_lock` in the order they asked;
unload and free may be asked at any time, also under a running job, which serves them between
two steps. Event loop's thread only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from engine.daemon.logbook import LogBook
from engine.daemon.memory import MemoryView
from engine.daemon.nursery import Nursery
from engine.daemon.probe import Probe
from engine.daemon.receipts import nothing_to_do, proved, receipt_text
from engine.daemon.residents import Residents
from engine.daemon.worker import STOP_GRACE_S, WorkerExit, WorkerProcess, start_worker
from engine.errors import NotNow, WorkerDied, WorkerStopped
from engine.wire import (
    ActionProgressed,
    Event,
    JobProgress,
    Receipt,
    ReceiptIssued,
    WorkerState,
    WorkerStatus,
)
from engine.worker.channel import (
    ActionEnded,
    ActionStepped,
    AllocatorSample,
    CancelJob,
    ComponentChanged,
    Free,
    FromWorker,
    JobEnded,
    JobProgressed,
    MemoryMoved,
    ModelFiles,
    RunJob,
    SwitchTo,
    Unload,
    WorkerLog,
    WorkerReady,
)

PROOF_TIMEOUT_S = 2.0
"""Memory that has not come back by then is residue, and said to be."""
SWITCH_PROOF_TIMEOUT_S = 0.3
"""A switch's unload was proved by the worker before it loaded; this only looks for a better proof."""
LOOK_TIMEOUT_S = 0.2
"""The probe reads a process at once; an answer that takes longer will not come."""
CANCEL_AGAIN_S = 3.0
"""A second cancel before this is a person's double key, not a wish to end the worker."""
SILENT_S = 10.0
"""A worker speaks 10 times a second; one that is silent for so long is stopped or hangs."""
PROOF_SLACK = 0.03
"""A process that is within this share of the expected bytes has given them back."""


class Supervisor:
    """Owns the one worker of this engine."""

    def __init__(
        self,
        *,
        nursery: Nursery,
        probe: Probe,
        memory: MemoryView,
        logbook: LogBook,
        worker_log: Path,
        publish: Callable[[Event], None],
        on_change: Callable[[], None],
        on_models: Callable[[], None],
        on_progress: Callable[[int, JobProgress], None],
    ) -> None:
        self.device_lock = asyncio.Lock()
        self.residents = Residents()
        self.last_receipt: Receipt | None = None
        self._nursery = nursery
        self._probe = probe
        self._memory = memory
        self._logbook = logbook
        self._worker_log = worker_log
        self._publish = publish
        self._on_change = on_change
        self._on_models = on_models
        self._on_progress = on_progress
        self._worker: WorkerProcess | None = None
        self._starting: asyncio.Task[WorkerProcess] | None = None
        self._ready: asyncio.Future[WorkerReady] | None = None
        self._ready_s: float | None = None
        self._state: WorkerState = "starting"
        self._last_error: str | None = None
        self._job: tuple[int, asyncio.Future[JobEnded]] | None = None
        self._actions: dict[int, tuple[str, str, asyncio.Future[Receipt]]] = {}
        self._action_ids = count(1)
        self._context_measured_after_job = False
        self._heard_at = 0.0
        self._cancelled_at: float | None = None

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
                state=self._state,
                started_at=worker.started_at,
                ready_s=self._ready_s,
                forked=worker.forked,
                job_id=self._job[0] if self._job else None,
                rss_bytes=self._memory.rss_bytes(worker.pid),
            ),
        )

    async def ensure_worker(self) -> WorkerProcess:
        """The worker, started first when there is none; concurrent callers share one start.

        Raises:
            WorkerDied: it could not be started, or died before it was ready.
            WorkerStopped: the engine ends.
            NotNow: no device has been chosen.
        """
        if self._worker is not None and self._starting is None:
            return self._worker
        if self._starting is None:
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

    def look_after(self) -> None:
        """Called once a second: end a worker that was told to stop its job and does not even speak."""
        silent = time.monotonic() - max(self._heard_at, self._cancelled_at or 0.0)
        if self._worker is None or self._starting is not None or silent < SILENT_S:
            return
        if self._cancelled_at is not None:
            self._worker.kill(f"it was silent for {silent:.0f} s after a cancel")
        for _, target, answer in self._actions.values():
            if not answer.done():
                answer.set_exception(
                    NotNow(
                        f"{target}: the worker has said nothing for {silent:.0f} s; "
                        "cancel its job twice to end it, or restart the engine"
                    )
                )

    async def _start(self) -> WorkerProcess:
        device_id = self._memory.device_id
        if device_id is None:
            raise NotNow("no device is in use; `turbotui status` says why")
        self._last_error, self._ready_s = None, None
        self._ready = asyncio.get_running_loop().create_future()
        worker = await start_worker(
            device_id,
            self._nursery,
            log_path=self._worker_log,
            on_message=self._heard,
            on_exit=self._exited,
        )
        self._worker = worker
        self._heard_at = time.monotonic()
        self._memory.worker_started(worker.pid, device_id)
        self._set_state("starting")
        ready = await self._ready
        self._ready_s = round(time.monotonic() - worker.asked_at, 3)
        self._memory.worker_ready(ready)
        self._memory.measure_context()
        self._set_state("idle")
        how = "forked" if worker.forked else "started the slow way"
        self._logbook.write(
            "worker", f"worker {worker.pid} {how} on {ready.device_name}, ready in {self._ready_s:.2f} s"
        )
        return worker

    def _start_ended(self, task: asyncio.Task[WorkerProcess]) -> None:
        self._starting = None
        if not task.cancelled():
            task.exception()  # every caller has its own copy; this one silences the loop's complaint

    def _exited(self, worker: WorkerProcess, exit_: WorkerExit) -> None:
        if worker is not self._worker:
            return
        expected = self._state == "stopping"
        sentence = exit_.sentence()
        if self._nursery.pid is None and worker.forked and exit_.reason is None:
            sentence += ", with the nursery that it was forked from"
        elif self._last_error:
            sentence += f": {self._last_error}"
        self._logbook.write("worker", sentence, level="info" if expected else "error", memory=True)
        self._worker = None
        self._memory.worker_gone()
        self._context_measured_after_job = False
        self.residents.clear()
        died = WorkerStopped(sentence) if expected else WorkerDied(sentence)
        waiting: list[asyncio.Future[Any] | None] = [self._ready, self._job[1] if self._job else None]
        waiting += [answer for _, _, answer in self._actions.values()]
        for future in waiting:
            if future is not None and not future.done():
                future.set_exception(died)
                future.exception()  # marked as seen: nobody may be waiting any more
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
        answer: asyncio.Future[JobEnded] = asyncio.get_running_loop().create_future()
        self._job, self._cancelled_at = (message.job_id, answer), None
        self._set_state("running")
        worker.send(message)
        try:
            ended = await answer
        finally:
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

    async def switch(self, model: ModelFiles) -> Receipt:
        """Make `model` the loaded one, after the running job.

        Raises:
            EngineError: it cannot fit, or the worker died.
        """
        async with self.device_lock:
            await self.ensure_worker()
            budget = self._memory.budget()
            if budget is None:
                raise NotNow("the device has not been read yet; try again in a second")
            self._set_state("loading")
            try:
                return await self._act(
                    "switch",
                    model.name,
                    lambda action_id: SwitchTo(
                        action_id=action_id, model=model, budget_bytes=budget.now_bytes
                    ),
                    expected_bytes=0,
                )
            finally:
                if self._worker is not None and self._state != "stopping":
                    self._set_state("idle")

    async def unload(self, model: str | None, component: str | None) -> Receipt:
        """Give back what is resident and not in use; with no worker nothing is, and that is a receipt too."""
        target = "everything" if model is None else model if component is None else f"{model}/{component}"
        if self._worker is None:
            return self._issue(nothing_to_do("unload", target))
        return await self._act(
            "unload",
            target,
            lambda action_id: Unload(action_id=action_id, model=model, component=component),
            expected_bytes=self.residents.resident_bytes(model, component),
        )

    async def free(self) -> Receipt:
        """Give back the allocator's cache and idle components."""
        if self._worker is None:
            return self._issue(nothing_to_do("free", "cache and idle components"))
        return await self._act(
            "free",
            "cache and idle components",
            lambda action_id: Free(action_id=action_id),
            expected_bytes=self.residents.resident_bytes(),
        )

    async def _act(
        self,
        action: str,
        target: str,
        message: Callable[[int], SwitchTo | Unload | Free],
        *,
        expected_bytes: int,
    ) -> Receipt:
        worker = await self.ensure_worker()
        action_id = next(self._action_ids)
        answer: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self._actions[action_id] = (action, target, answer)
        # Read now: the last reading may be from before the bytes came that this shall give back.
        held = None if self._job else await self._held_by(worker)
        worker.send(message(action_id))
        try:
            receipt = await answer
        finally:
            self._actions.pop(action_id, None)
        if receipt.ok:
            receipt = await self._prove(worker, receipt, held, expected_bytes)
        return self._issue(receipt)

    async def _prove(
        self, worker: WorkerProcess, receipt: Receipt, held: int | None, expected_bytes: int
    ) -> Receipt:
        """Complete a receipt by what the probe sees of the process, where it sees it."""
        if held is None:
            why = "a job runs, whose memory moves meanwhile" if self._job else "the probe does not see it"
            return replace(receipt, proof_reason=f"the worker's own count: {why}")
        expected = max(receipt.expected_bytes, expected_bytes)
        if expected == 0:
            return receipt
        slack = int(max(expected, receipt.loaded_bytes) * PROOF_SLACK)
        traced = await self._probe.trace(
            worker.pid,
            worker.device_id,
            until_bytes=held - expected + receipt.loaded_bytes + slack,
            timeout_s=SWITCH_PROOF_TIMEOUT_S if receipt.loaded_bytes else PROOF_TIMEOUT_S,
        )
        if receipt.loaded_bytes and (traced is None or not traced.reached):
            return receipt
        return proved(receipt, traced, held=held, expected=expected, on_cpu=worker.device_id == "cpu")

    async def _held_by(self, worker: WorkerProcess) -> int | None:
        """What the worker's process holds on its device at this moment."""
        seen = await self._probe.trace(
            worker.pid, worker.device_id, until_bytes=2**62, timeout_s=LOOK_TIMEOUT_S
        )
        return seen.start_bytes if seen is not None else None

    def _issue(self, receipt: Receipt) -> Receipt:
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

    # ----------------------------------------------------------------- what the worker says

    def _heard(self, worker: WorkerProcess, message: FromWorker) -> None:
        if worker is not self._worker:
            return
        self._heard_at = time.monotonic()
        match message:
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
                self._issue(message.receipt)
            case JobEnded():
                if self._job is not None and self._job[0] == message.job_id and not self._job[1].done():
                    self._job[1].set_result(message)
            case ActionStepped():
                if (action := self._actions.get(message.action_id)) is not None:
                    self._publish(ActionProgressed(action=action[0], target=action[1], step=message.step))
            case ActionEnded():
                action = self._actions.get(message.action_id)
                if action is not None and not action[2].done():
                    action[2].set_result(message.receipt)
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
