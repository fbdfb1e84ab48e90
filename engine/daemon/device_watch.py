"""Sees that the engine has a device to work on, from what the probe says."""

from __future__ import annotations

from collections.abc import Callable

from engine.daemon.devices import DeviceInUse
from engine.daemon.logbook import LogBook
from engine.daemon.memory import MemoryView
from engine.daemon.readiness import FirstReading
from engine.telemetry.samples import FromProbe


class DeviceWatch:
    """Hands readings on, and chooses by them. Event loop's thread only."""

    def __init__(
        self,
        device: DeviceInUse,
        memory: MemoryView,
        first_reading: FirstReading,
        logbook: LogBook,
        *,
        on_chosen: Callable[[], None],
        on_change: Callable[[], None],
    ) -> None:
        """`on_chosen` runs when there is a device, `on_change` also when there is a problem instead."""
        self._device = device
        self._memory = memory
        self._first_reading = first_reading
        self._logbook = logbook
        self._on_chosen = on_chosen
        self._on_change = on_change

    def heard(self, message: FromProbe) -> None:
        """The probe has looked."""
        first = not self._memory.heard_host and not self._memory.gpu_readings
        self._memory.heard(message)
        if first or self._memory.device_id is None:
            self._choose()
        self._first_reading.look()

    def look(self) -> None:
        """Once a second: choose again while there is a problem."""
        if self._memory.device_id is None:
            self._choose()

    def _choose(self) -> None:
        device, memory = self._device, self._memory
        if not device.choose(memory.gpu_readings, nvml_fault=memory.nvml_fault, heard_host=memory.heard_host):
            return
        if device.problem is not None:
            self._logbook.write("device", device.problem, level="error")
        if device.id is not None:
            memory.device_id = device.id
            self._logbook.write("device", f"works on {device.id}")
            self._on_chosen()
        self._first_reading.look()
        self._on_change()
