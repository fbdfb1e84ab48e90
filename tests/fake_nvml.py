"""A driver that a test can script; it passes the same contract test as the real one."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.telemetry.nvml import Device, DeviceMemory, NvmlFault

GIB = 2**30


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

    @property
    def used_bytes(self) -> int:
        return self.unseen_bytes + sum(num_bytes or 0 for num_bytes in self.processes.values())


class FakeNvml:
    """Implements `engine.telemetry.nvml.Nvml`."""

    def __init__(self, *cards: FakeCard) -> None:
        self.cards = {card.device.device_id: card for card in cards}
        self.slow_reads = 0
        self.closed = False

    def list_devices(self) -> tuple[Device, ...]:
        return tuple(card.device for card in self.cards.values())

    def read_memory(self, device: Device) -> DeviceMemory:
        card = self._card(device)
        free = card.total_bytes - card.used_bytes - (card.reserved_bytes or 0)
        return DeviceMemory(
            total_bytes=card.total_bytes,
            used_bytes=card.used_bytes,
            free_bytes=free,
            reserved_bytes=card.reserved_bytes,
        )

    def read_processes(self, device: Device) -> dict[int, int | None]:
        return dict(self._card(device).processes)

    def read_utilisation_percent(self, device: Device) -> int | None:
        self.slow_reads += 1
        return 50 if self._card(device) else None

    def read_temperature_c(self, device: Device) -> int | None:
        return self._card(device).temperature_c

    def read_power_w(self, device: Device) -> float | None:
        return 300.5 if self._card(device) else None

    def close(self) -> None:
        self.closed = True

    def _card(self, device: Device) -> FakeCard:
        card = self.cards[device.device_id]
        if card.fault is not None:
            raise card.fault
        return card


def card(number: int = 0, **changes: object) -> FakeCard:
    """A card with a UUID made of `number`."""
    device = Device(device_id=f"GPU-{number:08d}-0000-4000-8000-000000000000", index=number, name="Fake 80GB")
    return FakeCard(device=device, **changes)  # type: ignore[arg-type]
