"""The engine's figures under names that Prometheus expects: base units, `_total` for what only grows.

What cannot be known has no sample, never a 0. Names that other users chose are cleaned before they
become labels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from engine.daemon.pressure import LEVELS
from engine.daemon.prometheus import Exposition
from engine.telemetry.procfs import clean
from engine.wire import (
    DeviceStatus,
    Event,
    JobState,
    ReceiptAction,
    ReceiptIssued,
    Status,
    WorkerState,
)

LABEL_LIMIT = 120

METRICS: tuple[tuple[str, str], ...] = (
    ("build_info", "Always 1; the engine's build."),
    ("uptime_seconds", "Since the engine started."),
    ("engine_ready", "1 where the engine takes work, 0 while it starts or stops."),
    ("engine_problem", "1 where the engine cannot do its whole work; `turbotui status` says why."),
    ("probe_age_seconds", "Age of the newest reading of the probe."),
    ("device_memory_total_bytes", "Memory of a device, or of the host without one."),
    ("device_memory_part_bytes", "Parts of a device's balance; with the unexplained they make the total."),
    ("device_memory_unexplained_bytes", "A device's total less its parts."),
    ("device_memory_coherent", "1 where nothing moved between the readings of a device's balance."),
    ("device_reading_age_seconds", "Age of a device's newest reading."),
    ("device_in_use", "1 for the device that the engine works on."),
    ("device_utilisation_ratio", "0 to 1."),
    ("device_temperature_celsius", "Of the GPU."),
    ("device_power_watts", "Of the GPU."),
    ("process_memory_bytes", "Of a process on a device, whoever's."),
    ("worker_state", "1 for the state that the worker is in; absent without one."),
    ("worker_resident_memory_bytes", "Host memory of the worker."),
    ("worker_warm_bytes", "Weight files that the worker keeps registered in host memory."),
    ("model_resident_bytes", "Weights of a model on the device."),
    ("jobs", "Jobs that the store keeps, by state."),
    ("queue_held", "1 where failures have held the queue."),
    ("pressure_level", "0 none, 1 warn, 2 act."),
    ("pressure_used_ratio", "Share of the memory in use, as pressure is judged by."),
    ("pressure_predicted_ratio", "The same at the peak of the running or the next job."),
    ("receipts_total", "Actions that moved memory, since the engine started."),
    ("receipts_returned_bytes_total", "What they gave back."),
    ("receipts_loaded_bytes_total", "What they loaded."),
    ("receipts_residue_bytes_total", "What they promised and did not give back."),
    ("receipts_seconds_total", "How long they took."),
)
PREFIX = "turbotui_"


@dataclass(kw_only=True, slots=True)
class _Tally:
    count: int = 0
    returned: int = 0
    loaded: int = 0
    residue: int = 0
    seconds: float = 0.0


class ReceiptTally:
    """Counts receipts as they are issued, by action and by whether they are good."""

    def __init__(self) -> None:
        self._tallies: dict[tuple[ReceiptAction, bool], _Tally] = defaultdict(_Tally)

    def heard(self, event: Event) -> None:
        if isinstance(event, ReceiptIssued):
            receipt = event.receipt
            tally = self._tallies[receipt.action, receipt.ok]
            tally.count += 1
            tally.returned += receipt.returned_bytes or 0
            tally.loaded += receipt.loaded_bytes
            tally.residue += receipt.residue_bytes or 0
            tally.seconds += receipt.elapsed_s

    def write(self, page: Exposition) -> None:
        for (action, ok), tally in sorted(self._tallies.items()):
            labels = {"action": action, "result": "ok" if ok else "failed"}
            page.add(f"{PREFIX}receipts_total", tally.count, labels)
            page.add(f"{PREFIX}receipts_returned_bytes_total", tally.returned, labels)
            page.add(f"{PREFIX}receipts_loaded_bytes_total", tally.loaded, labels)
            page.add(f"{PREFIX}receipts_residue_bytes_total", tally.residue, labels)
            page.add(f"{PREFIX}receipts_seconds_total", round(tally.seconds, 6), labels)


def metrics_text(status: Status, jobs: Mapping[str, int], receipts: ReceiptTally) -> str:
    """The page of `/metrics`; `jobs` counts the kept ones by state."""
    page = Exposition()
    for name, help in METRICS:
        page.describe(PREFIX + name, "counter" if name.endswith("_total") else "gauge", help)

    def put(name: str, value: float | int | None, **labels: Any) -> None:
        page.add(PREFIX + name, value, labels)

    engine = status.engine
    put("build_info", 1, build=engine.build)
    put("uptime_seconds", engine.uptime_s)
    put("engine_ready", int(engine.state == "ready"))
    put("engine_problem", int(engine.problem is not None))
    put("probe_age_seconds", engine.probe_age_s)
    for device in status.devices:
        _put_device(page, device)
    for worker in status.workers:
        for state in get_args(WorkerState):
            put("worker_state", int(state == worker.state), device=worker.device_id, state=state)
        put("worker_resident_memory_bytes", worker.rss_bytes, device=worker.device_id)
        put("worker_warm_bytes", worker.warm_bytes, device=worker.device_id)
    for model in status.models:
        resident = sum(part.bytes for part in model.components if part.state == "resident")
        put("model_resident_bytes", resident, model=clean(model.name, LABEL_LIMIT))
    for job_state in get_args(JobState):
        put("jobs", jobs.get(job_state, 0), state=job_state)
    put("queue_held", int(engine.queue.held_reason is not None))
    for pressure in status.pressure:
        put("pressure_level", LEVELS.index(pressure.level), device=pressure.device_id)
        put("pressure_used_ratio", pressure.used_share, device=pressure.device_id)
        put("pressure_predicted_ratio", pressure.predicted_share, device=pressure.device_id)
    receipts.write(page)
    return page.text()


def _put_device(page: Exposition, device: DeviceStatus) -> None:
    whose = {"device": device.id, "index": device.index, "name": clean(device.name, LABEL_LIMIT)}
    only = {"device": device.id}

    def put(name: str, value: float | int | None, labels: Mapping[str, object] = only) -> None:
        page.add(PREFIX + name, value, labels)

    put("device_memory_total_bytes", device.total_bytes, whose)
    put("device_reading_age_seconds", device.age_s)
    put("device_in_use", int(device.in_use))
    percent = device.utilisation_percent
    put("device_utilisation_ratio", None if percent is None else percent / 100)
    put("device_temperature_celsius", device.temperature_c)
    put("device_power_watts", device.power_w)
    if device.balance is not None:
        put("device_memory_unexplained_bytes", device.balance.unexplained_bytes)
        put("device_memory_coherent", int(device.balance.coherent))
        for part in device.balance.parts:
            labels = {
                **only,
                "owner": part.owner,
                "part": part.kind,
                "label": clean(part.label, LABEL_LIMIT),
                "pid": part.pid,
            }
            put("device_memory_part_bytes", part.bytes, labels)
    for process in device.processes:
        labels = {
            **only,
            "pid": process.pid,
            "user": clean(process.user or "", LABEL_LIMIT),
            "name": clean(process.name, LABEL_LIMIT),
            "ours": process.ours,
        }
        put("process_memory_bytes", process.bytes, labels)
