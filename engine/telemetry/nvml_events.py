"""What the driver announces: a critical error (Xid) on a card, a changed recovery action.

Waiting blocks, so it belongs on a thread of its own. A driver or a card without such events is the
usual case in containers and on older cards, and no fault.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import pynvml

from engine.telemetry.nvml_calls import NvmlFault, call, optional

WANTED = {
    pynvml.nvmlEventTypeXidCriticalError: "xid",
    pynvml.nvmlEventTypeGpuRecoveryAction: "recovery_action",
}
XIDS = {
    13: "a program's illegal instruction or access",
    31: "a program's illegal memory access",
    43: "a program's fault; the GPU stopped its work",
    45: "work removed early, after an earlier error",
    48: "a memory error that ECC could not correct",
    63: "a memory row is to be remapped",
    64: "remapping a memory row failed",
    74: "an NVLink error",
    79: "the GPU has fallen off the bus",
    94: "a contained memory error",
    95: "an uncontained memory error",
    119: "the GPU's system processor does not answer",
    120: "an error of the GPU's system processor",
    154: "the recovery action changed",
}
"""The ones a person meets. Source: NVIDIA's Xid catalog."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NvmlEvent:
    """One announcement."""

    device_id: str
    kind: Literal["xid", "recovery_action"]
    number: int
    """The Xid; 0 for a recovery action, which is read from the card."""


class NvmlEvents(Protocol):
    """Announcements of the cards that have any."""

    device_ids: frozenset[str]
    """Whose announcements come."""

    def wait(self, timeout_s: float) -> NvmlEvent | None:
        """The next one, or None after `timeout_s`; may raise NvmlFault."""
        ...

    def close(self) -> None: ...


class DriverEvents:
    """An event set of the driver."""

    def __init__(self, handles: Mapping[str, Any]) -> None:
        """Of the devices in `handles`, UUID to handle.

        Raises:
            NvmlFault: this driver has no event sets.
        """
        self._set = call(pynvml.nvmlEventSetCreate)
        self._devices: dict[int | None, str] = {}
        for device_id, handle in handles.items():
            try:
                supported = optional(pynvml.nvmlDeviceGetSupportedEventTypes, handle) or 0
                # A type that the card does not support would refuse all of them.
                if wanted := supported & sum(WANTED):
                    call(pynvml.nvmlDeviceRegisterEvents, handle, wanted, self._set)
                    self._devices[_address(handle)] = device_id
            except NvmlFault:
                continue  # one that is lost, or that a container may not listen to
        self.device_ids = frozenset(self._devices.values())

    def wait(self, timeout_s: float) -> NvmlEvent | None:
        try:
            data = call(pynvml.nvmlEventSetWait_v2, self._set, round(timeout_s * 1000))
        except NvmlFault as fault:
            if fault.kind == "timeout":
                return None
            raise
        device_id = self._devices.get(_address(data.device))
        kind = WANTED.get(data.eventType)
        if device_id is None or kind is None:
            return None
        number = int(data.eventData) if kind == "xid" else 0
        return NvmlEvent(device_id=device_id, kind=kind, number=number)  # type: ignore[arg-type]  # of WANTED

    def close(self) -> None:
        optional(pynvml.nvmlEventSetFree, self._set)


def xid_text(number: int) -> str:
    """`Xid 79: the GPU has fallen off the bus`."""
    return f"Xid {number}: {XIDS.get(number, 'see the Xid catalog of NVIDIA')}"


def _address(handle: Any) -> int | None:
    return ctypes.cast(handle, ctypes.c_void_p).value
