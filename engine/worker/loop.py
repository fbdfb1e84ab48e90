"""The worker's main loop: one thread does all device work, in the order it was asked.

Three threads: this loop; a listener that sorts what arrives, since a cancel must be seen while a
job runs; and a sampler that sends the allocator's counters. Unload and free are also served
between two steps of a job. When the daemon goes, so does this process, at once.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from engine.errors import DeviceFault, EngineError
from engine.wire import Receipt
from engine.worker.backend import Backend, open_backend
from engine.worker.channel import (
    ActionEnded,
    ActionStepped,
    CancelJob,
    Channel,
    Free,
    FromWorker,
    JobEnded,
    MemoryMoved,
    RunJob,
    Stop,
    SwitchTo,
    ToWorker,
    Unload,
    WorkerLog,
    WorkerReady,
)
from engine.worker.pipeline import run_job, versions
from engine.worker.progress import Shares, shares_of
from engine.worker.store import ComponentStore

SAMPLE_S = 0.1
SHAPES = 64
"""Shapes of jobs whose timing is remembered."""


def run_worker(connection: Connection[Any, Any], device_id: str) -> None:
    """Serve the daemon at the other end until it says stop or goes."""
    channel: Channel[FromWorker, ToWorker] = Channel(connection, ToWorker)
    try:
        backend = open_backend("cpu" if device_id == "cpu" else "cuda")
        backend.warm_up()
    except Exception as error:  # the process edge: said once, to the one who can tell a person
        text = str(error) if isinstance(error, EngineError) else f"{type(error).__name__}: {error}"
        channel.send(WorkerLog(level="error", event="worker", text=f"{device_id} cannot be used: {text}"))
        sys.exit(1)
    Worker(channel, backend).run()


class Worker:
    """Runs what the daemon asks for on one device."""

    def __init__(self, channel: Channel[FromWorker, ToWorker], backend: Backend) -> None:
        self._channel = channel
        self._backend = backend
        self._store = ComponentStore(
            backend,
            on_component=channel.send,
            on_moved=lambda receipt: channel.send(MemoryMoved(receipt=receipt)),
        )
        self._work: queue.SimpleQueue[RunJob | SwitchTo | Stop | None] = queue.SimpleQueue()
        # Served also between two steps of a job; None in `_work` wakes the loop for them.
        self._quick: queue.SimpleQueue[Unload | Free] = queue.SimpleQueue()
        self._cancelled: set[int] = set()
        # What each stage took of the last job of a shape, for the next one's estimate.
        self._shares: dict[tuple[object, ...], Shares] = {}

    def run(self) -> None:
        """Until told to stop."""
        self._channel.send(
            WorkerReady(
                pid=os.getpid(),
                device_name=self._backend.device_name,
                total_bytes=self._backend.total_bytes,
                baseline_rss_bytes=_rss_bytes(),
                versions=versions(),
            )
        )
        threading.Thread(target=self._listen, name="listener", daemon=True).start()
        threading.Thread(target=self._sample, name="sampler", daemon=True).start()
        while True:
            message = self._work.get()
            self._serve_quick()
            match message:
                case RunJob():
                    self._channel.send(self._run(message))
                case SwitchTo():
                    self._switch(message)
                case Stop():
                    return
                case None:
                    pass

    # ----------------------------------------------------------------- threads beside the loop

    def _listen(self) -> None:
        try:
            while True:
                match self._channel.receive():
                    case CancelJob(job_id=job_id):
                        self._cancelled.add(job_id)
                    case Unload() | Free() as quick:
                        self._quick.put(quick)
                        self._work.put(None)
                    case Stop() as stop:
                        self._work.put(stop)
                    case RunJob() as work:
                        # The pipe keeps order: a cancel from before this start meant an earlier one.
                        self._cancelled.discard(work.job_id)
                        self._work.put(work)
                    case SwitchTo() as work:
                        self._work.put(work)
        except (EOFError, OSError):
            os._exit(0)  # the daemon is gone: the kernel gives everything back, now

    def _sample(self) -> None:
        while True:
            try:
                self._channel.send(self._backend.sample(self._store.weights()))
            except OSError:
                return
            time.sleep(SAMPLE_S)

    # ----------------------------------------------------------------- work

    def _run(self, message: RunJob) -> JobEnded:
        """One job to its end. Nothing of it, not even its error's frames, is alive on return."""
        job_id = message.job_id
        shape = (message.model.name, message.width, message.height, message.spec.frames, message.spec.steps)
        try:
            manifest, path = run_job(
                message,
                self._store,
                self._backend,
                report=self._channel.send,
                cancelled=lambda: self._between_steps(job_id),
                shares=self._shares.get(shape),
            )
        except EngineError as error:
            for note in getattr(error, "__notes__", ()):  # the original's traceback, as text
                self._channel.send(WorkerLog(level="debug", event="trace", text=note, job_id=job_id))
            ended = JobEnded(
                job_id=job_id,
                error_code=error.code,
                error=str(error),
                worker_unusable=isinstance(error, DeviceFault),
            )
        else:
            ended = JobEnded(job_id=job_id, manifest=manifest, manifest_path=str(path))
            if len(self._shares) >= SHAPES:
                self._shares.clear()
            self._shares[shape] = shares_of(manifest.stages)
        self._cancelled.discard(job_id)
        return ended

    def _between_steps(self, job_id: int) -> bool:
        """Serve what may be served under a job; True when the job must stop."""
        self._serve_quick()
        return job_id in self._cancelled

    def _serve_quick(self) -> None:
        while True:
            try:
                message = self._quick.get_nowait()
            except queue.Empty:
                return
            started = time.monotonic()
            try:
                if isinstance(message, Unload):
                    receipt = self._store.unload(message.model, message.component)
                else:
                    receipt = self._store.free()
            except EngineError as error:
                action = "unload" if isinstance(message, Unload) else "free"
                target = getattr(message, "model", None) or "everything"
                receipt = self._refusal(action, target, error, started)
            self._channel.send(ActionEnded(action_id=message.action_id, receipt=receipt))

    def _switch(self, message: SwitchTo) -> None:
        started = time.monotonic()
        action_id = message.action_id
        try:
            receipt = self._store.switch(
                message.model,
                message.budget_bytes,
                on_step=lambda step: self._channel.send(ActionStepped(action_id=action_id, step=step)),
            )
        except EngineError as error:
            receipt = self._refusal("switch", message.model.name, error, started)
        self._channel.send(ActionEnded(action_id=action_id, receipt=receipt))

    def _refusal(self, action: str, target: str, error: EngineError, started: float) -> Receipt:
        return Receipt(
            action=action,  # type: ignore[arg-type]  # one of the three words given above
            target=target,
            ok=False,
            error=str(error),
            elapsed_s=round(time.monotonic() - started, 4),
            proof=self._backend.proof,
        )


def _rss_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
