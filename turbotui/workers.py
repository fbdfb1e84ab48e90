"""Owns what the console and the CLI say about a worker as a whole: what it holds where it works."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.wire import DeviceStatus, WorkerStatus


def held_bytes(worker: WorkerStatus, devices: Iterable[DeviceStatus]) -> int | None:
    """What comes back when `worker` ends: its own entry on its device, else what it says of itself."""
    for device in devices:
        if device.id == worker.device_id:
            for process in device.processes:
                if process.pid == worker.pid and process.bytes is not None:
                    return process.bytes
            if device.kind == "cpu":
                return worker.rss_bytes
    return None
