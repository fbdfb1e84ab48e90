"""The engine: its parts put together, and what every request asks of it. Event loop's thread only."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.config import Config
from engine.daemon.actions import Actions
from engine.daemon.audit import Asker, AuditLog
from engine.daemon.checks import Checks
from engine.daemon.demo import make_demo_models
from engine.daemon.devices import DeviceInUse
from engine.daemon.events import EventHub
from engine.daemon.full_cleanup import FullCleanup
from engine.daemon.history import past_of
from engine.daemon.job_plans import JobPlans
from engine.daemon.kill import Kill
from engine.daemon.lock import EngineLock
from engine.daemon.logbook import LogBook
from engine.daemon.memory import MemoryView
from engine.daemon.metrics import ReceiptTally
from engine.daemon.model_use import ModelUse
from engine.daemon.notify import Notifier
from engine.daemon.nursery import Nursery
from engine.daemon.overview import Overview
from engine.daemon.own_processes import OwnProcesses
from engine.daemon.planner import Planner
from engine.daemon.probe import Probe
from engine.daemon.prompts import KeptPrompts
from engine.daemon.proofs import Proofs
from engine.daemon.queue import QueueRunner
from engine.daemon.rates import Rates
from engine.daemon.read_ahead import ReadAhead
from engine.daemon.readiness import FirstReading
from engine.daemon.receipt_book import ReceiptBook
from engine.daemon.recording import FlightRecorder
from engine.daemon.reset import Reset
from engine.daemon.reset_helper import HELPER
from engine.daemon.reset_program import ResetProgram
from engine.daemon.server import SocketServer
from engine.daemon.supervisor import Supervisor
from engine.daemon.telling import Telling
from engine.daemon.tenants import Tenants
from engine.daemon.threads import in_thread
from engine.daemon.victims import Victims
from engine.daemon.worker_starter import WorkerStarter
from engine.embeddings import EmbeddingStore
from engine.errors import InvalidRequest, NotFound, NotNow
from engine.jobs.liveness import is_alive, read_start_time
from engine.jobs.store import JobStore
from engine.models.catalog import Catalog
from engine.paths import Paths, user_name
from engine.recording.entries import EngineStarted
from engine.telemetry.samples import FromProbe
from engine.units import size_text
from engine.version import build_id
from engine.wire import (
    WIRE_VERSION,
    CacheCleared,
    CacheStatus,
    CancelAsked,
    CancelRequest,
    CleanupRequest,
    DeviceProcess,
    DeviceStatus,
    EngineChanged,
    EngineStatus,
    Event,
    Explanation,
    Hello,
    Job,
    JobChanged,
    JobForecast,
    JobMove,
    JobSpec,
    JobsReordered,
    KillRequest,
    Logged,
    LogLine,
    MemoryHistory,
    MemorySampled,
    ModelsChanged,
    ModelStatus,
    QueueStatus,
    Receipt,
    ReceiptAction,
    Snapshot,
    Status,
    UnloadRequest,
    WarmRequest,
)

SNAPSHOT_LOG_LINES = 500
LOOK_S = 1.0
"""How often the engine looks at what nobody announces: waiting jobs, models on disk."""


class Engine:
    """One per state directory, for as long as its lock is held."""

    def __init__(
        self, paths: Paths, config: Config, *, lock: EngineLock, environ: dict[str, str], instance: str
    ) -> None:
        """`environ` is the environment that the engine was started with, for its children."""
        self.build = build_id()
        self.paths = paths
        self._config = config.engine
        self._lock = lock
        self._environ = environ
        self._instance = instance
        self._started_at = time.time()
        self._started = time.monotonic()
        self._stopping = asyncio.Event()
        self._state: str = "starting"
        self._unsettled = False
        self.output_dir = Path(os.path.expanduser(self._config.output_dir or paths.output)).absolute()
        self.device = DeviceInUse(self._config.device, environ.get("CUDA_VISIBLE_DEVICES"))
        self.hub = EventHub()
        self.logbook = LogBook(paths.logs, max_bytes=self._config.log_bytes, on_line=self._logged)
        self.audit = AuditLog(
            paths.audit, on_problem=lambda text: self.logbook.write("audit", text, level="warning")
        )
        self.store = JobStore(paths.jobs, max_waiting=self._config.max_queue)
        self.catalog = Catalog(paths.models, self._config.vae_precision)
        self.embeddings = EmbeddingStore(paths.embeddings, self._config.embedding_cache_bytes)
        self.tenants = Tenants()
        self.memory = MemoryView(
            self._config, on_status=self._sampled, label=self._label, tenants=self.tenants
        )
        self.recorder = FlightRecorder(
            paths.recordings,
            self._config.recording_bytes,
            on_log=lambda text, level: self.logbook.write("recording", text, level=level),
        )
        self.hub.listen(self.recorder.heard)
        self.first_reading = FirstReading(self.memory, self.device)
        self.nursery = Nursery(
            paths.state / "nursery.json", on_change=self._processes_changed, on_log=self.logbook.write
        )
        self.probe = Probe(
            log_path=paths.logs / "probe.log",
            environ=environ,
            on_reading=self._read,
            on_log=self.logbook.write,
            on_start=self._processes_changed,
        )
        self.receipts = ReceiptBook(self.logbook, self._publish)
        rates = Rates(paths.state / "rates.json")
        self.supervisor = Supervisor(
            starter=WorkerStarter(
                self._config,
                embeddings=paths.embeddings,
                nursery=self.nursery,
                rates=rates,
                log_path=paths.logs / "worker.log",
            ),
            nursery=self.nursery,
            memory=self.memory,
            logbook=self.logbook,
            receipts=self.receipts,
            rates=rates,
            on_change=self._processes_changed,
            on_models=self._models_changed,
            on_progress=lambda job_id, progress: self.queue.progressed(job_id, progress),
        )
        self.supervisor.on_late = self._ended_late
        self.memory.ask_counters = self.supervisor.count
        self.memory.ask_reading = self.probe.read_soon
        self.plans = JobPlans(self.catalog, self.memory, self._config, output_dir=self.output_dir)
        self.use = ModelUse(self.store.list_jobs())
        self.queue = QueueRunner(
            self.store,
            self.catalog,
            self.plans,
            self.supervisor,
            self.memory,
            self._config,
            instance=instance,
            use=self.use,
            logbook=self.logbook,
            ahead=ReadAhead(on_read=lambda text: self.logbook.write("read_ahead", text, memory=True)),
            publish=self.hub.publish,
            on_queue=self._engine_changed,
        )
        self.actions = Actions(
            self.supervisor,
            self.probe,
            self.memory,
            self.logbook,
            self.receipts,
            find=self.catalog.get,
            models=self.catalog.models,
            running=lambda: self.queue.running.id if self.queue.running else None,
            kept_file=paths.state / "warm.json",
        )
        victims, proofs = Victims(devices=self.memory.statuses, ours=self._pids), Proofs(self.probe)
        self._kill = Kill(
            victims,
            proofs,
            self.logbook,
            issue=self.receipts.issue,
            stepped=self.receipts.stepped,
        )
        self.checks = Checks(
            memory=self.memory,
            supervisor=self.supervisor,
            logbook=self.logbook,
            config=self._config,
            environ=environ,
            engine=self._engine_status,
            file=paths.state / "findings.json",
            publish=self.hub.publish,
        )
        self.own = OwnProcesses(self.supervisor, self.nursery, self.probe, self.receipts, pids=self._pids)
        self.reset = Reset(
            ResetProgram(self._config.reset_program, helper=HELPER, is_root=os.geteuid() == 0),
            self.own,
            self.audit,
            helper=HELPER,
            listed=self._listed_on,
            issue=self.receipts.issue,
            stepped=self.receipts.stepped,
            hold_queue=self.hold_queue,
        )
        self.full_cleanup = FullCleanup(
            self.own,
            self.memory,
            proofs,
            victims,
            self._kill,
            self.reset,
            self.store,
            self.logbook,
            self.audit,
            output_dir=self.output_dir,
            issue=self.receipts.issue,
            stepped=self.receipts.stepped,
            hold_queue=self.hold_queue,
        )
        prompts = KeptPrompts(EmbeddingStore(paths.embeddings, self._config.embedding_cache_bytes))
        self.planner = Planner(self.catalog, self.supervisor, self.memory, prompts, self._config)
        self.overview = Overview(
            self._config,
            memory=self.memory,
            supervisor=self.supervisor,
            queue=self.queue,
            store=self.store,
            actions=self.actions,
            embeddings=EmbeddingStore(paths.embeddings, self._config.embedding_cache_bytes),
            logbook=self.logbook,
            publish=self.hub.publish,
            models=self.models,
        )
        self.hub.listen(self.overview.heard)
        self.receipt_tally = ReceiptTally()
        self.hub.listen(self.receipt_tally.heard)
        self._notifier = Notifier(
            config.notify,
            cwd=str(paths.state),
            environ=environ,
            on_failure=lambda text: self.logbook.write("notify", f"nobody was told: {text}", level="warning"),
        )
        self._telling = Telling(
            self._notifier,
            self.logbook,
            devices=self.memory.statuses,
            is_idle=lambda: self.queue.running is None and not self.store.count_waiting(),
        )
        self.hub.listen(self._telling.heard)
        self._demo: asyncio.Task[None] | None = None
        self._scanning = asyncio.Lock()
        self._background: set[asyncio.Task[None]] = set()
        self._unasked: asyncio.Task[Receipt] | None = None

    # ----------------------------------------------------------------- its life

    async def serve(self, server: SocketServer) -> None:
        """Answer on `server` until asked to stop; leaves no process behind."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.request_stop)
        loop.add_signal_handler(signal.SIGHUP, lambda: None)  # a login ended; the engine does not
        serving = loop.create_task(server.run_until_stopped())
        hello = self.hello()
        self.recorder.start(
            EngineStarted(
                instance=hello.instance, build=hello.build, pid=hello.pid, host=hello.host, user=hello.user
            )
        )
        self.logbook.write(
            "engine", f"engine {self.build} starts, pid {os.getpid()}, home {self.paths.state}"
        )
        self._recover()
        self.probe.start()
        self.nursery.start()
        self._in_background(self._rescan(), "looking at the models")
        tasks = [loop.create_task(self.queue.run()), loop.create_task(self._look_around())]
        self._state = "ready"
        await self._stopping.wait()
        await self._end(tasks)
        server.should_exit = True
        await serving
        self.store.close()

    def request_stop(self, *, after_job: bool = False) -> None:
        """End the engine, at once or after the running job."""
        self.queue.drain()
        if self._state != "stopping":
            self._state = "stopping"
            running = self.queue.running
            wait = f" after job {running.id}" if after_job and running else ""
            self.logbook.write("engine", f"engine stops{wait}")
            self._engine_changed()
        if not after_job or self.queue.running is None:
            self._stopping.set()

    async def _end(self, tasks: list[asyncio.Task[None]]) -> None:
        await self.reset.settled()
        # The worker first: its death interrupts a running job, which the queue then writes down.
        await self.supervisor.stop("the engine was stopped")
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                while self.queue.running is not None:
                    await asyncio.sleep(0.005)
        for task in (*tasks, *self._background):
            task.cancel()
        if self._demo is not None:
            self._demo.cancel()
        self.hub.close("the engine was stopped")
        self.nursery.stop()
        await self.probe.stop()
        await in_thread(self._notifier.close, name="notify-close")
        await self.recorder.stop()

    def _recover(self) -> None:
        """Settle what an engine before this one left running."""
        found = self.store.recover(self._instance, is_alive)
        self._unsettled = bool(found.still_running)
        for job in (*found.done, *found.requeued, *found.interrupted, *found.cancelled):
            text = f"found running at start: now {job.status}" + (f", {job.error}" if job.error else "")
            self.logbook.write("job", text, level="warning", job_id=job.id)

    async def _look_around(self) -> None:
        """Once a second: what nobody announces."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                self._look()
            except Exception as error:  # a look that fails must not be the last one
                self.logbook.write("bug", f"looking around: {type(error).__name__}: {error}", level="error")

    def _look(self) -> None:
        if not self._lock.still_held() and self._state != "stopping":
            self.logbook.write(
                "engine", f"{self.paths.state} was removed; nothing can be kept", level="error"
            )
            self.request_stop()
            return
        self.tenants.look(reading.device_id for reading in self.memory.gpu_readings)
        if self.memory.device_id is None:
            self._choose_device()
        if not self._scanning.locked():
            self._in_background(self._rescan(), "looking at the models")
        if self._unsettled:
            self._recover()
        self.supervisor.look_after()
        self.recorder.look(self.status, self.snapshot)
        self._act_unasked()
        self.checks.look_around(watched=self.hub.watched)
        if self.catalog.scanned:  # the first look at the disk may take its time, and is not made here
            self.overview.look()
        self._telling.look()
        if self.store.count_waiting():
            self.queue.wake()
        if self._state == "stopping" and self.queue.running is None:
            self._stopping.set()

    async def _rescan(self) -> None:
        """Look at the models on disk, one look at a time.

        In a thread: a disk that wakes up or a network that hangs would hold the loop, which then
        hears nobody.
        """
        async with self._scanning:
            if self.catalog.apply(await in_thread(self.catalog.scan, name="catalog")):
                self._models_changed()

    def _in_background(self, work: Coroutine[Any, Any, None], what: str) -> None:
        def ended(task: asyncio.Task[None]) -> None:
            self._background.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                self.logbook.write("bug", f"{what}: {type(error).__name__}: {error}", level="error")

        task = asyncio.create_task(work)
        self._background.add(task)  # the loop itself keeps no strong reference
        task.add_done_callback(ended)

    def _act_unasked(self) -> None:
        """Give the device back to others where the settings say so: after long rest, or when it is full."""
        supervisor = self.supervisor
        if self._unasked is not None and not self._unasked.done():
            return
        if supervisor.worker is None or supervisor.device_lock.locked() or self.queue.running is not None:
            return
        rest = self._config.idle_unload_s
        if rest and time.monotonic() - supervisor.used_at > rest:
            self.logbook.write("park", f"nothing was asked for {rest:g} s: everything leaves the device")
            self._unasked = asyncio.create_task(self.actions.park())
        elif self.memory.others_press() and supervisor.residents.resident_bytes():
            self.logbook.write("free", "others need what engine.keep_free_bytes keeps for them", memory=True)
            self._unasked = asyncio.create_task(self.actions.free())
        if self._unasked is not None:
            self._unasked.add_done_callback(lambda done: done.cancelled() or done.exception())

    def _choose_device(self) -> None:
        """Choose the device as soon as the probe has looked; again while there is a problem."""
        device = self.device
        if not device.choose(
            self.memory.gpu_readings, nvml_fault=self.memory.nvml_fault, heard_host=self.memory.heard_host
        ):
            return
        if device.problem is not None:
            self.logbook.write("device", device.problem, level="error")
        if device.id is not None:
            self.memory.device_id = device.id
            self.logbook.write("device", f"works on {device.id}")
            self.queue.wake()
        self.first_reading.look()
        self._engine_changed()

    # ----------------------------------------------------------------- what is asked

    def hello(self) -> Hello:
        return Hello(
            wire=WIRE_VERSION,
            build=self.build,
            schema=self.store.schema,
            pid=os.getpid(),
            start_time=read_start_time(os.getpid()) or 0.0,
            instance=self._instance,
            host=socket.gethostname(),
            user=user_name(),
        )

    def status(self) -> Status:
        return Status(
            engine=self._engine_status(),
            workers=self.supervisor.statuses(),
            devices=self.memory.statuses(),
            models=self.models(),
            host=self.memory.host_status(registered_bytes=self.supervisor.warm.registered_bytes),
            background=self.overview.background(),
            pressure=self.overview.pressure,
        )

    def snapshot(self) -> Snapshot:
        return Snapshot(
            status=self.status(),
            jobs=tuple(self.queue.view(job) for job in self.store.list_jobs()),
            log=self.logbook.tail(SNAPSHOT_LOG_LINES),
            receipt=self.receipts.newest,
        )

    def models(self) -> tuple[ModelStatus, ...]:
        return tuple(
            self.catalog.status(
                model,
                self.supervisor.residents.of_model(model.name),
                rate=self.supervisor.residents.rate,
                warm=self.supervisor.warm.of_model(model.name),
                active=self._is_active(model.name),
                last_used_at=self.use.last_used_at(model.name),
            )
            for model in self.catalog.models()
        )

    def _is_active(self, name: str) -> bool:
        """Whether it was asked for last, and is there or on its way: a worker may have taken it along."""
        if name != self.use.active:
            return False
        running = self.queue.running
        runs = running is not None and running.spec.model == name
        return runs or bool(self.supervisor.residents.of_model(name))

    async def history(self, device_id: str, seconds: float, columns: int) -> MemoryHistory:
        """The past of a device that was read at least once."""
        if device_id not in self.memory.recorder.device_ids:
            known = ", ".join(self.memory.recorder.device_ids) or "none yet"
            raise NotFound(f"no device {device_id!r} has been read; known: {known}")
        return await past_of(self.memory.recorder, self.recorder, device_id, seconds, columns)

    def jobs(self, *, all: bool) -> list[Job]:
        return [self.queue.view(job) for job in self.store.list_jobs(None if all else 50)]

    def job(self, job_id: int) -> Job:
        return self.queue.view(self.store.get(job_id))

    def submit(self, spec: JobSpec) -> Job:
        """Queue a request that could be met; every mistake that can be known now is refused now."""
        self._refuse_when_stopping()
        plan = self.plans.admit(spec)
        if (budget := self.memory.budget()) is not None:
            plan.refuse_if_too_large(budget)
        job = self.store.submit(plan.admitted.spec, plan.footprint.peak_bytes)
        size = f"{plan.admitted.width}x{plan.admitted.height}"
        self.logbook.write("job", f"queued: {spec.model}, {size}", job_id=job.id)
        return self._announce(job)

    def forecast(self, spec: JobSpec) -> JobForecast:
        return self.plans.forecast(spec)

    def cancel(self, job_id: int) -> Job:
        job = self.store.cancel(job_id)
        self.queue.cancel_running(job_id)
        return self._announce(job)

    def retry(self, job_id: int) -> Job:
        self._refuse_when_stopping()
        return self._announce(self.store.retry(job_id))

    def duplicate(self, job_id: int) -> Job:
        self._refuse_when_stopping()
        return self._announce(self.store.duplicate(job_id))

    def hold(self, job_id: int, *, held: bool) -> Job:
        return self._announce(self.store.hold(job_id) if held else self.store.release(job_id))

    def move(self, job_id: int, move: JobMove) -> Job:
        job = self._announce(self.store.move(job_id, move))
        self.hub.publish(JobsReordered(job_ids=tuple(waiting.id for waiting in self.store.list_waiting())))
        return job

    def resume_queue(self) -> QueueStatus:
        self.store.resume()
        self.logbook.write("queue", "resumed")
        self.queue.wake()
        self._engine_changed()
        return self.queue.status()

    def hold_queue(self, reason: str) -> None:
        """Start no job until a person resumes the queue."""
        self.store.hold_queue(reason)
        self.logbook.write("queue", f"held: {reason}", level="warning")
        self._engine_changed()

    async def switch(self, name: str) -> Receipt:
        model = self.catalog.get(name)
        if model.problem is not None:
            raise NotNow(f"{name} cannot be loaded: {model.problem}")
        receipt = await self.actions.switches.switch(
            model, reserve=self.planner.reserve_bytes, device_read=self.first_reading
        )
        self._switched(name, receipt)
        return receipt

    def _switched(self, name: str, receipt: Receipt) -> None:
        if receipt.ok:
            self.use.asked(name)
            self._models_changed()

    def _ended_late(self, action: ReceiptAction, target: str, receipt: Receipt) -> None:
        """A worker that was given up as silent did what it had been asked for."""
        if action == "switch":
            self._switched(target, receipt)

    def cancel_switch(self, request: CancelRequest) -> CancelAsked:
        if request.model is not None:
            self.catalog.get(request.model)
        return CancelAsked(targets=self.actions.switches.cancel(request.model))

    async def unload(self, request: UnloadRequest) -> Receipt:
        if request.model is not None:
            names = list(self.supervisor.residents.of_model(request.model))
            try:
                found = self.catalog.get(request.model).components
                names = [*dict.fromkeys([*(component.name for component in found), *names])]
            except NotFound:
                if not names:  # one whose folder is gone may still be loaded
                    raise
            if request.component is not None and request.component not in names:
                raise NotFound(
                    f"{request.model} has no component {request.component!r}; it has {', '.join(names)}"
                )
        else:
            _refuse_without_model(request.component)
        return await self.actions.unload(request.model, request.component)

    async def free(self) -> Receipt:
        return await self.actions.free()

    async def park(self, *, asker: Asker | None = None) -> Receipt:
        with self.audit.deed("park", f"worker {self.supervisor.pid}", asker) as deed:
            return deed.ended(await self.actions.park())

    async def cleanup(self, request: CleanupRequest, *, asker: Asker | None = None) -> Receipt:
        with self.audit.deed("cleanup", f"worker {self.supervisor.pid}", asker) as deed:
            return deed.ended(await self.actions.cleanup(reload=request.reload))

    async def kill(self, request: KillRequest, *, asker: Asker | None) -> Receipt:
        target = f"process {request.pid}, started at {request.start_time}"
        with self.audit.deed("kill", target, asker) as deed:
            return deed.ended(await self._kill.run(request, asked_by=str(asker or "?")))

    async def warm(self, request: WarmRequest) -> Receipt:
        if request.model is None:
            raise InvalidRequest("name the model whose files should stay in host memory")
        model = self.catalog.get(request.model)
        if model.problem is not None:
            raise NotNow(f"{model.name} cannot be kept warm: {model.problem}")
        await self.first_reading.wait()
        return await self.actions.warm(model, request.component)

    async def drop_warm(self, request: WarmRequest) -> Receipt:
        if request.model is None:
            _refuse_without_model(request.component)
        models = None if request.model is None else [self.catalog.get(request.model)]
        return await self.actions.drop_warm(models, request.component)

    async def explain(self, spec: JobSpec) -> Explanation:
        """What a job would do with the weights if it ran now."""
        await self.first_reading.wait()
        return await self.planner.explain_job(self.plans.admit(spec))

    async def explain_switch(self, name: str) -> Explanation:
        """What a switch to the model would do if it were asked for now."""
        model = self.catalog.get(name)
        await self.first_reading.wait()
        return self.planner.explain_switch(model)

    async def cache(self) -> CacheStatus:
        # In a thread: the home of many is on a network, where looking at a thousand files takes seconds.
        usage = await asyncio.to_thread(self.embeddings.usage)
        return CacheStatus(
            folder=str(self.embeddings.folder),
            entries=usage.entries,
            bytes=usage.bytes,
            max_bytes=self.embeddings.max_bytes,
        )

    async def clear_cache(self) -> CacheCleared:
        """Forget the embeddings of earlier prompts; a running job keeps the one it has."""
        removed = await asyncio.to_thread(self.embeddings.clear)
        folder = str(self.embeddings.folder)
        self.logbook.write(
            "cache",
            f"cleared: {removed.entries} prompt embeddings, {size_text(removed.bytes)}, from {folder}",
        )
        return CacheCleared(folder=folder, entries=removed.entries, bytes=removed.bytes)

    async def make_demo_models(self) -> tuple[ModelStatus, ...]:
        """Make the demo models unless they are there; concurrent callers share one making."""
        if not self.catalog.has_demo_models():
            if self._demo is None:
                self._demo = asyncio.create_task(
                    make_demo_models(self.nursery, self.paths.models, self.logbook)
                )
            try:
                await asyncio.shield(self._demo)
            except asyncio.CancelledError:
                if self._demo.cancelled():
                    raise NotNow("the engine stops before the demo models are made") from None
                raise
            finally:
                if self._demo is not None and self._demo.done():
                    self._demo = None
            await self._rescan()
        return tuple(model for model in self.models() if model.demo)

    # ----------------------------------------------------------------- what happens

    def _announce(self, job: Job) -> Job:
        job = self.queue.view(job)
        self.hub.publish(JobChanged(job=job))
        self.queue.wake()
        self._engine_changed()
        return job

    def _read(self, message: FromProbe) -> None:
        first = not self.memory.heard_host and not self.memory.gpu_readings
        self.memory.heard(message)
        if first or self.memory.device_id is None:
            self._choose_device()
        self.first_reading.look()

    def _sampled(self, status: DeviceStatus) -> None:
        self.checks.sampled(status)
        self.recorder.sampled(status)
        if self.hub.watched:
            self.hub.publish(MemorySampled(device=status))

    def _logged(self, line: LogLine) -> None:
        self.hub.publish(Logged(line=line))

    def _engine_changed(self) -> None:
        self._publish_if_watched(
            lambda: EngineChanged(engine=self._engine_status(), workers=self.supervisor.statuses())
        )

    def _processes_changed(self) -> None:
        self.probe.watch(self._pids())
        self._engine_changed()

    def _models_changed(self) -> None:
        self._publish_if_watched(lambda: ModelsChanged(models=self.models()))

    def _publish(self, event: Event) -> None:
        self.checks.heard(event)
        self.hub.publish(event)

    def _publish_if_watched(self, compose: Callable[[], Event]) -> None:
        if self.hub.watched:
            self.hub.publish(compose())

    def socket_rebound(self) -> None:
        self.logbook.write(
            "engine", f"the socket was deleted and is bound again: {self.paths.socket}", level="warning"
        )

    def _refuse_when_stopping(self) -> None:
        if self._state == "stopping":
            raise NotNow("the engine is stopping; submit again once it has been started")

    def _pids(self) -> dict[str, int]:
        pids = {"daemon": os.getpid(), "probe": self.probe.pid, "nursery": self.nursery.pid}
        pids["worker"] = self.supervisor.pid
        return {role: pid for role, pid in pids.items() if pid is not None}

    def _listed_on(self, device_id: str) -> tuple[DeviceProcess, ...]:
        found = (device.processes for device in self.memory.statuses() if device.id == device_id)
        return next(found, ())

    def _label(self, pid: int) -> str | None:
        return next((role for role, ours in self._pids().items() if ours == pid), None)

    def _engine_status(self) -> EngineStatus:
        age = self.probe.age_s
        return EngineStatus(
            state=self._state,  # type: ignore[arg-type]  # one of the three words set above
            pid=os.getpid(),
            instance=self._instance,
            build=self.build,
            started_at=self._started_at,
            uptime_s=round(time.monotonic() - self._started, 3),
            home=str(self.paths.state),
            socket=str(self.paths.socket),
            output_dir=str(self.output_dir),
            log_path=str(self.logbook.path),
            nursery=self.nursery.status(),
            queue=self.queue.status(),
            probe_age_s=None if age is None else round(age, 3),
            problem=self.device.problem
            or self.queue.problem
            or self.logbook.file_problem
            or self.recorder.problem,
        )


def _refuse_without_model(component: str | None) -> None:
    if component is not None:
        raise NotFound(f"a component needs its model: name both, as in MODEL/{component}")
