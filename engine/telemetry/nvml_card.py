"""What NVML tells of a card beside its memory: clocks, condition, identity. Every value may be None.

Nothing here is needed for the balance, so nothing here is read ten times a second. PCIe throughput
is never read: one call takes 20 ms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pynvml

from engine.telemetry.nvml_calls import optional, text

CLOCK_LIMITS = (
    # nvmlClocksEventReasonGpuIdle (0x1) is no limit: an idle card clocks down because it is idle.
    (0x002, "clocks set by a user"),
    (0x004, "power cap"),
    (0x008, "hardware slowdown"),
    (0x010, "sync boost"),
    (0x020, "thermal, by software"),
    (0x040, "thermal, by hardware"),
    (0x080, "power brake"),
    (0x100, "display clocks"),
    (0x200, "board limit"),
    (0x400, "reliability voltage"),
)
"""Bits of the clock event reasons. Source: nvml.h, nvmlClocksEventReasons and its older twin."""
IDLE = 0x001
RECOVERY_ACTIONS = {
    0: "none",
    1: "reset the GPU",
    2: "reboot the node",
    3: "drain peer-to-peer work",
    4: "drain, then reset the GPU",
    5: "recover the IMEX domain",
    6: "reset the bus",
    7: "reboot the system",
}
"""Source: nvml.h, nvmlDeviceGpuRecoveryAction_t."""
_VGPU_MODES = (pynvml.NVML_GPU_VIRTUALIZATION_MODE_VGPU, pynvml.NVML_GPU_VIRTUALIZATION_MODE_HOST_VGPU)


@dataclass(frozen=True, kw_only=True, slots=True)
class Clocks:
    """How fast the card runs now, and what keeps it from running faster."""

    graphics_mhz: int | None = None
    memory_mhz: int | None = None
    limits: tuple[str, ...] | None = None
    """In words; empty: nothing limits it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """What changes seldom: read every few seconds."""

    ecc_uncorrected: int | None = None
    """Errors that ECC could not correct since the driver was loaded."""
    persistence_mode: bool | None = None
    mig_mode: bool | None = None
    display_active: bool | None = None
    recovery_action: str | None = None
    """What the driver itself advises, in words; `none` when it is well."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CardIdentity:
    """What does not change while the driver runs."""

    pci_bus_id: str | None = None
    coherent_memory: bool | None = None
    """Whether its memory is a NUMA node of the host (GH200, GB200), kept by the kernel and not the driver."""
    virtual: bool | None = None
    """Whether it is, or carries, a vGPU."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Versions:
    driver: str | None = None
    nvml: str | None = None


def read_versions() -> Versions:
    driver = optional(pynvml.nvmlSystemGetDriverVersion)
    nvml = optional(pynvml.nvmlSystemGetNVMLVersion)
    return Versions(
        driver=None if driver is None else text(driver), nvml=None if nvml is None else text(nvml)
    )


def read_clocks(handle: Any) -> Clocks:
    return Clocks(
        graphics_mhz=_number(optional(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_GRAPHICS)),
        memory_mhz=_number(optional(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_MEM)),
        limits=_clock_limits(handle),
    )


def read_condition(handle: Any) -> Condition:
    mig = optional(pynvml.nvmlDeviceGetMigMode, handle)
    return Condition(
        ecc_uncorrected=_number(
            optional(
                pynvml.nvmlDeviceGetTotalEccErrors,
                handle,
                pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
                pynvml.NVML_VOLATILE_ECC,
            )
        ),
        persistence_mode=_flag(optional(pynvml.nvmlDeviceGetPersistenceMode, handle)),
        mig_mode=None if mig is None else bool(mig[0]),
        display_active=_flag(optional(pynvml.nvmlDeviceGetDisplayActive, handle)),
        recovery_action=_recovery_action(handle),
    )


def read_identity(handle: Any) -> CardIdentity:
    pci = optional(pynvml.nvmlDeviceGetPciInfo, handle)
    virtualization = optional(pynvml.nvmlDeviceGetVirtualizationMode, handle)
    addressing = optional(pynvml.nvmlDeviceGetAddressingMode, handle)
    return CardIdentity(
        pci_bus_id=None if pci is None else text(pci.busId),
        coherent_memory=None if addressing is None else addressing == pynvml.NVML_DEVICE_ADDRESSING_MODE_ATS,
        virtual=None if virtualization is None else virtualization in _VGPU_MODES,
    )


def limits_in_words(reasons: int) -> tuple[str, ...]:
    """The bits of the clock event reasons as words; a bit that is new here is told by its number."""
    words = [word for bit, word in CLOCK_LIMITS if reasons & bit]
    unknown = reasons & ~(IDLE | sum(bit for bit, _ in CLOCK_LIMITS))
    return (*words, f"reason {unknown:#x}") if unknown else tuple(words)


def _clock_limits(handle: Any) -> tuple[str, ...] | None:
    reasons = optional(pynvml.nvmlDeviceGetCurrentClocksEventReasons, handle)
    if reasons is None:  # drivers before 535 have it by its older name only
        reasons = optional(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle)
    return None if reasons is None else limits_in_words(int(reasons))


def _recovery_action(handle: Any) -> str | None:
    values = optional(pynvml.nvmlDeviceGetFieldValues, handle, [pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION])
    # Each field has a result of its own: the call succeeds on a driver that does not know this one.
    if not values or values[0].nvmlReturn != pynvml.NVML_SUCCESS:
        return None
    found = int(values[0].value.uiVal)
    return RECOVERY_ACTIONS.get(found, f"action {found}")


def _number(value: Any) -> int | None:
    return None if value is None else int(value)


def _flag(value: Any) -> bool | None:
    return None if value is None else bool(value)
