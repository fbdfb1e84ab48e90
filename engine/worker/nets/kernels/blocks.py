"""Means of blocks of tokens, by which key blocks are chosen, and what they need of all tokens: one pass each.

Tokens may lie anywhere, heads and dimensions beside each other: any [B, L, H, d] whose last stride is 1.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

SHARE = 512
"""Tokens that one program sums, or looks for the largest among."""
TILE = 64
"""Tokens that it loads at once."""


def centre(x_BLHd: Tensor) -> Tensor:
    """The mean over the tokens, [B, 1, H, d]: summed in fp32 and rounded once."""
    batch, length, heads, head_dim = x_BLHd.shape
    total = _of_shares(x_BLHd, largest=False).sum(0) / length
    return total.to(x_BLHd.dtype).view(batch, 1, heads, head_dim)


def largest(x_BLHd: Tensor) -> Tensor:
    """The largest magnitude of each head's dimension, fp32 [B*H, d]."""
    return _of_shares(x_BLHd, largest=True).amax(0)


def block_means(x_BLHd: Tensor, rows: int, middle: Tensor | None = None) -> Tensor:
    """Means of each `rows` tokens less `middle`, [B, H, blocks, d]; summed in fp32, the last of fewer."""
    batch, length, heads, head_dim = x_BLHd.shape
    count = triton.cdiv(length, rows)
    means = torch.empty((batch, heads, count, head_dim), dtype=x_BLHd.dtype, device=x_BLHd.device)
    _block_means[(count, batch * heads)](
        x_BLHd, means if middle is None else middle, means, *x_BLHd.stride()[:3], length, heads,
        CENTRED=middle is not None, ROWS=rows, DIM=head_dim, num_warps=4,
    )  # fmt: skip
    return means


def _of_shares(x_BLHd: Tensor, *, largest: bool) -> Tensor:
    batch, length, heads, head_dim = x_BLHd.shape
    shares = triton.cdiv(length, SHARE)
    found = torch.empty((shares, batch * heads, head_dim), dtype=torch.float32, device=x_BLHd.device)
    _share[(shares, batch * heads)](
        x_BLHd, found, *x_BLHd.stride()[:3], length, heads,
        LARGEST=largest, SHARE=SHARE, TILE=TILE, DIM=head_dim, num_warps=4,
    )  # fmt: skip
    return found


@triton.jit
def block(x_ptr, centre_ptr, x_b, x_l, x_h, number, which, heads, length, CENTRED: tl.constexpr,
          ROWS: tl.constexpr, DIM: tl.constexpr):  # fmt: skip
    """fp32 [ROWS, DIM] of a head's tokens less `centre`, rounded as the dtype is; 0 beyond the end."""
    sample, head = (which // heads).to(tl.int64), (which % heads).to(tl.int64)
    rows, d = number * ROWS + tl.arange(0, ROWS), tl.arange(0, DIM)
    at = x_ptr + sample * x_b + head * x_h + rows[:, None].to(tl.int64) * x_l + d[None, :]
    inside = rows[:, None] < length
    x = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    if CENTRED:
        middle = tl.load(centre_ptr + which * DIM + d).to(tl.float32)
        x = (x - middle[None, :]).to(x_ptr.dtype.element_ty).to(tl.float32)
        x = tl.where(inside, x, 0.0)
    return x


@triton.jit
def store_mean(means_ptr, x, number, which, length, ROWS: tl.constexpr, DIM: tl.constexpr):
    """The mean of a block [ROWS, DIM] over the rows that are tokens."""
    count = tl.minimum(length - number * ROWS, ROWS).to(tl.float32)
    mean = tl.div_rn(tl.sum(x, axis=0), count)
    at = means_ptr + (which * tl.num_programs(0) + number).to(tl.int64) * DIM + tl.arange(0, DIM)
    tl.store(at, mean.to(means_ptr.dtype.element_ty))


@triton.jit(do_not_specialize=["length", "heads"])
def _block_means(
    x_ptr, centre_ptr, means_ptr, x_b, x_l, x_h, length, heads,
    CENTRED: tl.constexpr, ROWS: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    number, which = tl.program_id(0), tl.program_id(1)
    x = block(x_ptr, centre_ptr, x_b, x_l, x_h, number, which, heads, length, CENTRED, ROWS, DIM)
    store_mean(means_ptr, x, number, which, length, ROWS, DIM)


@triton.jit(do_not_specialize=["length", "heads"])
def _share(
    x_ptr, found_ptr, x_b, x_l, x_h, length, heads,
    LARGEST: tl.constexpr, SHARE: tl.constexpr, TILE: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    share, which = tl.program_id(0), tl.program_id(1)
    found = tl.zeros((TILE, DIM), dtype=tl.float32)
    for tile in range(SHARE // TILE):
        number = share * (SHARE // TILE) + tile
        x = block(x_ptr, x_ptr, x_b, x_l, x_h, number, which, heads, length, False, TILE, DIM)
        found = tl.maximum(found, tl.abs(x)) if LARGEST else found + x
    of_share = tl.max(found, axis=0) if LARGEST else tl.sum(found, axis=0)
    place = (share * tl.num_programs(1) + which).to(tl.int64) * DIM
    tl.store(found_ptr + place + tl.arange(0, DIM), of_share)
