"""Whether the 8-bit linear's own kernel for Hopper computes here: where it compiles and answers right.

The same numbers as the one by Triton, with fewer pauses; `int8_gluon` says how.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

CAPABILITY = (9, 0)
"""No other has these instructions: they went as they came."""
BLOCK = 128
ENOUGH = {torch.bfloat16: 0.999, torch.float16: 0.99}
"""Share of rounded numbers that must be those of the kernel by Triton: fp32's last digits move few."""
DEVICE_ERRORS = (torch.OutOfMemoryError, getattr(torch, "AcceleratorError", torch.OutOfMemoryError))
"""Memory that is short, or a device that is lost."""

Linear = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor], None]
"""Values, their scales, weights, theirs, a bias, and what is written into."""


def product(device: torch.device, dtype: torch.dtype, other: Linear) -> Linear | None:
    """The kernel, where the device has it and its answers are those of `other`."""
    found = _tried(device, dtype, other)
    return None if isinstance(found, str) else found


def why_not(device: torch.device, dtype: torch.dtype, other: Linear) -> str | None:
    """Why `product` has none."""
    found = _tried(device, dtype, other)
    return found if isinstance(found, str) else None


@lru_cache
def _tried(device: torch.device, dtype: torch.dtype, other: Linear) -> Linear | str:
    if device.type != "cuda" or torch.version.hip is not None:
        return "it is written for GPUs of NVIDIA"
    if (capability := torch.cuda.get_device_capability(device)) != CAPABILITY:
        major, minor = capability
        return f"it is written for compute capability 9.0, and this GPU has {major}.{minor}"
    if dtype not in ENOUGH:
        return f"it computes bf16 and fp16, not {dtype}"
    try:
        found: Linear = importlib.import_module("engine.worker.nets.kernels.int8_gluon").linear
        same = _agreement(found, other, device, dtype)
    except DEVICE_ERRORS:
        raise  # which says nothing of the kernel: the next product tries again
    except Exception as error:  # Gluon is not yet the same in every release of Triton
        words = str(error).strip().splitlines() or [""]
        return f"it cannot be compiled by this Triton ({type(error).__name__}: {words[-1]})"
    if same < ENOUGH[dtype]:
        return f"only {same:.2%} of its answers are those of the kernel by Triton"
    return found


def _agreement(found: Linear, other: Linear, device: torch.device, dtype: torch.dtype) -> float:
    """Share of equal numbers where tiles are whole and where they are not."""
    length, outputs, inputs = 2 * BLOCK + 72, 3 * BLOCK, 5 * BLOCK
    source = torch.Generator().manual_seed(0)

    def whole(rows: int) -> Tensor:
        return torch.randint(-128, 128, (rows, inputs), generator=source).to(device, torch.int8)

    def scales(rows: int) -> Tensor:
        return (0.5 + torch.rand((-(-rows // BLOCK), inputs // BLOCK), generator=source)).to(device) / BLOCK

    bias = torch.randn(outputs, generator=source).to(device, dtype)
    given = (whole(length), scales(length), whole(outputs), scales(outputs), bias)
    mine, theirs = (torch.full((length, outputs), torch.nan, dtype=dtype, device=device) for _ in range(2))
    found(*given, mine)
    other(*given, theirs)
    return (mine == theirs).float().mean().item()
