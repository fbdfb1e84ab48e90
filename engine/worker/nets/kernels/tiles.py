"""Tiles of tensors as Hopper's copy engine takes them; other GPUs load the same tiles by pointers."""

# Shapes: B videos, L tokens, H heads, d the head's dimension.

from __future__ import annotations

from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor


def tokens_by_head(x_BLHd: Tensor, rows: int) -> TensorDescriptor:
    """Of tiles of `rows` tokens of one head: [B, L, H * d] in tiles of [1, rows, d]."""
    flat = x_BLHd.flatten(2)
    return TensorDescriptor(flat, list(flat.shape), list(flat.stride()), [1, rows, x_BLHd.shape[-1]])
