"""What the probe reads of GPUs: a DeviceReading of each, ten times a second, and what cannot be read.

Memory and processes are read each time, and again at once where memory moved in between. Names,
clocks, power and the like are read once a second, a card's condition every ten, and keep their last
value in between.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from engine.telemetry.nvml import Device, DeviceMemory, Nvml, NvmlFault, is_reserved_inside_used
from engine.telemetry.nvml_card import CardIdentity, Clocks, Condition
from engine.telemetry.processes import ProcessIdentity, ProcessTable
from engine.telemetry.samples import CardReading, DeviceNews, DeviceReading, ProbeFault, ProcessReading
from engine.telemetry.view import CardView, HostView, read_host_view, view_gap

SLOW_S = 1.0
"""How often what moves slowly is read."""
CONDITION_S = 10.0
"""How often what hardly ever moves is read, such as the ECC counters."""
RELIST_S = 10.0
"""How often a card that was lost is looked for."""
TRIES = 3
"""Readings of a device at one beat: memory that moves under all of them is marked."""


@dataclass(kw_only=True, slots=True)
class _Slow:
    """What is kept of a device between its readings."""

    reserved_inside_used: bool
    identity: CardIdentity
    read_at: float | None = None
    utilisation_percent: int | None = None
    temperature_c: int | None = None
    power_w: float | None = None
    clocks: Clocks = field(default_factory=Clocks)
    condition_at: float | None = None
    condition: Condition = field(default_factory=Condition)
    card: CardReading | None = None
    """Of all that, as it is told; None while it is to be made anew."""
    gap: tuple[object, str | None] | None = None
    """The view's gap, and what it was found from."""
    processes: dict[int, tuple[ProcessIdentity, ProcessReading]] = field(default_factory=dict)
    """As they were last told, by pid."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Seen:
    """Memory and processes of a device, from one moment if `still`."""

    began_at: float
    taken_at: float
    memory: DeviceMemory
    processes: Mapping[int, int | None]
    processes_fault: str | None
    still: bool


class DeviceReader:
    """Reads every GPU that `nvml` lists. One thread at a time."""

    def __init__(
        self,
        nvml: Nvml,
        report: Callable[[ProbeFault | DeviceNews], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        host_view: Callable[[], HostView] = read_host_view,
    ) -> None:
        """`report` hears of each thing that cannot be read once, however long it lasts.

        Raises:
            NvmlFault: the devices cannot be listed.
        """
        self._nvml = nvml
        self._report = report
        self._clock = clock
        self._read_host_view = host_view
        self._view = host_view()
        self._devices = nvml.list_devices()
        self._versions = nvml.read_versions()
        self._slow: dict[str, _Slow] = {}
        self._slow_at: float | None = None
        self._table = ProcessTable()
        self._reported: set[tuple[str, str, str]] = set()
        self._listed: dict[str, int] = {}
        """Device to what was in use when every list of its processes was read."""
        self._lost: dict[str, float] = {}
        """Device that does not answer to since when."""
        self._relisted_at = clock()
        self.relisted = 0
        """How often a lost card was found again: what was opened for it before is stale."""

    @property
    def devices(self) -> tuple[Device, ...]:
        return self._devices

    def read(self) -> list[DeviceReading]:
        """A reading of each device that answers."""
        now = self._clock()
        slow_turn = self._slow_at is None or now - self._slow_at >= SLOW_S
        if slow_turn:
            self._slow_at = now
            self._view = self._read_host_view()
        self._look_for_lost(now)
        seen: dict[str, _Seen] = {}
        for device in self._devices:
            try:
                seen[device.device_id] = self._look(device, slow_turn)
            except NvmlFault as fault:
                self._failed(device, fault)
        pids = {pid for found in seen.values() for pid in found.processes}
        if slow_turn or not all(self._table.knows(pid) for pid in pids):
            self._table.refresh(pids)
        readings = []
        for device in self._devices:
            if device.device_id not in seen:
                continue
            try:
                readings.append(self._describe_device(device, seen[device.device_id], slow_turn))
            except NvmlFault as fault:
                self._failed(device, fault)
            else:
                self._answered(device)
        return readings

    def condition_changed(self, device_id: str) -> None:
        """The driver announced it: read that card's condition with the next reading."""
        if (slow := self._slow.get(device_id)) is not None:
            slow.condition_at = None

    # ----------------------------------------------------------------- memory and processes

    def _look(self, device: Device, slow_turn: bool) -> _Seen:
        """Memory before and after the processes, until nothing moved in between.

        Nobody comes to a card, or leaves it, without its used bytes moving: while they do not, those who
        draw or go through MPS are listed once a second only.
        """
        before = self._nvml.read_memory(device)
        every = slow_turn or before.used_bytes != self._listed.get(device.device_id)
        for _ in range(TRIES):
            began_at = self._clock()
            processes, fault = self._read_processes(device, every)
            after = self._nvml.read_memory(device)
            still = before.used_bytes == after.used_bytes
            if every:
                self._listed[device.device_id] = before.used_bytes
            every = True
            seen = _Seen(
                began_at=began_at,
                taken_at=self._clock(),
                memory=after,
                processes=processes,
                processes_fault=fault,
                still=still,
            )
            if still:
                break
            before = after
        return seen

    def _read_processes(self, device: Device, every: bool) -> tuple[Mapping[int, int | None], str | None]:
        try:
            return self._nvml.read_processes(device, every_list=every), None
        except NvmlFault as fault:
            if fault.kind == "gpu_lost":
                raise
            self._fault("processes_unknown", device, fault.detail)
            return {}, fault.detail

    def _describe_device(self, device: Device, seen: _Seen, slow_turn: bool) -> DeviceReading:
        slow = self._slow.get(device.device_id)
        if slow is None:
            slow = _Slow(
                reserved_inside_used=is_reserved_inside_used(seen.memory),
                identity=self._nvml.read_identity(device),
            )
            self._slow[device.device_id] = slow
        if slow_turn or slow.read_at is None or slow.condition_at is None:
            self._read_slow(device, slow)
        return DeviceReading(
            began_at=seen.began_at,
            taken_at=seen.taken_at,
            still=seen.still,
            device_id=device.device_id,
            index=device.index,
            name=device.name,
            total_bytes=seen.memory.total_bytes,
            used_bytes=seen.memory.used_bytes,
            reserved_bytes=seen.memory.reserved_bytes,
            reserved_inside_used=slow.reserved_inside_used,
            free_bytes=seen.memory.free_bytes,
            processes=self._describe(slow, seen.processes),
            processes_fault=seen.processes_fault,
            view_gap=self._view_gap(slow, self._nvml.refused_lists(device), seen.processes_fault),
            slow_at=slow.read_at,
            utilisation_percent=slow.utilisation_percent,
            temperature_c=slow.temperature_c,
            power_w=slow.power_w,
            card=self._card_of(slow),
        )

    def _view_gap(self, slow: _Slow, refused: tuple[str, ...], unreadable: str | None) -> str | None:
        asked = (self._view, slow.condition.mig_mode, refused, unreadable)
        if slow.gap is None or slow.gap[0] != asked:
            card = CardView(
                mig_mode=slow.condition.mig_mode,
                coherent_memory=slow.identity.coherent_memory,
                virtual=slow.identity.virtual,
                refused_lists=refused,
                unreadable=unreadable,
            )
            slow.gap = (asked, view_gap(self._view, card))
        return slow.gap[1]

    def _card_of(self, slow: _Slow) -> CardReading:
        """Made anew only when something of it was read."""
        if slow.card is None:
            slow.card = CardReading(
                driver_version=self._versions.driver,
                nvml_version=self._versions.nvml,
                pci_bus_id=slow.identity.pci_bus_id,
                graphics_clock_mhz=slow.clocks.graphics_mhz,
                memory_clock_mhz=slow.clocks.memory_mhz,
                clock_limits=slow.clocks.limits,
                condition_at=slow.condition_at,
                ecc_uncorrected=slow.condition.ecc_uncorrected,
                persistence_mode=slow.condition.persistence_mode,
                mig_mode=slow.condition.mig_mode,
                display_active=slow.condition.display_active,
                recovery_action=slow.condition.recovery_action,
            )
        return slow.card

    def _describe(self, slow: _Slow, processes: Mapping[int, int | None]) -> tuple[ProcessReading, ...]:
        """By pid; one that is as it was is told as it was."""
        told: dict[int, tuple[ProcessIdentity, ProcessReading]] = {}
        for pid in sorted(processes):
            who, num_bytes = self._table.get(pid), processes[pid]
            known = slow.processes.get(pid)
            if known is not None and known[0] is who and known[1].bytes == num_bytes:
                told[pid] = known
                continue
            reading = ProcessReading(
                pid=pid,
                bytes=num_bytes,
                user=who.user,
                name=who.name,
                command=who.command,
                started_at=who.started_at,
                start_time=who.start_time,
                container=who.container,
            )
            told[pid] = (who, reading)
        slow.processes = told
        return tuple(reading for _who, reading in told.values())

    # ----------------------------------------------------------------- what moves slowly

    def _read_slow(self, device: Device, slow: _Slow) -> None:
        slow.read_at = now = self._clock()
        slow.card = None
        slow.utilisation_percent = self._nvml.read_utilisation_percent(device)
        slow.temperature_c = self._nvml.read_temperature_c(device)
        slow.power_w = self._nvml.read_power_w(device)
        slow.clocks = self._nvml.read_clocks(device)
        if slow.condition_at is not None and now - slow.condition_at < CONDITION_S:
            return
        before, slow.condition = slow.condition, self._nvml.read_condition(device)
        slow.condition_at = now
        action = slow.condition.recovery_action
        # A card that is well at the start is no news; one that is not, is.
        if action is not None and action != (before.recovery_action or "none"):
            news = DeviceNews(
                device_id=device.device_id, kind="recovery_action", detail=f"the driver advises: {action}"
            )
            self._report(news)

    # ----------------------------------------------------------------- faults

    def _failed(self, device: Device, fault: NvmlFault) -> None:
        self._lost.setdefault(device.device_id, self._clock())
        self._fault(fault.kind, device, fault.detail)

    def _fault(self, kind: str, device: Device, detail: str) -> None:
        if (kind, device.device_id, detail) not in self._reported:
            self._reported.add((kind, device.device_id, detail))
            text = f"{device.device_id} (index {device.index}): {detail}"
            self._report(ProbeFault(kind=kind, detail=text, device_id=device.device_id))

    def _answered(self, device: Device) -> None:
        lost_at = self._lost.pop(device.device_id, None)
        if lost_at is None:
            return
        # It may be lost again, which is another loss.
        self._reported = {said for said in self._reported if said[1] != device.device_id}
        self._slow.pop(device.device_id, None)
        self._listed.pop(device.device_id, None)
        self._report(
            DeviceNews(
                device_id=device.device_id,
                kind="back",
                detail=f"answers again, after {self._clock() - lost_at:.0f} s",
            )
        )

    def _look_for_lost(self, now: float) -> None:
        """A card that comes back may have another handle."""
        if not self._lost or now - self._relisted_at < RELIST_S:
            return
        self._relisted_at = now
        try:
            found = self._nvml.list_devices()
        except NvmlFault:
            return
        back = {device.device_id for device in found} & set(self._lost)
        if back:
            self.relisted += 1
        known = {device.device_id: device for device in (*self._devices, *found)}
        self._devices = tuple(sorted(known.values(), key=lambda device: device.index))
