"""The causal convolution of 3 x 3 x 3 as a matrix product whose left side is never written.

A program makes some places of one frame with all their outputs. For each of the 27 taps, and each
piece of the input channels, the copy engine brings the tile of places that the tap sees, with zeros
beyond the edges, and the tap's weights; sums are fp32. cuDNN does best where channels are many: of 96
to 96 channels, a third of the decoder's work, it reached 249 TFLOP/s on an H200 where it reached
538 of 192 to 192.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

TAPS = 27
FASTER_THAN_CUDNN = frozenset({(96, 96)})
"""Channels in and out of the convolutions of the Wan2.1 VAE that cuDNN does worst."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """How the work is cut and run; the values do not depend on it."""

    rows: int = 8
    """Of a tile of places; times `columns` a multiple of 64."""
    columns: int = 32
    piece: int = 32
    """Input channels at once: 16, 32 or 64."""
    warps: int = 8
    stages: int = 4
    """Tiles that are under way at once."""


def suits(whole_THWC: Tensor, weight: Tensor) -> bool:
    """Whether this kernel is the faster way: the copy engine is that of compute capability 9.0."""
    if whole_THWC.dtype not in (torch.bfloat16, torch.float16) or weight.shape[2:] != (3, 3, 3):
        return False
    outputs, channels = weight.shape[:2]
    if (channels, outputs) not in FASTER_THAN_CUDNN:
        return False
    return torch.cuda.get_device_capability(whole_THWC.device) >= (9, 0)


def causal_conv(
    whole_THWC: Tensor,
    weight: Tensor,
    bias_O: Tensor,
    residual_THWO: Tensor | None = None,
    launch: Launch | None = None,
) -> Tensor:
    """[T, H, W, O] of [2 + T, H, W, C], contiguous: the convolution + bias + residual, each sum rounded.

    `weight` [O, C, 3, 3, 3] has its input channels together in memory; C is a multiple of
    `Launch.piece`.
    """
    launch = launch or Launch()
    frames, height, width, channels = whole_THWC.shape
    frames -= 2
    outputs = weight.shape[0]
    first, rest = split(outputs)
    flat = weight.permute(0, 2, 3, 4, 1).reshape(outputs, TAPS * channels)
    out = whole_THWC.new_empty((frames, height, width, outputs))
    places = TensorDescriptor.from_tensor(whole_THWC, [1, launch.rows, launch.columns, launch.piece])
    down, across = triton.cdiv(height, launch.rows), triton.cdiv(width, launch.columns)
    _causal_conv[(frames * down * across,)](
        places,
        TensorDescriptor.from_tensor(flat, [first, launch.piece]),
        TensorDescriptor.from_tensor(flat, [max(rest, 16), launch.piece]),
        bias_O, out if residual_THWO is None else residual_THWO, out,
        frames, across, height, width, outputs,
        CHANNELS=channels, PIECE=launch.piece, ROWS=launch.rows, COLUMNS=launch.columns,
        FIRST=first, REST=rest, RESIDUAL=residual_THWO is not None,
        num_warps=launch.warps, num_stages=launch.stages, enable_fp_fusion=False,
    )  # fmt: skip
    return out


def split(outputs: int) -> tuple[int, int]:
    """Two powers of two, the second perhaps 0, that hold so many outputs and are not much more."""
    whole: int = triton.next_power_of_2(outputs)
    if outputs <= 16:
        return 16, 0
    half = whole // 2
    rest = max(16, triton.next_power_of_2(outputs - half))
    return (half, rest) if half + rest < whole else (whole, 0)


@triton.jit
def _finish(
    acc, bias_ptr, residual_ptr, out_ptr, at, inside, outputs,
    FROM: tl.constexpr, COUNT: tl.constexpr, RESIDUAL: tl.constexpr,
):  # fmt: skip
    channel = FROM + tl.arange(0, COUNT)
    bias = tl.load(bias_ptr + channel, mask=channel < outputs, other=0.0).to(tl.float32)
    kind = out_ptr.dtype.element_ty
    y = (acc.to(kind).to(tl.float32) + bias[None, :]).to(kind)
    where = at[:, None] * outputs + channel[None, :]
    mask = inside[:, None] & (channel < outputs)[None, :]
    if RESIDUAL:
        x = tl.load(residual_ptr + where, mask=mask, other=0.0)
        y = (y.to(tl.float32) + x.to(tl.float32)).to(kind)
    tl.store(out_ptr + where, y, mask=mask)


@triton.jit
def _causal_conv(
    places_desc, first_desc, rest_desc, bias_ptr, residual_ptr, out_ptr,
    frames, across, height, width, outputs,
    CHANNELS: tl.constexpr, PIECE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    FIRST: tl.constexpr, REST: tl.constexpr, RESIDUAL: tl.constexpr,
):  # fmt: skip
    # Frames of one place follow each other: they share most of what they read.
    tile = tl.program_id(0) // frames
    frame = tl.program_id(0) % frames
    top = tile // across * ROWS
    left = tile % across * COLUMNS
    PLACES: tl.constexpr = ROWS * COLUMNS
    PIECES: tl.constexpr = CHANNELS // PIECE
    acc = tl.zeros((PLACES, FIRST), dtype=tl.float32)
    more = tl.zeros((PLACES, REST if REST > 0 else 16), dtype=tl.float32)
    for step in range(27 * PIECES):
        tap = step // PIECES
        across_tap = tap % 3 - 1
        down_tap = tap // 3 % 3 - 1
        x = places_desc.load([frame + tap // 9, top + down_tap, left + across_tap, step % PIECES * PIECE])
        x = x.reshape(PLACES, PIECE)
        acc = tl.dot(x, first_desc.load([0, step * PIECE]).T, acc)
        if REST > 0:
            more = tl.dot(x, rest_desc.load([FIRST, step * PIECE]).T, more)
    place = tl.arange(0, PLACES)
    row, column = top + place // COLUMNS, left + place % COLUMNS
    inside = (row < height) & (column < width)
    at = (frame.to(tl.int64) * height + row) * width + column
    _finish(acc, bias_ptr, residual_ptr, out_ptr, at, inside, outputs, 0, FIRST, RESIDUAL)
    if REST > 0:
        _finish(more, bias_ptr, residual_ptr, out_ptr, at, inside, outputs, FIRST, REST, RESIDUAL)
