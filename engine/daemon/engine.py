"""The engine: its parts put together, started, and ended. Event loop's thread only.

What requests ask is answered by the parts; see `engine.daemon.routes`.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from functools import partial
from pathlib import Path

from engine.config import Config, EngineConfig
from engine.daemon.actions import Actions
from engine.daemon.audit import AuditLog
from engine.daemon.checks import Checks
from engine.daemon.demo import DemoModels
from engine.daemon.device_watch import DeviceWatch
from engine.daemon.devices import DeviceInUse
from engine.daemon.events import EventHub
from engine.daemon.finding import ModelFinder
from engine.daemon.full_cleanup import FullCleanup
from engine.daemon.job_batches import JobBatches
from engine.daemon.job_plans import JobPlans
from engine.daemon.job_requests import JobRequests
from engine.daemon.job_times import JobTimes
from engine.daemon.kill import Kill
from engine.daemon.leaks import Leaks
from engine.daemon.ledger import LedgerBook
from engine.daemon.left_jobs import LeftJobs
from engine.daemon.life import Life
from engine.daemon.lock import EngineLock
from engine.daemon.logbook import LogBook
from engine.daemon.lookout import Lookout
from engine.daemon.memory import MemoryView
from engine.daemon.memory_requests import MemoryRequests
from engine.daemon.metrics import ReceiptTally
from engine.daemon.model_list import ModelList
from engine.daemon.model_use import ModelUse
from engine.daemon.notify import Notifier
from engine.daemon.nursery import Nursery
from engine.daemon.oom_reports import OomReports
from engine.daemon.orphans import Orphans
from engine.daemon.overview import Overview
from engine.daemon.own_processes import OwnProcesses
from engine.daemon.planner import Planner
from engine.daemon.previews import Previews
from engine.daemon.probe import Probe
from engine.daemon.prompt_cache import PromptCache
from engine.daemon.prompts import KeptPrompts
from engine.daemon.proofs import Proofs
from engine.daemon.quantising import Quantising
from engine.daemon.queue import QueueRunner
from engine.daemon.rates import Rates
from engine.daemon.read_ahead import ReadAhead
from engine.daemon.readiness import FirstReading
from engine.daemon.receipt_book import ReceiptBook
from engine.daemon.recording import FlightRecorder
from engine.daemon.remedies import Remedies
from engine.daemon.reset import Reset
from engine.daemon.reset_helper import HELPER
from engine.daemon.reset_program import ResetProgram
from engine.daemon.server import SocketServer
from engine.daemon.status_board import StatusBoard
from engine.daemon.supervisor import Supervisor
from engine.daemon.telling import Telling
from engine.daemon.tenants import Tenants
from engine.daemon.threads import in_thread
from engine.daemon.unasked import Unasked
from engine.daemon.victims import Victims
from engine.daemon.worker_starter import WorkerStarter
from engine.embeddings import EmbeddingStore
from engine.jobs.store import JobStore
from engine.models.catalog import Catalog
from engine.models.layout import vae_precision_on
from engine.paths import Paths
from engine.recording.entries import EngineStarted
from engine.telemetry.samples import FromProbe
from engine.wire import DeviceStatus, Logged, MemorySampled

LAST_LINES_S = 1.0
"""How long the end waits for the log's file."""


class Engine:
    """One per state directory, for as long as its lock is held."""

    def __init__(
        self, paths: Paths, config: Config, *, lock: EngineLock, environ: dict[str, str], instance: str
    ) -> None:
        """`environ` is the environment that the engine was started with, for its children."""
        self.paths = paths
        settings = config.engine
        output_dir = Path(os.path.expanduser(settings.output_dir or paths.output)).absolute()

        # What is told and kept.
        self.hub = EventHub()
        self.logbook = LogBook(
            paths.logs, max_bytes=settings.log_bytes, on_line=lambda line: self.hub.publish(Logged(line=line))
        )
        self.audit = AuditLog(paths.audit, on_problem=partial(self.logbook.write, "audit", level="warning"))
        self.store = JobStore(paths.jobs, max_waiting=settings.max_queue)
        self.recorder = FlightRecorder(
            paths.recordings,
            settings.recording_bytes,
            on_log=lambda text, level: self.logbook.write("recording", text, level=level),
        )
        self.hub.listen(self.recorder.heard)
        self.receipts = ReceiptBook(self.logbook, self.hub.publish)
        self.receipt_tally = ReceiptTally()
        self.hub.listen(self.receipt_tally.heard)

        # The devices, and our processes.
        self.tenants = Tenants()
        self.memory = MemoryView(
            settings, on_status=self._sampled, label=lambda pid: self.own.role_of(pid), tenants=self.tenants
        )
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
        self.supervisor = Supervisor(
            starter=WorkerStarter(
                settings,
                embeddings=paths.embeddings,
                nursery=self.nursery,
                rates=Rates(paths.state / "rates.json"),
                log_path=paths.logs / "worker.log",
            ),
            nursery=self.nursery,
            memory=self.memory,
            logbook=self.logbook,
            receipts=self.receipts,
            on_change=self._processes_changed,
            on_models=lambda: self.models.changed(),
            on_progress=lambda job_id, progress: self.queue.progressed(job_id, progress),
            previews=Previews(publish=self.hub.publish),
        )
        self.memory.ask_counters = self.supervisor.count
        self.memory.ask_reading = self.probe.read_soon
        self.ledger = LedgerBook(paths.ledger, self.logbook, worker=lambda: self.supervisor.worker)
        self.supervisor.on_line = self.ledger.heard
        self.hub.listen(self.ledger.told)
        self.own = OwnProcesses(self.supervisor, self.nursery, self.probe, self.receipts)

        # Models and jobs.
        self.catalog = Catalog(paths.models, settings.vae_precision)
        use = ModelUse(self.store.list_jobs())
        times = JobTimes(self.store.list_jobs(500))
        self.hub.listen(times.hear)
        self.oom_reports = OomReports(paths.state / "oom", self.memory, self.logbook)
        self.plans = JobPlans(self.catalog, self.memory, settings, output_dir=output_dir, times=times)
        self.queue = QueueRunner(
            self.store,
            self.catalog,
            self.plans,
            self.supervisor,
            self.memory,
            settings,
            instance=instance,
            use=use,
            logbook=self.logbook,
            ahead=ReadAhead(on_read=lambda text: self.logbook.write("read_ahead", text, memory=True)),
            publish=self.hub.publish,
            on_queue=self._changed,
            on_oom=self.oom_reports.take,
        )
        self.left_jobs = LeftJobs(self.store, self.logbook, instance=instance)
        self.models = ModelList(
            self.catalog,
            self.supervisor,
            self.queue,
            use,
            DemoModels(self.nursery, paths.models, self.logbook),
            self.hub,
            self.logbook,
        )
        self.finder = ModelFinder(paths.models, paths.state, environ, self.logbook, self.models.rescan)
        self.quantising = Quantising(
            paths.models, self.logbook, on_progress=self.models.changed, on_end=self.models.rescan
        )
        self.models.quantising_of = self.quantising.progress_of
        self.life = Life(
            instance,
            lock,
            self.queue,
            self.logbook,
            home=paths.state,
            schema=self.store.schema,
            on_change=self._changed,
        )
        self.job_requests = JobRequests(
            self.store,
            self.queue,
            self.plans,
            self.memory,
            self.life,
            self.hub,
            self.logbook,
            on_queue=self._changed,
        )
        self.job_batches = JobBatches(self.job_requests, self.plans, self.memory, self.store)
        device = DeviceInUse(settings.device, environ.get("CUDA_VISIBLE_DEVICES"))
        first_reading = FirstReading(self.memory, device)
        self.device_watch = DeviceWatch(
            device,
            self.memory,
            first_reading,
            self.logbook,
            on_chosen=self._device_chosen,
            on_change=self._changed,
        )

        # What is done with memory.
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
        victims, proofs = Victims(devices=self.memory.statuses, ours=self.own.pids), Proofs(self.probe)
        kill = Kill(victims, proofs, self.logbook, self.receipts)
        self.reset = Reset(
            ResetProgram(settings.reset_program, helper=HELPER, is_root=os.geteuid() == 0),
            self.own,
            self.receipts,
            self.audit,
            helper=HELPER,
            marks=paths.state / "reset-running.json",
            log=partial(self.logbook.write, "reset", level="warning"),
            listed=self.memory.processes_on,
            hold_queue=self.job_requests.hold_queue,
        )
        self.full_cleanup = FullCleanup(
            self.own,
            self.memory,
            proofs,
            victims,
            kill,
            self.reset,
            self.store,
            self.receipts,
            self.logbook,
            self.audit,
            output_dir=output_dir,
            hold_queue=self.job_requests.hold_queue,
        )
        self.memory_requests = MemoryRequests(
            self.catalog,
            self.supervisor,
            self.actions,
            kill,
            Planner(
                self.catalog,
                self.supervisor,
                self.memory,
                KeptPrompts(_embeddings(paths, settings)),
                settings,
            ),
            self.plans,
            first_reading,
            use,
            self.models,
            self.audit,
            victims,
        )
        self.supervisor.on_late = self.memory_requests.ended_late
        self.prompt_cache = PromptCache(_embeddings(paths, settings), self.logbook)

        # What is seen of it all.
        self.overview = Overview(
            settings,
            memory=self.memory,
            supervisor=self.supervisor,
            queue=self.queue,
            store=self.store,
            actions=self.actions,
            embeddings=_embeddings(paths, settings),
            logbook=self.logbook,
            publish=self.hub.publish,
            models=self.models.statuses,
        )
        self.hub.listen(self.overview.heard)
        self.board = StatusBoard(
            self.life,
            paths,
            output_dir=output_dir,
            max_prompt_chars=settings.max_prompt_chars,
            device=device,
            memory=self.memory,
            probe=self.probe,
            nursery=self.nursery,
            supervisor=self.supervisor,
            queue=self.queue,
            store=self.store,
            models=self.models,
            overview=self.overview,
            receipts=self.receipts,
            recorder=self.recorder,
            logbook=self.logbook,
            hub=self.hub,
        )
        self.checks = Checks(
            memory=self.memory,
            supervisor=self.supervisor,
            logbook=self.logbook,
            config=settings,
            environ=environ,
            engine=self.board.engine,
            growing=lambda: self.ledger.growing,
            file=paths.state / "findings.json",
            publish=self.hub.publish,
        )
        self.hub.listen(self.checks.heard)
        self.leaks = Leaks(
            self.supervisor, self.memory, self.checks, self.store, use, self.ledger, output_dir=output_dir
        )
        self.remedies = Remedies(
            self.actions,
            self.memory_requests,
            self.supervisor,
            self.memory,
            proofs,
            Orphans(self.checks, proofs, self.receipts),
            self.audit,
        )
        self.ledger.on_grown = self.checks.look_soon
        self.notifier = Notifier(
            config.notify,
            cwd=str(paths.state),
            environ=environ,
            on_failure=lambda text: self.logbook.write("notify", f"nobody was told: {text}", level="warning"),
        )
        telling = Telling(
            self.notifier,
            self.logbook,
            devices=self.memory.statuses,
            is_idle=lambda: self.queue.running is None and not self.store.count_waiting(),
        )
        self.hub.listen(telling.heard)
        unasked = Unasked(settings, self.actions, self.supervisor, self.queue, self.memory, self.logbook)
        self.lookout = Lookout(
            (
                self.life.look,
                lambda: self.tenants.look(reading.device_id for reading in self.memory.gpu_readings),
                self.device_watch.look,
                self.models.look,
                self.left_jobs.look,
                self.supervisor.look_after,
                lambda: self.recorder.look(self.board.status, self.board.snapshot),
                unasked.look,
                lambda: self.checks.look_around(watched=self.hub.watched),
                self._look_over,
                telling.look,
                self.queue.look,
            ),
            self.logbook,
        )

    # ----------------------------------------------------------------- its life

    async def serve(self, server: SocketServer) -> None:
        """Answer on `server` until asked to stop; leaves no process behind."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.life.request_stop)
        loop.add_signal_handler(signal.SIGHUP, lambda: None)  # a login ended; the engine does not
        serving = loop.create_task(server.run_until_stopped())
        hello = self.life.hello()
        self.recorder.start(
            EngineStarted(
                instance=hello.instance, build=hello.build, pid=hello.pid, host=hello.host, user=hello.user
            )
        )
        self.logbook.write("engine", f"engine {hello.build} starts, pid {hello.pid}, home {self.paths.state}")
        self.left_jobs.settle()
        self.reset.start_ours()
        self.models.look()
        tasks = [loop.create_task(self.queue.run()), loop.create_task(self.lookout.run())]
        self.life.ready()
        await self.life.wait_ended()
        await self._end(tasks)
        server.should_exit = True
        await serving
        await self.audit.kept()
        await self.ledger.close()
        self.store.close()
        await in_thread(partial(self.logbook.close, LAST_LINES_S), name="log-close")

    async def _end(self, tasks: list[asyncio.Task[None]]) -> None:
        await self.reset.close()
        # The worker first: its death interrupts a running job, which the queue then writes down.
        await self.supervisor.stop("the engine was stopped")
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                while self.queue.running is not None:
                    await asyncio.sleep(0.005)
        for task in tasks:
            task.cancel()
        self.models.close()
        await self.finder.close()
        self.quantising.close()
        self.hub.close("the engine was stopped")
        self.nursery.stop()
        await self.probe.stop()
        await in_thread(self.notifier.close, name="notify-close")
        await self.recorder.stop()

    # ----------------------------------------------------------------- what one part tells the others

    def _sampled(self, status: DeviceStatus) -> None:
        self.checks.sampled(status)
        self.recorder.sampled(status)
        self.hub.publish_if_watched(lambda: MemorySampled(device=status))

    def _read(self, message: FromProbe) -> None:
        self.ledger.read(message)
        self.device_watch.heard(message)

    def _changed(self) -> None:
        self.board.changed()

    def _device_chosen(self) -> None:
        device_id = self.memory.device_id
        if device_id is not None:
            self.catalog.vae_precision = vae_precision_on(device_id, self.catalog.vae_precision)
        self.queue.wake()

    def _processes_changed(self) -> None:
        self.probe.watch(self.own.pids())
        self.board.changed()

    def _look_over(self) -> None:
        if self.catalog.scanned:  # the first look at the disk may take its time, and is not made here
            self.overview.look()

    def socket_rebound(self) -> None:
        self.logbook.write(
            "engine", f"the socket was deleted and is bound again: {self.paths.socket}", level="warning"
        )


def _embeddings(paths: Paths, settings: EngineConfig) -> EmbeddingStore:
    """One for each that uses it: a store belongs to one thread at a time."""
    return EmbeddingStore(paths.embeddings, settings.embedding_cache_bytes)
