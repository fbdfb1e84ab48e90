"""The causal convolution of 3 x 3 x 3 as a matrix product whose left side is never written.

A program makes some places of one frame with all their outputs. For each of the 27 taps, and each
piece of the input channels, the copy engine brings the places that the tap sees and the tap's weights;
sums are fp32. Each row ends with a place of zeros and each frame with a row of them, so that what a tap
sees of places in a line lies in a line too, edges included: the tile is rows of a matrix, and the
tensor cores read it where it arrives.

cuDNN does best where channels are many: of 96 to 96 channels, a third of the decoder's work, it reached
249 TFLOP/s on an H200 where it reached 538 of 192 to 192.
"""

# Shapes: T frames, H/W rows/columns, C input and O output channels.

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

TAPS = 27
TAKEN = frozenset({(96, 96)})
"""Channels in and out of the convolutions that are taken from cuDNN: of the Wan2.1 VAE's it does these
worst. The one place to give them back."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """How the work is cut and run; the values do not depend on it."""

    places: int = 256
    """Of a tile: 64 for each four warps at least."""
    piece: int = 32
    """Input channels at once: 16 or 32."""
    warps: int = 8
    stages: int = 4
    """Tiles that are under way at once."""
    registers: int | None = 128
    """The most of a thread: with 128 and eight warps a multiprocessor has two programs at once, the one
    computing while the other writes; what does not fit is a few numbers of that end. None: no limit."""


def suits(x_THWC: Tensor, weight: Tensor) -> bool:
    """Whether this kernel is to compute it; its copy engine is that of compute capability 9.0."""
    if x_THWC.dtype not in (torch.bfloat16, torch.float16) or weight.shape[2:] != (3, 3, 3):
        return False
    outputs, channels = weight.shape[:2]
    if (channels, outputs) not in TAKEN:
        return False
    return torch.cuda.get_device_capability(x_THWC.device) >= (9, 0)


def causal_conv(
    whole_THWC: Tensor,
    weight: Tensor,
    bias_O: Tensor,
    residual_THWO: Tensor | None = None,
    launch: Launch | None = None,
) -> Tensor:
    """[T, H, W, O] of [2 + T, H + 1, W + 1, C], contiguous: the convolution + bias + residual, each rounded.

    The last row and the last column of each frame are zeros. `weight` [O, C, 3, 3, 3] has its input
    channels together in memory; C is a multiple of `Launch.piece`.
    """
    launch = launch or Launch()
    frames, height, width, channels = whole_THWC.shape
    frames, height, width = frames - 2, height - 1, width - 1
    outputs = weight.shape[0]
    first, rest = split(outputs)
    flat = weight.permute(0, 2, 3, 4, 1).reshape(outputs, TAPS * channels)
    out = whole_THWC.new_empty((frames, height, width, outputs))
    tiles = triton.cdiv(height * (width + 1), launch.places)
    limit = {} if launch.registers is None else {"maxnreg": launch.registers}
    _causal_conv[(frames * tiles,)](
        TensorDescriptor.from_tensor(whole_THWC.view(-1, channels), [launch.places, launch.piece]),
        TensorDescriptor.from_tensor(flat, [first, launch.piece]),
        TensorDescriptor.from_tensor(flat, [max(rest, 16), launch.piece]),
        bias_O, out if residual_THWO is None else residual_THWO, out,
        frames, height, width, OUTPUTS=outputs, CHANNELS=channels, PIECE=launch.piece, PLACES=launch.places,
        FIRST=first, REST=rest, RESIDUAL=residual_THWO is not None,
        num_warps=launch.warps, num_stages=launch.stages, enable_fp_fusion=False, **limit,
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
    acc, bias_ptr, residual_ptr, out_ptr, at, inside,
    OUTPUTS: tl.constexpr, FROM: tl.constexpr, COUNT: tl.constexpr, RESIDUAL: tl.constexpr,
):  # fmt: skip
    channel = FROM + tl.arange(0, COUNT)
    bias = tl.load(bias_ptr + channel, mask=channel < OUTPUTS, other=0.0).to(tl.float32)
    kind = out_ptr.dtype.element_ty
    y = (acc.to(kind).to(tl.float32) + bias[None, :]).to(kind)
    where = at[:, None] * OUTPUTS + channel[None, :]
    mask = inside[:, None] & (channel < OUTPUTS)[None, :]
    if RESIDUAL:
        x = tl.load(residual_ptr + where, mask=mask, other=0.0)
        y = (y.to(tl.float32) + x.to(tl.float32)).to(kind)
    tl.store(out_ptr + where, y, mask=mask)


@triton.jit(do_not_specialize=["frames", "height", "width"])
def _causal_conv(
    places_desc, first_desc, rest_desc, bias_ptr, residual_ptr, out_ptr, frames, height, width,
    OUTPUTS: tl.constexpr, CHANNELS: tl.constexpr, PIECE: tl.constexpr, PLACES: tl.constexpr,
    FIRST: tl.constexpr, REST: tl.constexpr, RESIDUAL: tl.constexpr,
):  # fmt: skip
    # Frames of one place follow each other: they share most of what they read.
    begin = tl.program_id(0) // frames * PLACES
    frame = tl.program_id(0) % frames
    across = width + 1
    PIECES: tl.constexpr = CHANNELS // PIECE
    acc = tl.zeros((PLACES, FIRST), dtype=tl.float32)
    more = tl.zeros((PLACES, REST if REST > 0 else 16), dtype=tl.float32)
    for step in range(27 * PIECES):
        tap = step // PIECES
        # Before the first place of all the copy engine gives zeros by itself.
        at = (frame + tap // 9) * (height + 1) * across + begin + (tap // 3 % 3 - 1) * across + tap % 3 - 1
        x = places_desc.load([at, step % PIECES * PIECE])
        acc = tl.dot(x, first_desc.load([0, step * PIECE]).T, acc)
        if REST > 0:
            more = tl.dot(x, rest_desc.load([FIRST, step * PIECE]).T, more)
    place = begin + tl.arange(0, PLACES)
    row, column = place // across, place % across
    inside = (row < height) & (column < width)
    to = (frame.to(tl.int64) * height + row) * width + column
    _finish(acc, bias_ptr, residual_ptr, out_ptr, to, inside, OUTPUTS, 0, FIRST, RESIDUAL)
    if REST > 0:
        _finish(more, bias_ptr, residual_ptr, out_ptr, to, inside, OUTPUTS, FIRST, REST, RESIDUAL)
