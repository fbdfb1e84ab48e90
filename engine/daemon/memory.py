"""What is known of each device's memory now: the probe's readings joined with the worker's counters.

For a GPU a balance is composed of a reading that lies between two sets of the worker's counters
(`engine.daemon.pairing`), so that moving memory can be told. Event loop's thread only.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from engine.config import EngineConfig
from engine.daemon.budget import Budget, Room, room_on_cpu, room_on_gpu
from engine.daemon.cards import Cards
from engine.daemon.pairing import Pairing
from engine.daemon.tenants import Tenants
from engine.jobs.liveness import read_start_time
from engine.paths import user_name
from engine.planning.footprint import DeviceKind
from engine.telemetry.balance import cpu_balance, gpu_balance, why_moving
from engine.telemetry.programs import program_of
from engine.telemetry.recorder import Recorder
from engine.telemetry.samples import DeviceNews, DeviceReading, FromProbe, HostReading, ProbeFault
from engine.wire import Balance, DeviceProcess, DeviceStatus, HostStatus
from engine.worker.channel import AllocatorSample, WorkerReady

CONTEXT_GUESS_BYTES = 800 * 2**20
"""A worker's context and libraries before one was measured; 756 MiB on an H200 with torch 2.11."""


UNUSABLE = frozenset({"nvml_missing", "nvml_driver", "nvml_error", "nvml_hang", "gpu_lost", "no_permission"})
"""Faults of the probe that mean that no GPU can be read; the others concern single values."""


@dataclass(kw_only=True, slots=True)
class _Worker:
    pid: int
    device_id: str
    pairing: Pairing
    ready: WorkerReady | None = None

    @property
    def latest(self) -> AllocatorSample | None:
        return self.pairing.latest


class MemoryView:
    """Keeps the newest readings and hands each new `DeviceStatus` to `on_status`."""

    def __init__(
        self,
        config: EngineConfig,
        *,
        on_status: Callable[[DeviceStatus], None],
        label: Callable[[int], str | None],
        tenants: Tenants | None = None,
    ) -> None:
        """`label` names a pid of ours (`daemon`, `nursery`, ...) or gives None."""
        self._tenants = tenants or Tenants()
        self._config = config
        self._on_status = on_status
        self._label = label
        self._readings: dict[str, DeviceReading] = {}
        self._host: HostReading | None = None
        self._statuses: dict[str, DeviceStatus] = {}
        self._worker: _Worker | None = None
        self.ask_counters: Callable[[], None] = lambda: None
        """Asks the worker for its counters now."""
        self.ask_reading: Callable[[float], None] = lambda after_s: None
        """Asks the probe for one more reading, after so many seconds."""
        self.device_id: str | None = None
        self.nvml_fault: str | None = None
        self.recorder = Recorder()
        self.cards = Cards()
        self._context_due = False
        self._context_bytes: int | None = None
        self._user = user_name()
        self._began: dict[int, float] = {}

    # ----------------------------------------------------------------- what arrives

    def heard(self, message: FromProbe) -> None:
        if isinstance(message, DeviceReading):
            self._readings[message.device_id] = message
            self.cards.heard(message)
            worker = self._worker
            if worker is None or worker.device_id != message.device_id:
                self._compose_gpu(message, None, None)
            else:
                worker.pairing.read(message)
        elif isinstance(message, HostReading):
            self._host = message
            if self.device_id == "cpu":
                self._compose_cpu(message)
        elif isinstance(message, DeviceNews):
            self.cards.heard_news(message)
        elif isinstance(message, ProbeFault):
            if message.kind in UNUSABLE:
                self.nvml_fault = message.detail
            if self.cards.heard_fault(message) and message.device_id in self._statuses:
                self._publish(self.cards.aged(self._statuses[message.device_id]), record=False)

    def heard_worker(self, sample: AllocatorSample) -> None:
        if self._worker is not None:
            self._worker.pairing.counted(sample)

    def worker_started(self, pid: int, device_id: str) -> None:
        pairing = Pairing(
            told=self._compose_gpu,
            ask_counters=lambda: self.ask_counters(),
            ask_reading=lambda after_s: self.ask_reading(after_s),
        )
        self._worker = _Worker(pid=pid, device_id=device_id, pairing=pairing)
        self._context_due = False

    def worker_ready(self, ready: WorkerReady) -> None:
        if self._worker is not None:
            self._worker.ready = ready

    def worker_gone(self) -> None:
        self._began.clear()
        self._worker = None

    def measure_context(self) -> None:
        """Take what the worker's process holds beyond its allocator as context and libraries.

        Asked for when a worker is ready, and when its first job has loaded its libraries; done with
        the next reading that no allocation crossed.
        """
        self._context_due = True

    # ----------------------------------------------------------------- what is asked

    @property
    def device_kind(self) -> DeviceKind:
        """Of the device in use; a GPU where none was chosen yet."""
        return "cpu" if self.device_id == "cpu" else "cuda"

    @property
    def gpu_readings(self) -> list[DeviceReading]:
        return list(self._readings.values())

    @property
    def heard_host(self) -> bool:
        return self._host is not None

    def used_at(self, peak_bytes: int) -> int | None:
        """What would be in use on the device if all of ours went and then a job took `peak_bytes`.

        A worker's context counts as in use; None before the first reading.
        """
        room = self._room()
        return None if room is None else room.used_at(peak_bytes)

    def statuses(self) -> tuple[DeviceStatus, ...]:
        """Every device, each with the age of its reading."""
        host_at = self._host.taken_at if self._host is not None else None
        return tuple(self.cards.aged(status, host_at=host_at) for status in self._statuses.values())

    def processes_on(self, device_id: str) -> tuple[DeviceProcess, ...]:
        """Those on the driver's lists of one device."""
        status = self._statuses.get(device_id)
        return () if status is None else status.processes

    def host_status(self, *, registered_bytes: int | None) -> HostStatus | None:
        """The host's memory and ours in it; `registered_bytes` as the worker tells."""
        host = self._host
        if host is None:
            return None
        return HostStatus(
            total_bytes=host.total_bytes,
            available_bytes=host.available_bytes,
            limited_by_cgroup=host.limited_by_cgroup,
            age_s=round(time.monotonic() - host.taken_at, 3),
            registered_bytes=registered_bytes,
            worker_rss_bytes=host.rss_bytes.get(self._worker.pid) if self._worker is not None else None,
            ours_rss_bytes=sum(host.rss_bytes.values()),
            swapped_bytes=sum(host.swapped_bytes.values()) if host.swapped_bytes else None,
            pressure_percent=host.pressure_percent,
        )

    @property
    def host(self) -> HostReading | None:
        """Host memory by the newest reading."""
        return self._host

    @property
    def counters(self) -> AllocatorSample | None:
        """The worker's newest allocator counters."""
        return self._worker.latest if self._worker is not None else None

    @property
    def versions(self) -> dict[str, str] | None:
        """Of the worker's libraries; None without a worker that is ready."""
        worker = self._worker
        return worker.ready.versions if worker is not None and worker.ready is not None else None

    def process_bytes(self, pid: int, device_id: str) -> int | None:
        """What `pid` holds on the device by the newest reading: NVML's entry, or its RSS on cpu."""
        if device_id == "cpu":
            return self._host.rss_bytes.get(pid) if self._host is not None else None
        reading = self._readings.get(device_id)
        if reading is None:
            return None
        return next((process.bytes for process in reading.processes if process.pid == pid), None)

    def rss_bytes(self, pid: int) -> int | None:
        return self._host.rss_bytes.get(pid) if self._host is not None else None

    def budget(self) -> Budget | None:
        """The worker's budget on the device in use; None before the first reading."""
        room = self._room()
        return None if room is None else room.budget(self._config)

    def has_room(self, num_bytes: int) -> bool:
        """Whether so much is free on the device just now, by the newest reading."""
        if self.device_id == "cpu":
            return self._host is not None and self._host.available_bytes >= num_bytes
        reading = self._readings.get(self.device_id or "")
        return reading is not None and reading.free_bytes >= num_bytes

    def others_press(self) -> bool:
        """Whether less is free on the GPU than the settings keep for others."""
        reading = self._readings.get(self.device_id or "")
        return reading is not None and reading.free_bytes < self._config.keep_free_bytes

    # ----------------------------------------------------------------- arithmetic

    def _room(self) -> Room | None:
        """On the device in use; None before the first reading."""
        worker = self._worker
        if self.device_id == "cpu":
            if self._host is None:
                return None
            baseline = worker.ready.baseline_rss_bytes if worker and worker.ready else 0
            pid = None if worker is None else worker.pid
            return room_on_cpu(self._host, worker_pid=pid, baseline_bytes=baseline)
        reading = self._readings.get(self.device_id or "")
        if reading is None:
            return None
        held = 0
        if worker is not None and worker.device_id == reading.device_id:
            held = self.process_bytes(worker.pid, reading.device_id) or self._counted(worker)
        # Also before there is a worker: the first job brings its context along.
        context = CONTEXT_GUESS_BYTES if self._context_bytes is None else self._context_bytes
        return room_on_gpu(
            reading,
            worker_pid=None if worker is None else worker.pid,
            held_bytes=held,
            context_bytes=context,
        )

    def _counted(self, worker: _Worker) -> int:
        """What the worker holds by its own count, where the driver does not tell."""
        counters = worker.latest
        reserved = counters.reserved_bytes if counters is not None else None
        return 0 if reserved is None else reserved + (self._context_bytes or 0)

    def _start_of(self, pid: int) -> float | None:
        """When a process of ours began, by the wall clock; looked up once for each."""
        if pid not in self._began:
            since_boot = read_start_time(pid)
            if since_boot is None:
                return None
            self._began[pid] = time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot)
        return self._began[pid]

    def _compose_cpu(self, host: HostReading) -> None:
        worker = self._worker
        rss = host.rss_bytes.get(worker.pid) if worker else None
        baseline = worker.ready.baseline_rss_bytes if worker and worker.ready else None
        helpers = {
            label: (pid, size)
            for pid, size in host.rss_bytes.items()
            if (label := self._label(pid)) is not None and label != "worker"
        }
        balance = cpu_balance(host, worker.latest if worker else None, rss, baseline, helpers=helpers)
        processes = tuple(
            DeviceProcess(
                pid=pid,
                bytes=rss_bytes,
                user=self._user,
                name=label,
                started_at=self._start_of(pid),
                ours=label,  # type: ignore[arg-type]  # our own labels
            )
            for pid, rss_bytes in host.rss_bytes.items()
            if (label := self._label(pid)) is not None
        )
        self._publish(
            DeviceStatus(
                id="cpu",
                kind="cpu",
                name=_cpu_name(),
                total_bytes=host.total_bytes,
                in_use=True,
                balance=balance,
                processes=processes,
                age_s=0.0,
            )
        )

    def _measure_context_by(
        self, reading: DeviceReading, before: AllocatorSample | None, after: AllocatorSample | None
    ) -> None:
        worker = self._worker
        if not self._context_due or worker is None or before is None or after is None:
            return
        held = next((process.bytes for process in reading.processes if process.pid == worker.pid), None)
        still = why_moving(reading, before, after) is None
        if still and held is not None and after.reserved_bytes is not None:
            self._context_bytes = max(0, held - after.reserved_bytes)
            self._context_due = False

    def _compose_gpu(
        self, reading: DeviceReading, before: AllocatorSample | None, after: AllocatorSample | None
    ) -> None:
        worker = self._worker
        here = worker is not None and worker.device_id == reading.device_id
        self._measure_context_by(reading, before, after)
        balance: Balance = gpu_balance(
            reading,
            before if here else None,
            after if here else None,
            self._context_bytes if here else None,
            {worker.pid} if worker and here else set(),
        )
        processes = tuple(
            DeviceProcess(
                pid=process.pid,
                bytes=process.bytes,
                user=process.user,
                name=process.name,
                command=process.command,
                program=program_of(process.name, process.command),
                started_at=process.started_at,
                start_time=process.start_time,
                container=process.container,
                ours=self._label(process.pid),  # type: ignore[arg-type]  # our own labels
                tenant=self._tenants.of_process(reading.device_id, process.pid, process.start_time),
            )
            for process in reading.processes
        )
        self._publish(
            self.cards.described(
                reading,
                in_use=reading.device_id == self.device_id,
                tenant=self._tenants.of_device(reading.device_id),
                balance=balance,
                processes=processes,
            )
        )

    def _publish(self, status: DeviceStatus, *, record: bool = True) -> None:
        self._statuses[status.id] = status
        if status.balance is not None and record:
            self.recorder.record(status.balance)
        self._on_status(status)


@cache
def _cpu_name() -> str:
    """The processor as the kernel names it."""
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
