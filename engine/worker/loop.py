"""The worker's main loop: one thread does all device work, in the order it was asked.

Beside it: a listener that sorts what arrives, since a cancel must be seen while a job runs; a
sampler that sends the allocator's counters; the carrier and the registrar, which move weights; and
a warmer for what may take as long as a disk does. Unload and free are also served between two
steps of a job. When the daemon goes, so does this process, at once.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from engine.embeddings import EmbeddingStore
from engine.errors import DeviceFault, EngineError
from engine.telemetry.host import read_rss
from engine.worker.action_server import ActionServer
from engine.worker.allocator import apply_allocator, read_allocator
from engine.worker.attending import Attention
from engine.worker.backend import Backend, open_backend
from engine.worker.bound import lacks_host_memory
from engine.worker.channel import (
    CancelAction,
    CancelJob,
    Channel,
    Connected,
    Count,
    DropWarm,
    Free,
    FromWorker,
    JobEnded,
    LibrariesLoaded,
    MemoryMoved,
    Preload,
    Proceed,
    Restore,
    RunJob,
    Stop,
    SwitchTo,
    ToWorker,
    Unload,
    Warm,
    WarmChanged,
    WorkerLog,
    WorkerReady,
    WorkerSettings,
)
from engine.worker.embedding_cache import EmbeddingCache
from engine.worker.kernel_warming import KernelWarmer, use_cache
from engine.worker.latent_rgb import LatentColours
from engine.worker.leaks.facts import Inspect, Trace
from engine.worker.leaks.inspector import Inspector
from engine.worker.leaks.look import pinned_in_use
from engine.worker.mapped import PIECE_BYTES
from engine.worker.oom import Allocator, OomWatch
from engine.worker.pipeline import run_job, shape_of
from engine.worker.progress import Shares, shares_of
from engine.worker.store import ComponentStore
from engine.worker.stream import FileSource
from engine.worker.tidy import Tidy
from engine.worker.tidying import Tidier
from engine.worker.versions import versions
from engine.worker.warm import MEASURED_PIECES, open_warm_tier
from engine.worker.warming import Warmer
from engine.worker.watch import JobWatch

SAMPLE_S = 0.1
SHAPES = 64
"""Shapes of jobs whose timing is remembered."""
REST_S = 1.0
"""Without work for so long, what libraries are left is loaded: each step of it may take 0.7 s."""


def run_worker(connection: Connection[Any, Any], device_id: str, settings: WorkerSettings) -> None:
    """Serve the daemon at the other end until it says stop or goes."""
    channel: Channel[FromWorker, ToWorker] = Channel(connection, ToWorker)
    try:
        if device_id != "cpu":
            apply_allocator(settings.allocator)
            if settings.embeddings:
                use_cache(Path(settings.embeddings).with_name("triton"))
        backend = open_backend("cpu" if device_id == "cpu" else "cuda")
        worker = Worker(channel, backend, settings)
        worker.listen()
        worker.connect()
    except Exception as error:  # the process edge: said once, to the one who can tell a person
        text = str(error) if isinstance(error, EngineError) else f"{type(error).__name__}: {error}"
        channel.send(WorkerLog(level="error", event="worker", text=f"{device_id} cannot be used: {text}"))
        sys.exit(1)
    try:
        worker.run()
    except Exception as error:  # the process edge again: a worker without its loop would look alive
        worker.give_up("loop", error)


class Worker:
    """Runs what the daemon asks for on one device."""

    def __init__(
        self, channel: Channel[FromWorker, ToWorker], backend: Backend, settings: WorkerSettings
    ) -> None:
        self._channel = channel
        self._backend = backend
        self._settings = settings
        self._began = time.monotonic()
        self._laps: list[str] = []
        """What the start has done after how many seconds."""
        self._connected = threading.Event()
        self._told_ready = threading.Event()
        self._baseline_rss_bytes = read_rss(os.getpid()) or 0
        self._work: queue.SimpleQueue[RunJob | SwitchTo | Restore | Stop | None] = queue.SimpleQueue()
        self._cancelled: set[int] = set()
        # What each stage took of the last job of a shape, for the next one's estimate.
        self._shares: dict[tuple[object, ...], Shares] = {}
        self._rested = False
        self._warm = warm = open_warm_tier(
            backend,
            settings,
            on_log=lambda text: channel.send(
                WorkerLog(level="warning", event="warm", text=text, memory=True)
            ),
        )
        self._store = ComponentStore(
            backend,
            on_component=channel.send,
            on_moved=lambda receipt: channel.send(MemoryMoved(receipt=receipt)),
            on_failed=lambda: self._work.put(None),
            warm=warm,
            vae_precision=settings.vae_precision,
            on_line=channel.send,
        )
        # What is quick is served also between two steps of a job; None in `_work` wakes the loop for it.
        self._actions = ActionServer(self._store, Tidier(backend), proof=backend.proof, send=channel.send)
        self._allocator = Allocator()
        self._inspector = Inspector(backend, self._store, root=self, send=channel.send)
        self._warmer = Warmer(self._store, warm, on_ended=channel.send)
        self._embeddings = EmbeddingCache(
            EmbeddingStore(Path(settings.embeddings), settings.embeddings_bytes if settings.embeddings else 0)
        )
        beside = Path(settings.embeddings).with_name("latent-colours") if settings.embeddings else None
        self._colours = LatentColours(beside)
        self._kernels = KernelWarmer(
            self._store, backend, log=lambda text: self._tell("kernels", text, level="debug")
        )
        self._attention = Attention(backend, log=lambda text: self._tell("attention", text))

    def listen(self) -> None:
        """Take messages from now on, and look at the files of what will be loaded first."""
        threading.Thread(target=self._listen, name="listener", daemon=True).start()
        if self._settings.opened:
            # Its loads come while libraries are mapped, which registering would hold up.
            if self._warm is not None:
                self._warm.held = self._settings.stream == "auto"
            threading.Thread(target=self._open_ahead, name="opener", daemon=True).start()

    def connect(self) -> None:
        """Make the context and load the first libraries; loads travel as soon as there is the one.

        Raises:
            RuntimeError: as `Backend.connect`.
        """
        self._backend.connect()
        self._allocator.attach(self._backend)
        self._inspector.tracer.connected()
        self._lap("context")
        threading.Thread(target=self._prepare_copies, name="buffers", daemon=True).start()
        self._connected.set()
        self._kernels.connected()
        self._channel.send(Connected())
        self._backend.warm_up()
        self._lap("libraries")

    def _prepare_copies(self) -> None:
        refusal = self._backend.prepare_copies()
        self._lap("buffers")
        if refusal is not None:
            text = f"the host pins no memory ({refusal}); weights travel at a fraction of the bus's rate"
            self._channel.send(WorkerLog(level="warning", event="warm", text=text, memory=True))

    def _open_ahead(self) -> None:
        for wanted in self._settings.opened:
            with suppress(EngineError):  # said when it is loaded
                self._store.component(wanted.model, wanted.component)
        self._lap("files")

    def _preload(self, message: Preload) -> None:
        self._connected.wait()
        for wanted in message.wanted:
            try:
                self._store.begin(wanted.model, wanted.component)
            except EngineError as error:
                text = f"{wanted.model.name}/{wanted.component} did not come back: {error}"
                self._channel.send(WorkerLog(level="warning", event="load", text=text, memory=True))
        self._lap("first loads begun")

    def _tell(self, event: str, text: str, level: Literal["info", "debug"] = "info") -> None:
        self._channel.send(WorkerLog(level=level, event=event, text=text))

    def _lap(self, name: str) -> None:
        self._laps.append(f"{name} {time.monotonic() - self._began:.3f}")

    def give_up(self, thread: str, error: BaseException) -> None:
        """End this process: without the thread that failed it would be deaf, or idle, and look alive.

        Not by an exception: what else runs would keep it, and cleaning up needs memory that there may not be.
        """
        with suppress(Exception):
            traceback.print_exception(error)
        with suppress(Exception):
            text = f"the worker's {thread} failed: {type(error).__name__}: {error}"
            self._channel.send(WorkerLog(level="error", event="worker", text=text))
        os._exit(1)

    def run(self) -> None:
        """Until told to stop."""
        # Before it is called ready: where no thread can be started it never is.
        threading.Thread(target=self._sample, name="sampler", daemon=True).start()
        self._channel.send(
            WorkerReady(
                pid=os.getpid(),
                device_name=self._backend.device_name,
                total_bytes=self._backend.total_bytes,
                baseline_rss_bytes=self._baseline_rss_bytes,
                versions=versions(),
                allocator=read_allocator(self._backend.kind),
            )
        )
        self._told_ready.set()
        if self._warm is not None:
            self._warm.release_hold()
        text = f"ready after {time.monotonic() - self._began:.3f} s: {', '.join(self._laps)}"
        self._channel.send(WorkerLog(level="debug", event="start", text=text))
        rest = self._rest()
        while True:
            message = self._next(rest)
            self._store.settle()
            self._actions.serve_quick()
            self._inspector.serve()
            match message:
                case RunJob():
                    with self._inspector.job(message.job_id):
                        ended = self._measured(message)
                    self._channel.send(ended)
                case SwitchTo():
                    self._actions.switch(message)
                case Restore():
                    self._actions.restore(message)
                case Stop():
                    return
                case None:
                    pass

    def _next(self, rest: Iterator[None]) -> RunJob | SwitchTo | Restore | Stop | None:
        """The next message; until one comes, warm up what is left of that."""
        while True:
            try:
                return self._work.get(timeout=None if self._rested else REST_S)
            except queue.Empty:
                pass
            try:
                more = next(rest, self) is not self
            except Exception as error:  # a job loads what this could not; only a broken device ends it
                if self._backend.is_fatal(error):
                    raise
                text = f"libraries could not be loaded ahead: {type(error).__name__}: {error}"
                self._channel.send(WorkerLog(level="info", event="worker", text=text))
                self._channel.send(LibrariesLoaded())  # what there will be of them before a job
                more = False
            self._rested = not more

    def _rest(self) -> Iterator[None]:
        """What is done once while nothing is asked: the other libraries, and the ring's measurement."""
        yield from self._backend.warm_up_rest()
        # Not after the measurement: it waits for files that may never be registered here.
        self._channel.send(LibrariesLoaded())
        warm = self._warm
        while warm is not None and warm.refusal is None and warm.ring_rate() is None:
            if self._settings.stream != "auto":
                return
            path = warm.a_cached_file()
            if path is not None:
                with suppress(EngineError), FileSource(path, expected_bytes=path.stat().st_size) as source:
                    self._backend.measure_ring(source, MEASURED_PIECES * PIECE_BYTES)
                return
            yield

    # ----------------------------------------------------------------- threads beside the loop

    def _listen(self) -> None:
        try:
            while True:
                match self._channel.receive():
                    case CancelJob(job_id=job_id):
                        self._cancelled.add(job_id)
                    case CancelAction(action_id=action_id):
                        self._store.cancels.ask(action_id)
                    case Unload() | Free() | Tidy() as quick:
                        self._actions.ask(quick)
                        self._work.put(None)
                    case Inspect() | Trace() as asked:
                        self._inspector.ask(asked)
                        self._work.put(None)
                    case Warm() | DropWarm() as warming:
                        self._warmer.ask(warming)
                    case Count():
                        self._channel.send(self._backend.sample(self._store.weights()))
                    case Proceed() as proceed:
                        self._actions.proceed(proceed)
                    case Preload() as preload:
                        for wanted in preload.wanted[:1]:
                            self._kernels.want(wanted.model)
                        threading.Thread(target=self._preload, args=(preload,), daemon=True).start()
                    case RunJob() as work:
                        # The pipe keeps order: a cancel from before this start meant an earlier one.
                        self._cancelled.discard(work.job_id)
                        self._kernels.want(work.model)
                        self._work.put(work)
                    case SwitchTo() as work:
                        self._kernels.want(work.model)
                        self._work.put(work)
                    case Restore() | Stop() as work:
                        self._work.put(work)
        except Exception as error:  # the thread's edge: without it the worker would be deaf
            if isinstance(error, EOFError | OSError) and not lacks_host_memory(error):
                os._exit(0)  # the daemon is gone: the kernel gives everything back, now
            self.give_up("listener", error)

    def _sample(self) -> None:
        self._told_ready.wait()
        told: WarmChanged | None = None
        while True:
            try:
                self._channel.send(self._backend.sample(self._store.weights()))
                warm = self._warmer.state()
                if warm != told:
                    self._channel.send(warm)
                    told = warm
            except OSError:
                return
            except MemoryError:
                pass  # the next one may have room; a job tells better what it lacked
            time.sleep(SAMPLE_S)

    # ----------------------------------------------------------------- work

    def _measured(self, message: RunJob) -> JobEnded:
        """One job, and its line of the memory ledger: what is there when nothing of it should be."""
        model, shape = message.model.name, shape_of(message)
        with self._store.ledger.job(message.job_id, model=model, shape=shape) as line:
            ended = self._run(message)
            line.end(ok=ended.manifest is not None)
        return ended

    def _run(self, message: RunJob) -> JobEnded:
        """One job to its end. Nothing of it, not even its error's frames, is alive on return."""
        job_id = message.job_id
        oom = OomWatch(
            self._backend,
            self._store.weights,
            message.model.name,
            self._allocator,
            baseline_bytes=self._baseline_rss_bytes,
            pinned_in_use=partial(pinned_in_use, self._backend, self._store),
        )
        watch = JobWatch(
            message,
            self._backend,
            tell=oom.through(self._channel.send),
            preview=self._settings.preview,
            colours=self._colours,
        )
        spec = message.spec
        shape = (
            *(message.model.name, message.width, message.height, spec.frames, spec.steps),
            *(spec.samples, spec.attention),
        )
        try:
            manifest, path = run_job(
                message,
                self._store,
                self._backend,
                report=oom.through(self._channel.send),
                cancelled=lambda: self._between_steps(job_id),
                embeddings=self._embeddings,
                warn=lambda event, text: self._channel.send(
                    WorkerLog(level="warning", event=event, text=text, job_id=job_id)
                ),
                shares=watch.begin(self._shares.get(shape)),
                watch=watch,
                attention=self._attention,
                nan_guard=self._settings.nan_guard,
                saw=oom.saw,
            )
        except EngineError as error:
            for note in getattr(error, "__notes__", ()):  # the original's traceback, as text
                self._channel.send(WorkerLog(level="debug", event="trace", text=note, job_id=job_id))
            ended = JobEnded(
                job_id=job_id,
                error_code=error.code,
                error=str(error),
                worker_unusable=isinstance(error, DeviceFault),
                oom=oom.moment,
            )
        else:
            ended = JobEnded(job_id=job_id, manifest=manifest, manifest_path=str(path))
            if len(self._shares) >= SHAPES:
                self._shares.clear()
            self._shares[shape] = shares_of(manifest.stages)
            self._inspector.stepped(shape, manifest.step_s)
        watch.close()
        self._cancelled.discard(job_id)
        return ended

    def _between_steps(self, job_id: int) -> bool:
        """Serve what may be served under a job; True when the job must stop."""
        self._actions.serve_quick()
        self._inspector.serve()
        return job_id in self._cancelled
