"""What the probe reads of GPUs: a DeviceReading of each, ten times a second, and what cannot be read.

Memory and process bytes are read each time; names, power, temperature and utilisation once a
second, and keep their last value in between.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from engine.telemetry.nvml import Device, Nvml, NvmlFault, is_reserved_inside_used
from engine.telemetry.processes import ProcessTable
from engine.telemetry.samples import DeviceReading, ProbeFault, ProcessReading

SLOW_S = 1.0
"""How often what moves slowly is read."""


@dataclass(kw_only=True, slots=True)
class _Slow:
    reserved_inside_used: bool
    utilisation_percent: int | None = None
    temperature_c: int | None = None
    power_w: float | None = None


class DeviceReader:
    """Reads every GPU that `nvml` lists. One thread at a time."""

    def __init__(
        self,
        nvml: Nvml,
        report: Callable[[ProbeFault], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`report` hears of each thing that cannot be read once, however long it lasts.

        Raises:
            NvmlFault: the devices cannot be listed.
        """
        self._nvml = nvml
        self._report = report
        self._clock = clock
        self._devices = nvml.list_devices()
        self._slow: dict[str, _Slow] = {}
        self._slow_at: float | None = None
        self._table = ProcessTable()
        self._reported: set[tuple[str, str]] = set()

    @property
    def devices(self) -> tuple[Device, ...]:
        return self._devices

    def read(self) -> list[DeviceReading]:
        """A reading of each device that answers."""
        now = self._clock()
        slow_turn = self._slow_at is None or now - self._slow_at >= SLOW_S
        if slow_turn:
            self._slow_at = now
        listed: dict[str, Mapping[int, int | None]] = {}
        for device in self._devices:
            listed[device.device_id] = self._read_processes(device)
        pids = {pid for processes in listed.values() for pid in processes}
        if slow_turn or not all(self._table.knows(pid) for pid in pids):
            self._table.refresh(pids)
        readings = []
        for device in self._devices:
            try:
                readings.append(self._read_device(device, listed[device.device_id], slow_turn))
            except NvmlFault as fault:
                self._fault(fault.kind, f"{device.device_id} (index {device.index}): {fault.detail}")
        return readings

    def _read_processes(self, device: Device) -> Mapping[int, int | None]:
        try:
            return self._nvml.read_processes(device)
        except NvmlFault as fault:
            self._fault("processes_unknown", f"{device.device_id}: {fault.detail}")
            return {}

    def _read_device(
        self, device: Device, processes: Mapping[int, int | None], slow_turn: bool
    ) -> DeviceReading:
        taken_at = self._clock()
        memory = self._nvml.read_memory(device)
        slow = self._slow.get(device.device_id)
        if slow is None:
            slow = _Slow(reserved_inside_used=is_reserved_inside_used(memory))
            self._slow[device.device_id] = slow
        if slow_turn:
            slow.utilisation_percent = self._nvml.read_utilisation_percent(device)
            slow.temperature_c = self._nvml.read_temperature_c(device)
            slow.power_w = self._nvml.read_power_w(device)
        return DeviceReading(
            taken_at=taken_at,
            device_id=device.device_id,
            index=device.index,
            name=device.name,
            total_bytes=memory.total_bytes,
            used_bytes=memory.used_bytes,
            reserved_bytes=memory.reserved_bytes,
            reserved_inside_used=slow.reserved_inside_used,
            free_bytes=memory.free_bytes,
            processes=tuple(self._describe(pid, num_bytes) for pid, num_bytes in sorted(processes.items())),
            utilisation_percent=slow.utilisation_percent,
            temperature_c=slow.temperature_c,
            power_w=slow.power_w,
        )

    def _describe(self, pid: int, num_bytes: int | None) -> ProcessReading:
        who = self._table.get(pid)
        return ProcessReading(
            pid=pid,
            bytes=num_bytes,
            user=who.user,
            name=who.name,
            command=who.command,
            started_at=who.started_at,
            start_time=who.start_time,
            container=who.container,
        )

    def _fault(self, kind: str, detail: str) -> None:
        if (kind, detail) not in self._reported:
            self._reported.add((kind, detail))
            self._report(ProbeFault(kind=kind, detail=detail))
