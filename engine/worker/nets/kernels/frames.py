"""Norm, SiLU, biases and residuals of frames [T, H, W, C] whose channels lie together, in one pass each.

A program takes some places with all their channels.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

NUMBERS = 2048
"""That a program takes at once."""


def rms_norm(x_THWC: Tensor, gamma_C: Tensor, out: Tensor) -> None:
    """As `frames.rms_norm`; all are contiguous."""
    channels = x_THWC.shape[-1]
    places = x_THWC.numel() // channels
    block, rows = _tile(channels)
    _rms_norm[(triton.cdiv(places, rows),)](
        x_THWC, gamma_C, out, places, channels**0.5,
        CHANNELS=channels, BLOCK=block, ROWS=rows, num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip


def norm_silu_after(
    history_KHWC: Tensor, x_THWC: Tensor, bias_C: Tensor | None, gamma_C: Tensor, into: Tensor
) -> None:
    """As `frames.norm_silu_after`; all are contiguous."""
    frames, height, width, channels = x_THWC.shape
    history, edge = len(history_KHWC), into.shape[2] - width
    # A single frame moves the history's other one along, which is another program's to read.
    exchange = frames >= history
    exchanged = frames - history if exchange else frames
    if not exchange:
        into[:history].zero_()
        into[:history, :height, :width].copy_(history_KHWC)
    block, rows = _tile(channels)
    places = (height + edge) * (width + edge)
    _norm_silu_after[(triton.cdiv(places, rows), frames)](
        history_KHWC, x_THWC, x_THWC if bias_C is None else bias_C, gamma_C, into,
        places, height, width, exchanged, channels**0.5,
        CHANNELS=channels, HISTORY=history, EDGE=edge, BIAS=bias_C is not None,
        BLOCK=block, ROWS=rows, num_warps=8, enable_fp_fusion=False,
    )  # fmt: skip
    if not exchange:
        history_KHWC.copy_(into[-history:, :height, :width])


def add_residual(y_THWC: Tensor, bias_C: Tensor | None, x_THWC: Tensor) -> None:
    """As `frames.add_residual`; both are contiguous."""
    channels = y_THWC.shape[-1]
    places = y_THWC.numel() // channels
    block, rows = _tile(channels)
    _add_residual[(triton.cdiv(places, rows),)](
        y_THWC, y_THWC if bias_C is None else bias_C, x_THWC, places,
        CHANNELS=channels, BIAS=bias_C is not None, BLOCK=block, ROWS=rows,
        num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip


def _tile(channels: int) -> tuple[int, int]:
    """Channels of a tile, a power of two, and its places."""
    block = triton.next_power_of_2(channels)
    return block, max(1, NUMBERS // block)


@triton.jit
def _normed(x, gamma, root, dtype: tl.constexpr):
    """Rounded after each of the three factors."""
    length = tl.sqrt_rn(tl.sum(x * x, axis=1))
    inverse = tl.maximum(length, 1e-12)
    y = tl.div_rn(x, tl.broadcast_to(inverse[:, None], x.shape)).to(dtype)
    y = (y.to(tl.float32) * root).to(dtype)
    return (y.to(tl.float32) * gamma[None, :]).to(dtype)


@triton.jit(do_not_specialize=["places"])
def _rms_norm(
    x_ptr, gamma_ptr, out_ptr, places, root,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    place = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, BLOCK)
    at = place[:, None] * CHANNELS + channel[None, :]
    inside = (place < places)[:, None] & (channel < CHANNELS)[None, :]
    stored = tl.load(x_ptr + at, mask=inside, other=0.0)
    gamma = tl.load(gamma_ptr + channel, mask=channel < CHANNELS, other=0.0).to(tl.float32)
    tl.store(out_ptr + at, _normed(stored.to(tl.float32), gamma, root, stored.dtype), mask=inside)


@triton.jit(do_not_specialize=["places", "height", "width", "exchanged"])
def _norm_silu_after(
    history_ptr, x_ptr, bias_ptr, gamma_ptr, into_ptr, places, height, width, exchanged, root,
    CHANNELS: tl.constexpr, HISTORY: tl.constexpr, EDGE: tl.constexpr, BIAS: tl.constexpr,
    BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    # From the frame `exchanged` on, the end of a chunk and its history change places.
    frame = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, BLOCK)
    # Of what is written, whose frames may have an edge of zeros, and of what is read.
    to = place[:, None] * CHANNELS + channel[None, :]
    inside = (place < places)[:, None] & (channel < CHANNELS)[None, :]
    to_frame = tl.full((), CHANNELS, tl.int64) * places
    at, there, at_frame = to, inside, to_frame
    if EDGE > 0:
        row, column = place // (width + EDGE), place % (width + EDGE)
        at = (row * width + column)[:, None] * CHANNELS + channel[None, :]
        there = inside & ((row < height) & (column < width))[:, None]
        at_frame = tl.full((), CHANNELS, tl.int64) * height * width
    stored = tl.load(x_ptr + frame * at_frame + at, mask=there, other=0.0)
    gamma = tl.load(gamma_ptr + channel, mask=channel < CHANNELS, other=0.0).to(tl.float32)
    x = stored.to(tl.float32)
    if BIAS:
        bias = tl.load(bias_ptr + channel, mask=channel < CHANNELS, other=0.0).to(tl.float32)
        x = tl.where(there, (x + bias[None, :]).to(stored.dtype).to(tl.float32), 0.0)
    y = _normed(x, gamma, root, stored.dtype).to(tl.float32)
    y = tl.div_rn(y, 1.0 + tl.exp(-y)).to(stored.dtype)
    if frame >= exchanged:
        # This place's history goes ahead of the chunk, and the chunk's end becomes the history.
        slot = frame - exchanged
        earlier = tl.load(history_ptr + slot * at_frame + at, mask=there, other=0.0)
        tl.store(into_ptr + slot * to_frame + to, earlier, mask=inside)
        tl.debug_barrier()
        tl.store(history_ptr + slot * at_frame + at, y, mask=there)
    tl.store(into_ptr + (frame + HISTORY) * to_frame + to, y, mask=inside)


@triton.jit(do_not_specialize=["places"])
def _add_residual(
    y_ptr, bias_ptr, x_ptr, places,
    CHANNELS: tl.constexpr, BIAS: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    place = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, BLOCK)
    at = place[:, None] * CHANNELS + channel[None, :]
    inside = (place < places)[:, None] & (channel < CHANNELS)[None, :]
    stored = tl.load(y_ptr + at, mask=inside, other=0.0)
    y = stored.to(tl.float32)
    if BIAS:
        bias = tl.load(bias_ptr + channel, mask=channel < CHANNELS, other=0.0).to(tl.float32)
        y = (y + bias[None, :]).to(stored.dtype).to(tl.float32)
    x = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(y_ptr + at, (y + x).to(stored.dtype), mask=inside)
