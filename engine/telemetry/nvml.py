"""NVML as the probe needs it: devices by UUID, their memory and their processes, all typed.

A value that the driver will not tell is None, never 0. Only the probe process opens this: NVML
calls can hang in the kernel, and any open client blocks a GPU reset.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import pynvml

from engine.telemetry.nvml_calls import NvmlFault, call, optional, text
from engine.telemetry.nvml_card import (
    CardIdentity,
    Clocks,
    Condition,
    Versions,
    read_clocks,
    read_condition,
    read_identity,
    read_versions,
)
from engine.telemetry.nvml_events import DriverEvents, NvmlEvents

__all__ = ["Device", "DeviceMemory", "DriverNvml", "Nvml", "NvmlFault", "is_reserved_inside_used"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """A GPU that NVML lists."""

    device_id: str
    """`GPU-<uuid>`."""
    index: int
    """NVML's, for people's eyes only."""
    name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceMemory:
    """One reading of a card's memory, in bytes."""

    total_bytes: int
    used_bytes: int
    free_bytes: int
    reserved_bytes: int | None
    """None where the driver has only the first version of the call."""


class Nvml(Protocol):
    """What the probe asks; every method may raise NvmlFault."""

    def list_devices(self) -> tuple[Device, ...]: ...

    def read_memory(self, device: Device) -> DeviceMemory: ...

    def read_processes(self, device: Device, *, every_list: bool = True) -> Mapping[int, int | None]:
        """Pid to bytes, or None where the driver will not tell that process's.

        Without `every_list` only the list of compute processes need be read anew, the others are as they
        were last: for a device on which nothing moved since.
        """
        ...

    def refused_lists(self, device: Device) -> tuple[str, ...]:
        """Which lists of processes the last reading was refused, though the driver has them."""
        ...

    def read_utilisation_percent(self, device: Device) -> int | None: ...

    def read_temperature_c(self, device: Device) -> int | None: ...

    def read_power_w(self, device: Device) -> float | None: ...

    def read_clocks(self, device: Device) -> Clocks: ...

    def read_condition(self, device: Device) -> Condition: ...

    def read_identity(self, device: Device) -> CardIdentity: ...

    def read_versions(self) -> Versions: ...

    def open_events(self) -> NvmlEvents:
        """Of the devices as last listed."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class _Lists:
    """Some lists of processes, as far as the driver gives them."""

    told: list[dict[int, int | None]]
    refused: tuple[str, ...]
    """Those that it has and does not give."""
    fault: NvmlFault | None


class DriverNvml:
    """NVML of this host's driver. Threads may share it: the library locks for itself."""

    def __init__(self) -> None:
        """Open it.

        Raises:
            NvmlFault: there is no library, or no driver that answers it.
        """
        call(pynvml.nvmlInit)
        self._handles: dict[str, Any] = {}
        self._has_v2 = True
        self._refused: dict[str, tuple[str, ...]] = {}
        self._others: dict[str, _Lists] = {}
        """What the lists beside that of compute processes were when they were last read."""

    def list_devices(self) -> tuple[Device, ...]:
        """The GPUs that answer; one that is lost is left out, and the rest go on.

        Raises:
            NvmlFault: not even their number can be read.
        """
        found = []
        for index in range(call(pynvml.nvmlDeviceGetCount)):
            try:
                handle = call(pynvml.nvmlDeviceGetHandleByIndex, index)
                device_id = text(call(pynvml.nvmlDeviceGetUUID, handle))
                name = text(call(pynvml.nvmlDeviceGetName, handle))
            except NvmlFault as fault:
                if fault.kind in ("gpu_lost", "no_permission", "nvml_error"):
                    continue
                raise
            self._handles[device_id] = handle
            found.append(Device(device_id=device_id, index=index, name=name))
        return tuple(found)

    def read_memory(self, device: Device) -> DeviceMemory:
        handle = self._handles[device.device_id]
        if self._has_v2:
            try:
                memory = call(pynvml.nvmlDeviceGetMemoryInfo, handle, version=pynvml.nvmlMemory_v2)
            except NvmlFault as fault:
                if fault.kind != "not_supported":
                    raise
                self._has_v2 = False
            else:
                return DeviceMemory(
                    total_bytes=memory.total,
                    used_bytes=memory.used,
                    free_bytes=memory.free,
                    reserved_bytes=memory.reserved,
                )
        memory = call(pynvml.nvmlDeviceGetMemoryInfo, handle)
        return DeviceMemory(
            total_bytes=memory.total, used_bytes=memory.used, free_bytes=memory.free, reserved_bytes=None
        )

    def read_processes(self, device: Device, *, every_list: bool = True) -> dict[int, int | None]:
        """Compute, graphics and MPS processes together; one that is in several lists counts once.

        Raises:
            NvmlFault: none of the lists can be read.
        """
        handle = self._handles[device.device_id]
        others = None if every_list else self._others.get(device.device_id)
        if others is None:
            others = _read_lists(
                handle,
                ("graphics", pynvml.nvmlDeviceGetGraphicsRunningProcesses),
                ("MPS", pynvml.nvmlDeviceGetMPSComputeRunningProcesses),
            )
            self._others[device.device_id] = others
        compute = _read_lists(handle, ("compute", pynvml.nvmlDeviceGetComputeRunningProcesses))
        self._refused[device.device_id] = (*compute.refused, *others.refused)
        lists, fault = compute.told + others.told, compute.fault or others.fault
        if not lists and fault is not None:
            raise fault
        return lists[0] if len(lists) == 1 else merge_processes(lists)

    def refused_lists(self, device: Device) -> tuple[str, ...]:
        return self._refused.get(device.device_id, ())

    def read_utilisation_percent(self, device: Device) -> int | None:
        rates = optional(pynvml.nvmlDeviceGetUtilizationRates, self._handles[device.device_id])
        return None if rates is None else int(rates.gpu)

    def read_temperature_c(self, device: Device) -> int | None:
        handle = self._handles[device.device_id]
        found = optional(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU)
        return None if found is None else int(found)

    def read_power_w(self, device: Device) -> float | None:
        milliwatts = optional(pynvml.nvmlDeviceGetPowerUsage, self._handles[device.device_id])
        return None if milliwatts is None else milliwatts / 1000

    def read_clocks(self, device: Device) -> Clocks:
        return read_clocks(self._handles[device.device_id])

    def read_condition(self, device: Device) -> Condition:
        return read_condition(self._handles[device.device_id])

    def read_identity(self, device: Device) -> CardIdentity:
        return read_identity(self._handles[device.device_id])

    def read_versions(self) -> Versions:
        return read_versions()

    def open_events(self) -> NvmlEvents:
        return DriverEvents(self._handles)

    def close(self) -> None:
        """Let go of the driver; harmless twice."""
        try:
            call(pynvml.nvmlShutdown)
        except NvmlFault:
            pass


def merge_processes(lists: list[dict[int, int | None]]) -> dict[int, int | None]:
    """One entry for each pid: the largest value known, since each list tells the process's whole."""
    merged: dict[int, int | None] = {}
    for entries in lists:
        for pid, num_bytes in entries.items():
            known = merged.get(pid)
            if num_bytes is None or known is None:
                merged[pid] = known if num_bytes is None else num_bytes
            else:
                merged[pid] = max(known, num_bytes)
    return merged


def is_reserved_inside_used(memory: DeviceMemory) -> bool:
    """Which identity holds: used + free = total (True), or used + free + reserved = total (False).

    Drivers differ and their manuals contradict each other, so it is found out; of two that miss,
    the nearer one. True where there is no reserve of its own to tell.
    Source: measured on driver 580.159.04: used + free + reserved = total to the byte.
    """
    if memory.reserved_bytes is None:
        return True
    outside = memory.total_bytes - memory.used_bytes - memory.free_bytes
    return abs(outside) < abs(outside - memory.reserved_bytes)


def _read_lists(handle: Any, *lists: tuple[str, Callable[[Any], list[Any]]]) -> _Lists:
    told: list[dict[int, int | None]] = []
    refused: tuple[str, ...] = ()
    first: NvmlFault | None = None
    for name, read in lists:
        try:
            told.append(_sum_by_pid(call(read, handle)))
        except NvmlFault as fault:
            if fault.kind == "gpu_lost":
                raise
            first = first or fault
            if fault.kind != "not_supported":
                refused = (*refused, name)
    return _Lists(told=told, refused=refused, fault=first)


def _sum_by_pid(entries: list[Any]) -> dict[int, int | None]:
    """One list's entries by pid: with MIG a process has one for each instance."""
    summed: dict[int, int | None] = {}
    for entry in entries:
        num_bytes = entry.usedGpuMemory
        if num_bytes is not None and num_bytes >= pynvml.NVML_VALUE_NOT_AVAILABLE_ulonglong.value:
            num_bytes = None
        if entry.pid in summed:
            known = summed[entry.pid]
            num_bytes = None if num_bytes is None or known is None else num_bytes + known
        summed[entry.pid] = num_bytes
    return summed
