"""The 8-bit linear: quantise activations by blocks of 128 x 128, multiply integers, scale each tile of 128.

Source: TurboDiffusion turbodiffusion/ops (quant and gemm); what is rounded when is as there.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from engine.worker.nets.kernels import int8_hopper

BLOCK = 128
GROUP = 8
"""Rows of tiles that are walked together, so that their weights are still in the cache."""
QUANTISE_WARPS, GELU_WARPS = 4, 16
"""Of a program that quantises: on an H200 3.4 to 3.8 TB/s where eight had 3.0 to 3.3, and with gelu 2.2 where
they had 1.85."""
WARPS = 4
STAGES = 3
"""Few, so that two programs share a multiprocessor: one multiplies while the other scales its tile."""


def quantise(x_LK: Tensor) -> tuple[Tensor, Tensor]:
    """int8 [L, K] and fp32 scales [ceil(L/128), ceil(K/128)] of a contiguous matrix."""
    return _quantised(x_LK, gelu=False)


def gelu_quantise(x_LK: Tensor) -> tuple[Tensor, Tensor]:
    """The same of gelu(x), approximated by tanh and rounded to the dtype of x in between."""
    return _quantised(x_LK, gelu=True)


def _quantised(x_LK: Tensor, *, gelu: bool) -> tuple[Tensor, Tensor]:
    length, width = x_LK.shape
    rows, columns = triton.cdiv(length, BLOCK), triton.cdiv(width, BLOCK)
    values = torch.empty((length, width), dtype=torch.int8, device=x_LK.device)
    scale = torch.empty((rows, columns), dtype=torch.float32, device=x_LK.device)
    _quantise[(rows, columns)](
        x_LK, values, scale, length, width, GELU=gelu, BLOCK=BLOCK,
        num_warps=GELU_WARPS if gelu else QUANTISE_WARPS, enable_fp_fusion=False,
    )  # fmt: skip
    return values, scale


def linear(
    values_LK: Tensor,
    x_scale: Tensor,
    weight_NK: Tensor,
    scale: Tensor,
    bias_N: Tensor | None,
    dtype: torch.dtype,
    out_LN: Tensor | None = None,
) -> Tensor:
    """[L, N] in `dtype` (bf16 or fp16): int8 values and weights with K and N whole blocks of 128.

    Into `out_LN`, contiguous, where that is given.
    """
    if out_LN is None:
        out_LN = torch.empty((len(values_LK), len(weight_NK)), dtype=dtype, device=values_LK.device)
    multiply = int8_hopper.product(values_LK.device, dtype, tiled_linear) or tiled_linear
    multiply(values_LK, x_scale, weight_NK, scale, bias_N, out_LN)
    return out_LN


def why_tiled(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why `linear` is `tiled_linear` there and no faster kernel."""
    return int8_hopper.why_not(device, dtype, tiled_linear)


def tiled_linear(
    values_LK: Tensor,
    x_scale: Tensor,
    weight_NK: Tensor,
    scale: Tensor,
    bias_N: Tensor | None,
    out_LN: Tensor,
) -> None:
    """`linear` by Triton, on any GPU."""
    length, inputs = values_LK.shape
    outputs = len(weight_NK)
    grid = (triton.cdiv(length, BLOCK) * triton.cdiv(outputs, BLOCK),)
    tiles = (TensorDescriptor.from_tensor(x, [BLOCK, BLOCK]) for x in (values_LK, weight_NK, out_LN))
    _matmul[grid](
        *tiles, x_scale, scale, x_scale if bias_N is None else bias_N, length, outputs, inputs,
        HAS_BIAS=bias_N is not None, BLOCK=BLOCK, GROUP=GROUP, num_warps=WARPS, num_stages=STAGES,
    )  # fmt: skip


@triton.jit
def _quantise(x_ptr, values_ptr, scale_ptr, length, width, GELU: tl.constexpr, BLOCK: tl.constexpr):
    row, column = tl.program_id(0), tl.program_id(1)
    rows = row * BLOCK + tl.arange(0, BLOCK)
    columns = column * BLOCK + tl.arange(0, BLOCK)
    inside = (rows[:, None] < length) & (columns[None, :] < width)
    at = rows[:, None].to(tl.int64) * width + columns[None, :]
    stored = tl.load(x_ptr + at, mask=inside, other=0.0)
    x = stored.to(tl.float32)
    if GELU:
        # (1 + tanh(y)) / 2 = sigmoid(2 y), which loses no digits where it is small.
        x = x * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))
        x = x.to(stored.dtype).to(tl.float32)
    largest = tl.maximum(tl.max(tl.max(tl.abs(x), axis=1), axis=0), 1e-8)
    # Adding and taking away 1.5 * 2^23 rounds to the nearest whole number, half to even.
    whole = (x * tl.div_rn(128.0, largest) + 12582912.0) - 12582912.0
    values = tl.minimum(tl.maximum(whole, -128.0), 127.0).to(tl.int8)
    tl.store(values_ptr + at, values, mask=inside)
    tl.store(scale_ptr + row * tl.num_programs(1) + column, largest / 128.0)


@triton.jit
def _matmul(
    values, weights, out_tiles, x_scale_ptr, scale_ptr, bias_ptr, M, N, K,
    HAS_BIAS: tl.constexpr, BLOCK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    rows_of_tiles, columns_of_tiles = tl.cdiv(M, BLOCK), tl.cdiv(N, BLOCK)
    number = tl.program_id(0)
    group = number // (GROUP * columns_of_tiles)
    first = group * GROUP
    height = tl.minimum(rows_of_tiles - first, GROUP)
    row = first + (number % (GROUP * columns_of_tiles)) % height
    column = (number % (GROUP * columns_of_tiles)) // height

    tiles = K // BLOCK
    total = tl.zeros((BLOCK, BLOCK), dtype=tl.float32)
    for tile in tl.range(0, tiles):
        a = values.load([row * BLOCK, tile * BLOCK])
        b = weights.load([column * BLOCK, tile * BLOCK])
        scale = tl.load(x_scale_ptr + row * tiles + tile) * tl.load(scale_ptr + column * tiles + tile)
        total += tl.dot(a, b.T, out_dtype=tl.int32).to(tl.float32) * scale
    out = total.to(out_tiles.dtype)
    if HAS_BIAS:
        # After the sum was rounded, as a second rounding.
        bias = tl.load(bias_ptr + column * BLOCK + tl.arange(0, BLOCK))[None, :].to(out.dtype)
        out = (out.to(tl.float32) + bias.to(tl.float32)).to(out.dtype)
    out_tiles.store([row * BLOCK, column * BLOCK], out)
