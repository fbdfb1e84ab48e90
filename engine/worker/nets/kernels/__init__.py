"""Triton kernels for the hot parts of the nets; each has a PyTorch twin with the same meaning beside the net.

Tests compare the two, on the CPU through Triton's interpreter (TRITON_INTERPRET=1 before its import).
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import lru_cache
from typing import Any

import torch


@lru_cache
def usable(device: torch.device) -> bool:
    """Whether the kernels run there: on a GPU of compute capability 8.0 or later."""
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


@lru_cache
def row_kernels() -> Any:
    """The kernels over tokens' rows; importing Triton takes a while, so only where they are used."""
    return importlib.import_module("engine.worker.nets.kernels.rows")


@lru_cache
def int8_kernels() -> Any:
    """The kernels of the 8-bit linear."""
    return importlib.import_module("engine.worker.nets.kernels.int8")


@lru_cache
def sparse_kernels() -> Any:
    """The kernel of sparse attention."""
    return importlib.import_module("engine.worker.nets.kernels.sparse")


@lru_cache
def linear_attention_kernels() -> Any:
    """The kernels of linear attention."""
    return importlib.import_module("engine.worker.nets.kernels.linear_attention")


@lru_cache
def block_kernels() -> Any:
    """The kernels of means of blocks."""
    return importlib.import_module("engine.worker.nets.kernels.blocks")


@lru_cache
def sage_kernels() -> Any:
    """The kernels of SageSLA's sparse part."""
    return importlib.import_module("engine.worker.nets.kernels.sage")


@lru_cache
def frame_kernels() -> Any:
    """The kernels over the VAE's frames."""
    return importlib.import_module("engine.worker.nets.kernels.frames")


@lru_cache
def conv_kernels() -> Any:
    """The kernel of the VAE's causal convolution."""
    return importlib.import_module("engine.worker.nets.kernels.causal_conv")
