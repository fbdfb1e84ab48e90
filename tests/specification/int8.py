"""The 8-bit linear layer: weights and activations in blocks of 128 by 128, one scale for each block."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 128
LEVELS = 128.0
"""Not 127: the largest magnitude of a block becomes 128, which saturates to 127 where it is positive."""
LEAST = 1e-8


class Quantised(NamedTuple):
    """`values` int8 [rows, columns]; `scale` fp32 [rows/128, columns/128], both rounded up."""

    values: Tensor
    scale: Tensor


def quantise(matrix: Tensor) -> Quantised:
    """Any floating [rows, columns]; blocks at the edges are smaller."""
    rows, columns = matrix.shape
    matrix = matrix.float()
    values = torch.empty(rows, columns, dtype=torch.int8)
    scale = torch.empty(-(-rows // BLOCK), -(-columns // BLOCK))
    for i in range(scale.shape[0]):
        for j in range(scale.shape[1]):
            place = (slice(i * BLOCK, (i + 1) * BLOCK), slice(j * BLOCK, (j + 1) * BLOCK))
            largest = max(LEAST, matrix[place].abs().max().item())
            largest = torch.tensor(largest, dtype=torch.float32)
            whole = torch.round(matrix[place] * (LEVELS / largest))  # half to even
            values[place] = whole.clamp(-128, 127).to(torch.int8)
            scale[i, j] = largest / LEVELS
    return Quantised(values, scale)


def linear(x: Tensor, weight: Quantised, bias: Tensor | None) -> Tensor:
    """x [..., in] bf16 or fp16 -> [..., out] of the same dtype.

    Tokens are blocked as they lie in the flattened matrix, across samples and padding. Each tile of 128
    inputs is an exact integer product, scaled and added in fp32 in ascending order; the bias is added
    after that sum was rounded.
    """
    if x.dtype not in (torch.bfloat16, torch.float16):
        raise TypeError(f"the 8-bit linear takes bf16 or fp16, not {x.dtype}")
    flat = x.reshape(-1, x.shape[-1])
    tokens = quantise(flat)
    out = torch.zeros(flat.shape[0], weight.values.shape[0], dtype=torch.float32)
    for k in range(weight.scale.shape[1]):
        tile = slice(k * BLOCK, (k + 1) * BLOCK)
        whole = tokens.values[:, tile].int() @ weight.values[:, tile].int().T
        by_token = tokens.scale[:, k].repeat_interleave(BLOCK)[: out.shape[0], None]
        by_output = weight.scale[:, k].repeat_interleave(BLOCK)[None, : out.shape[1]]
        out += whole.float() * (by_token * by_output)
    rounded = out.to(x.dtype)
    if bias is not None:
        rounded = rounded + bias.to(x.dtype)
    return rounded.reshape(*x.shape[:-1], -1)


def dense_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The unquantised layer, in the dtype of `x`."""
    return F.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))
