"""How NVML is called: its errors as faults with a stable kind, and None for what a card does not tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, TypeVar

import pynvml

FaultKind: TypeAlias = Literal[
    "nvml_missing",  # no libnvidia-ml here: no NVIDIA driver, or a container without it
    "nvml_driver",  # the library is there, the driver does not answer it
    "gpu_lost",  # fell off the bus or must be reset
    "not_supported",
    "no_permission",
    "timeout",  # nothing was announced, which is the normal case
    "nvml_error",
]
Value = TypeVar("Value")


class NvmlFault(Exception):
    """Something that NVML would not tell, with a stable kind."""

    def __init__(self, kind: FaultKind, detail: str) -> None:
        self.kind: FaultKind = kind
        self.detail = detail
        super().__init__(f"{kind}: {detail}")


def call(function: Callable[..., Value], *arguments: Any, **options: Any) -> Value:
    """The driver's answer.

    Raises:
        NvmlFault: it has none.
    """
    try:
        return function(*arguments, **options)
    except pynvml.NVMLError as error:
        raise NvmlFault(_kind(error), str(error)) from None


def optional(function: Callable[..., Value], *arguments: Any) -> Value | None:
    """The value, or None where this card or driver will not tell it; a lost card is still a fault."""
    try:
        return call(function, *arguments)
    except NvmlFault as fault:
        if fault.kind == "gpu_lost":
            raise
        return None


def text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


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
        case pynvml.NVML_ERROR_TIMEOUT:
            return "timeout"
        case _:
            return "nvml_error"
