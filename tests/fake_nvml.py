"""A driver that a test can script; it passes the same contract test as the real one."""

from __future__ import annotations

import queue
from dataclasses import dataclass, field

from engine.telemetry.nvml import Device, DeviceMemory, NvmlFault
from engine.telemetry.nvml_card import CardIdentity, Clocks, Condition, Versions
from engine.telemetry.nvml_events import NvmlEvent

GIB = 2**30
CLOCKS = Clocks(graphics_mhz=1980, memory_mhz=3201, limits=("power cap",))
WELL = Condition(
    ecc_uncorrected=0, persistence_mode=True, mig_mode=False, display_active=False, recovery_action="none"
)
IDENTITY = CardIdentity(pci_bus_id="00000000:1A:00.0", coherent_memory=False, virtual=False)


@dataclass
class FakeCard:
    """A GPU of a total size, a driver's reserve and processes; used follows from them."""

    device: Device
    total_bytes: int = 80 * GIB
    reserved_bytes: int | None = GIB // 2
    unseen_bytes: int = 0
    processes: dict[int, int | None] = field(default_factory=dict)
    temperature_c: int | None = 40
    fault: NvmlFault | None = None
    """Raised by everything that is asked of the card."""
    processes_fault: NvmlFault | None = None
    """Raised by its list of processes alone."""
    refused_lists: tuple[str, ...] = ()
    clocks: Clocks = CLOCKS
    condition: Condition = WELL
    identity: CardIdentity = IDENTITY
    announces: bool = True

    @property
    def used_bytes(self) -> int:
        return self.unseen_bytes + sum(num_bytes or 0 for num_bytes in self.processes.values())


class FakeNvml:
    """Implements `engine.telemetry.nvml.Nvml`."""

    def __init__(self, *cards: FakeCard) -> None:
        self.cards = {card.device.device_id: card for card in cards}
        self.slow_reads = 0
        self.condition_reads = 0
        self.listings = 0
        self.whole_listings = 0
        """Readings of processes by every list that a driver has."""
        self.closed = False
        self.announced: queue.SimpleQueue[NvmlEvent | NvmlFault] = queue.SimpleQueue()

    def list_devices(self) -> tuple[Device, ...]:
        self.listings += 1
        return tuple(card.device for card in self.cards.values() if card.fault is None)

    def read_memory(self, device: Device) -> DeviceMemory:
        card = self._card(device)
        free = card.total_bytes - card.used_bytes - (card.reserved_bytes or 0)
        return DeviceMemory(
            total_bytes=card.total_bytes,
            used_bytes=card.used_bytes,
            free_bytes=free,
            reserved_bytes=card.reserved_bytes,
        )

    def read_processes(self, device: Device, *, every_list: bool = True) -> dict[int, int | None]:
        card = self._card(device)
        self.whole_listings += every_list
        if card.processes_fault is not None:
            raise card.processes_fault
        return dict(card.processes)

    def refused_lists(self, device: Device) -> tuple[str, ...]:
        return self._card(device).refused_lists

    def read_utilisation_percent(self, device: Device) -> int | None:
        self.slow_reads += 1
        return 50 if self._card(device) else None

    def read_temperature_c(self, device: Device) -> int | None:
        return self._card(device).temperature_c

    def read_power_w(self, device: Device) -> float | None:
        return 300.5 if self._card(device) else None

    def read_clocks(self, device: Device) -> Clocks:
        return self._card(device).clocks

    def read_condition(self, device: Device) -> Condition:
        self.condition_reads += 1
        return self._card(device).condition

    def read_identity(self, device: Device) -> CardIdentity:
        return self._card(device).identity

    def read_versions(self) -> Versions:
        return Versions(driver="580.159.04", nvml="13.580.159.04")

    def open_events(self) -> FakeEvents:
        return FakeEvents(
            frozenset(device_id for device_id, card in self.cards.items() if card.announces), self.announced
        )

    def close(self) -> None:
        self.closed = True

    def _card(self, device: Device) -> FakeCard:
        card = self.cards[device.device_id]
        if card.fault is not None:
            raise card.fault
        return card


class FakeEvents:
    """Implements `engine.telemetry.nvml_events.NvmlEvents`; a test puts into the queue what comes."""

    def __init__(
        self, device_ids: frozenset[str], announced: queue.SimpleQueue[NvmlEvent | NvmlFault]
    ) -> None:
        self.device_ids = device_ids
        self._announced = announced

    def wait(self, timeout_s: float) -> NvmlEvent | None:
        try:
            found = self._announced.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if isinstance(found, NvmlFault):
            raise found
        return found

    def close(self) -> None:
        self.device_ids = frozenset()


def card(number: int = 0, **changes: object) -> FakeCard:
    """A card with a UUID made of `number`."""
    device = Device(device_id=f"GPU-{number:08d}-0000-4000-8000-000000000000", index=number, name="Fake 80GB")
    return FakeCard(device=device, **changes)  # type: ignore[arg-type]
