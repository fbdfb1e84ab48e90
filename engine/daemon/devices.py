"""Which device the engine works on: decided once, from the settings and what the probe sees.

The order is the person's setting, then the grant in CUDA_VISIBLE_DEVICES, then the emptiest
GPU; cpu only where there is no GPU at all or the person asked for it. A GPU that is present
but cannot be used is a problem with its reason, never a silent fall back to cpu.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.daemon.claims import answer_looks, claim_gpu, find_holder
from engine.paths import user_name
from engine.telemetry.samples import DeviceReading


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceChoice:
    """The device to work on, or why there is none."""

    device_id: str | None
    """`GPU-<uuid>` or `cpu`; None with a `problem`."""
    problem: str | None = None


def choose_device(
    setting: str,
    granted: str | None,
    readings: Sequence[DeviceReading],
    *,
    gpu_files_present: bool,
    nvml_fault: str | None,
    claimed_elsewhere: frozenset[str] = frozenset(),
) -> DeviceChoice:
    """Choose by the rule above.

    `granted` is CUDA_VISIBLE_DEVICES as the engine was started with, or None when unset.
    """
    if setting == "cpu":
        return DeviceChoice(device_id="cpu")
    if not readings:
        if gpu_files_present or setting != "auto":
            why = nvml_fault or "NVML lists no GPU"
            return DeviceChoice(
                device_id=None,
                problem=f"a GPU was found or asked for but cannot be used: {why}; "
                'mend the driver, or set engine.device = "cpu"',
            )
        return DeviceChoice(device_id="cpu")
    wanted = list(readings)
    source = "the host"
    if setting != "auto":
        wanted = _named(setting, readings)
        source = f"engine.device = {setting!r}"
    elif granted is not None:
        wanted = [reading for name in granted.split(",") for reading in _named(name.strip(), readings)]
        source = f"CUDA_VISIBLE_DEVICES = {granted!r}"
    if not wanted:
        known = ", ".join(f"{reading.index} ({reading.device_id})" for reading in readings)
        return DeviceChoice(device_id=None, problem=f"{source} names no GPU of this host; there are {known}")
    free = [reading for reading in wanted if reading.device_id not in claimed_elsewhere]
    if not free:
        names = ", ".join(_claimed(reading.device_id) for reading in wanted)
        return DeviceChoice(
            device_id=None,
            problem=f"another turbotui engine on this host works on {names}; "
            "end it, or choose a GPU by engine.device",
        )
    return DeviceChoice(device_id=max(free, key=lambda reading: reading.free_bytes).device_id)


def _claimed(device_id: str) -> str:
    holder = find_holder(device_id)
    return device_id if holder is None else f"{device_id} (of {user_name(holder.uid)}, pid {holder.pid})"


def _named(name: str, readings: Sequence[DeviceReading]) -> list[DeviceReading]:
    """Readings that `name` means: a UUID, its unambiguous beginning, or NVML's index."""
    if name.isdecimal():
        return [reading for reading in readings if reading.index == int(name)]
    return [reading for reading in readings if name and reading.device_id.startswith(name)]


class DeviceInUse:
    """The device this engine works on, chosen once and claimed host-wide."""

    def __init__(self, setting: str, granted: str | None) -> None:
        self.id: str | None = None
        self.problem: str | None = None
        self._setting = setting
        self._granted = granted
        self._claim: socket.socket | None = None

    def choose(self, readings: Sequence[DeviceReading], *, nvml_fault: str | None, heard_host: bool) -> bool:
        """Try to choose by what the probe has seen so far; True when `id` or `problem` changed."""
        gpu_files = Path("/dev/nvidia0").exists() or Path("/proc/driver/nvidia/version").exists()
        if not readings and (not heard_host or (gpu_files and nvml_fault is None)):
            return False  # the probe has not looked yet
        before = (self.id, self.problem)
        taken: set[str] = set()
        while True:
            choice = choose_device(
                self._setting,
                self._granted,
                readings,
                gpu_files_present=gpu_files,
                nvml_fault=nvml_fault,
                claimed_elsewhere=frozenset(taken),
            )
            if choice.device_id is None or choice.device_id == "cpu":
                break
            self._claim = claim_gpu(choice.device_id)
            if self._claim is not None:
                answer_looks(self._claim)
                break
            taken.add(choice.device_id)
        self.id, self.problem = choice.device_id, choice.problem
        return (self.id, self.problem) != before
