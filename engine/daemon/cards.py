"""What is known of each GPU beside its memory, with the age of each: its state, its faults, its news.

Event loop's thread only.
"""

from __future__ import annotations

import time
from dataclasses import replace

from engine.telemetry.samples import DeviceNews, DeviceReading, ProbeFault
from engine.units import size_text
from engine.wire import Balance, CardStatus, DeviceProcess, DeviceStatus, DeviceView


class Cards:
    """Keeps the newest of each device."""

    def __init__(self) -> None:
        self._shown: dict[str, DeviceReading] = {}
        """What each device's status was made of."""
        self._faults: dict[str, str] = {}
        self._xids: dict[str, tuple[DeviceNews, float]] = {}

    def heard(self, reading: DeviceReading) -> None:
        """A device that is read has no fault."""
        self._faults.pop(reading.device_id, None)

    def heard_fault(self, fault: ProbeFault) -> bool:
        """Whether a device stopped being read."""
        if fault.device_id is None or fault.kind == "processes_unknown":
            return False  # its memory is read all the same, and the readings say what is missing
        self._faults[fault.device_id] = f"{fault.kind}: {fault.detail}"
        return True

    def heard_news(self, news: DeviceNews) -> None:
        """An Xid stays until the next: a card that had one is not the card that it was."""
        if news.kind == "xid":
            self._xids[news.device_id] = (news, time.monotonic())

    def described(
        self,
        reading: DeviceReading,
        *,
        in_use: bool,
        tenant: str | None,
        balance: Balance,
        processes: tuple[DeviceProcess, ...],
    ) -> DeviceStatus:
        """A device by one of its readings."""
        self._shown[reading.device_id] = reading
        status = DeviceStatus(
            id=reading.device_id,
            kind="cuda",
            index=reading.index,
            name=reading.name,
            total_bytes=reading.total_bytes,
            in_use=in_use,
            tenant=tenant,
            balance=balance,
            processes=processes,
            processes_fault=reading.processes_fault,
            utilisation_percent=reading.utilisation_percent,
            temperature_c=reading.temperature_c,
            power_w=reading.power_w,
            view=DeviceView(complete=reading.view_gap is None, reason=reading.view_gap),
            reserved_inside_used=None if reading.reserved_bytes is None else reading.reserved_inside_used,
        )
        return self._with_ages(status, reading)

    def aged(self, status: DeviceStatus, *, host_at: float | None = None) -> DeviceStatus:
        """`status` with every age as of now; `host_at` is when the host was read."""
        reading = self._shown.get(status.id)
        if reading is not None:
            return self._with_ages(status, reading)
        return replace(status, age_s=_age(host_at, time.monotonic()))

    def _with_ages(self, status: DeviceStatus, reading: DeviceReading) -> DeviceStatus:
        now = time.monotonic()
        card, xid = reading.card, self._xids.get(reading.device_id)
        return replace(
            status,
            age_s=_age(reading.taken_at, now),
            slow_age_s=_age(reading.slow_at, now),
            fault=self._faults.get(reading.device_id),
            card=CardStatus(
                driver_version=card.driver_version,
                nvml_version=card.nvml_version,
                pci_bus_id=card.pci_bus_id,
                graphics_clock_mhz=card.graphics_clock_mhz,
                memory_clock_mhz=card.memory_clock_mhz,
                clock_limits=card.clock_limits,
                ecc_uncorrected=card.ecc_uncorrected,
                persistence_mode=card.persistence_mode,
                mig_mode=card.mig_mode,
                display_active=card.display_active,
                recovery_action=card.recovery_action,
                condition_age_s=_age(card.condition_at, now),
                xid=xid[0].number if xid else None,
                xid_text=xid[0].detail if xid else None,
                xid_age_s=_age(xid[1], now) if xid else None,
            ),
        )


def introduction(reading: DeviceReading) -> str:
    """A device's line in the log when it is first read: what holds of its driver here."""
    card = reading.card
    if reading.reserved_bytes is None:
        reserve = "its driver does not tell its own reserve"
    else:
        where = "inside" if reading.reserved_inside_used else "outside"
        reserve = f"the driver's reserve of {size_text(reading.reserved_bytes)} lies {where} of used"
    view = reading.view_gap or "every process that holds it can be seen"
    versions = f"driver {card.driver_version or '?'}, NVML {card.nvml_version or '?'}"
    return f"{reading.device_id} (index {reading.index}, {reading.name}): {versions}; {reserve}; {view}"


def _age(at: float | None, now: float) -> float | None:
    return None if at is None else round(now - at, 3)
