"""NVML as the probe needs it: devices by UUID, their memory and their processes, all typed.

A value that the driver will not tell is None, never 0. Only the probe process opens this: NVML
calls can hang in the kernel, and any open client blocks a GPU reset.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

import pynvml

FaultKind: TypeAlias = Literal[
    "nvml_missing",  # no libnvidia-ml here: no NVIDIA driver, or a container without it
    "nvml_driver",  # the library is there, the driver does not answer it
    "gpu_lost",  # fell off the bus or must be reset
    "not_supported",
    "no_permission",
    "nvml_error",
]
Value = TypeVar("Value")


class NvmlFault(Exception):
    """Something that NVML would not tell, with a stable kind."""

    def __init__(self, kind: FaultKind, detail: str) -> None:
        self.kind: FaultKind = kind
        self.detail = detail
        super().__init__(f"{kind}: {detail}")


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

    def read_processes(self, device: Device) -> Mapping[int, int | None]:
        """Pid to bytes, or None where the driver will not tell that process's."""
        ...

    def read_utilisation_percent(self, device: Device) -> int | None: ...

    def read_temperature_c(self, device: Device) -> int | None: ...

    def read_power_w(self, device: Device) -> float | None: ...

    def close(self) -> None: ...


class DriverNvml:
    """NVML of this host's driver. Threads may share it: the library locks for itself."""

    def __init__(self) -> None:
        """Open it.

        Raises:
            NvmlFault: there is no library, or no driver that answers it.
        """
        _call(pynvml.nvmlInit)
        self._handles: dict[str, Any] = {}
        self._has_v2 = True

    def list_devices(self) -> tuple[Device, ...]:
        """The GPUs that answer; one that is lost is left out, and the rest go on.

        Raises:
            NvmlFault: not even their number can be read.
        """
        found = []
        for index in range(_call(pynvml.nvmlDeviceGetCount)):
            try:
                handle = _call(pynvml.nvmlDeviceGetHandleByIndex, index)
                device_id = _text(_call(pynvml.nvmlDeviceGetUUID, handle))
                name = _text(_call(pynvml.nvmlDeviceGetName, handle))
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
                memory = _call(pynvml.nvmlDeviceGetMemoryInfo, handle, version=pynvml.nvmlMemory_v2)
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
        memory = _call(pynvml.nvmlDeviceGetMemoryInfo, handle)
        return DeviceMemory(
            total_bytes=memory.total, used_bytes=memory.used, free_bytes=memory.free, reserved_bytes=None
        )

    def read_processes(self, device: Device) -> dict[int, int | None]:
        """Compute, graphics and MPS processes together; one that is in several lists counts once.

        Raises:
            NvmlFault: none of the lists can be read.
        """
        handle = self._handles[device.device_id]
        lists: list[dict[int, int | None]] = []
        refused: NvmlFault | None = None
        for read in (
            pynvml.nvmlDeviceGetComputeRunningProcesses,
            pynvml.nvmlDeviceGetGraphicsRunningProcesses,
            pynvml.nvmlDeviceGetMPSComputeRunningProcesses,
        ):
            try:
                lists.append(_sum_by_pid(_call(read, handle)))
            except NvmlFault as fault:
                if fault.kind == "gpu_lost":
                    raise
                refused = refused or fault
        if not lists and refused is not None:
            raise refused
        return merge_processes(lists)

    def read_utilisation_percent(self, device: Device) -> int | None:
        rates = _optional(pynvml.nvmlDeviceGetUtilizationRates, self._handles[device.device_id])
        return None if rates is None else int(rates.gpu)

    def read_temperature_c(self, device: Device) -> int | None:
        handle = self._handles[device.device_id]
        found = _optional(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU)
        return None if found is None else int(found)

    def read_power_w(self, device: Device) -> float | None:
        milliwatts = _optional(pynvml.nvmlDeviceGetPowerUsage, self._handles[device.device_id])
        return None if milliwatts is None else milliwatts / 1000

    def close(self) -> None:
        """Let go of the driver; harmless twice."""
        try:
            _call(pynvml.nvmlShutdown)
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


def _optional(function: Callable[..., Value], *arguments: Any) -> Value | None:
    """The value, or None where this card or driver will not tell it; a lost card is still a fault."""
    try:
        return _call(function, *arguments)
    except NvmlFault as fault:
        if fault.kind == "gpu_lost":
            raise
        return None


def _call(function: Callable[..., Value], *arguments: Any, **options: Any) -> Value:
    try:
        return function(*arguments, **options)
    except pynvml.NVMLError as error:
        raise NvmlFault(_kind(error), str(error)) from None


def _kind(error: Any) -> FaultKind:
    match error.value:
        case pynvml.NVML_ERROR_LIBRARY_NOT_FOUND:
            return "nvml_missing"
        case pynvml.NVML_ERROR_DRIVER_NOT_LOADED | pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
            return "nvml_driver"
        case pynvml.NVML_ERROR_GPU_IS_LOST | pynvml.NVML_ERROR_RESET_REQUIRED:
            return "gpu_lost"
        case (
            pynvml.NVML_ERROR_NOT_SUPPORTED
            | pynvml.NVML_ERROR_FUNCTION_NOT_FOUND
            | pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH
        ):
            return "not_supported"
        case pynvml.NVML_ERROR_NO_PERMISSION:
            return "no_permission"
        case _:
            return "nvml_error"


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
