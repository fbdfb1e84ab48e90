"""The engine as viewers see it: composed of its parts when somebody asks, and told when it changes."""

from __future__ import annotations

import os
from pathlib import Path

from engine.daemon.devices import DeviceInUse
from engine.daemon.events import EventHub
from engine.daemon.life import Life
from engine.daemon.logbook import LogBook
from engine.daemon.memory import MemoryView
from engine.daemon.model_list import ModelList
from engine.daemon.nursery import Nursery
from engine.daemon.overview import Overview
from engine.daemon.probe import Probe
from engine.daemon.queue import QueueRunner
from engine.daemon.receipt_book import ReceiptBook
from engine.daemon.recording import FlightRecorder
from engine.daemon.supervisor import Supervisor
from engine.jobs.store import JobStore
from engine.paths import Paths
from engine.wire import EngineChanged, EngineStatus, Snapshot, Status

SNAPSHOT_LOG_LINES = 500


class StatusBoard:
    """Holds nothing of its own. Event loop's thread only."""

    def __init__(
        self,
        life: Life,
        paths: Paths,
        *,
        output_dir: Path,
        max_prompt_chars: int,
        device: DeviceInUse,
        memory: MemoryView,
        probe: Probe,
        nursery: Nursery,
        supervisor: Supervisor,
        queue: QueueRunner,
        store: JobStore,
        models: ModelList,
        overview: Overview,
        receipts: ReceiptBook,
        recorder: FlightRecorder,
        logbook: LogBook,
        hub: EventHub,
    ) -> None:
        self._life = life
        self._paths = paths
        self._output_dir = output_dir
        self._max_prompt_chars = max_prompt_chars
        self._device = device
        self._memory = memory
        self._probe = probe
        self._nursery = nursery
        self._supervisor = supervisor
        self._queue = queue
        self._store = store
        self._models = models
        self._overview = overview
        self._receipts = receipts
        self._recorder = recorder
        self._logbook = logbook
        self._hub = hub

    def engine(self) -> EngineStatus:
        age_s = self._probe.age_s
        return EngineStatus(
            state=self._life.state,
            pid=os.getpid(),
            instance=self._life.instance,
            build=self._life.build,
            started_at=self._life.started_at,
            uptime_s=round(self._life.uptime_s, 3),
            home=str(self._paths.state),
            socket=str(self._paths.socket),
            output_dir=str(self._output_dir),
            log_path=str(self._logbook.path),
            nursery=self._nursery.status(),
            queue=self._queue.status(),
            probe_age_s=None if age_s is None else round(age_s, 3),
            problem=self._device.problem
            or self._queue.problem
            or self._logbook.file_problem
            or self._recorder.problem,
            max_prompt_chars=self._max_prompt_chars,
        )

    def status(self) -> Status:
        return Status(
            engine=self.engine(),
            workers=self._supervisor.statuses(),
            devices=self._memory.statuses(),
            models=self._models.statuses(),
            host=self._memory.host_status(registered_bytes=self._supervisor.warm.registered_bytes),
            background=self._overview.background(),
            pressure=self._overview.pressure,
        )

    def snapshot(self) -> Snapshot:
        """What a viewer begins with."""
        return Snapshot(
            status=self.status(),
            jobs=tuple(self._queue.view(job) for job in self._store.list_jobs()),
            log=self._logbook.tail(SNAPSHOT_LOG_LINES),
            receipt=self._receipts.newest,
        )

    def changed(self) -> None:
        """Tell the viewers how engine and worker stand."""
        self._hub.publish_if_watched(
            lambda: EngineChanged(engine=self.engine(), workers=self._supervisor.statuses())
        )
