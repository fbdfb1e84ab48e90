"""SageSLA's sparse part: quantise queries, keys and values in one pass each, then attend by 8-bit products.

What is quantised lies head by head in whole blocks, so that tensor descriptors load it (on Hopper and later
by TMA). Values lie transposed, as fp8 products of Hopper want them, and the tokens of each 16 in the order
in which a thread holds softmax weights: so weights become an operand without leaving their registers.

Source: SpargeAttn for what is rounded when (csrc/qattn and spas_sage_attn/utils).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from engine.worker.nets.kernels import blocks as of_blocks
from engine.worker.nets.kernels.blocks import block, store_mean

WEIGHT_EXPONENT = tl.constexpr(8.807)
VALUE_MOST = 2.25
WHOLE = tl.constexpr(12582912.0)
"""1.5 * 2^23: added to a whole number below 2^22 the number's bits are the last ones of the sum."""
WHOLE_BITS = tl.constexpr(0x4B400000)
MINUS_INFINITY_BITS = tl.constexpr(-0x800000)


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """How the attention is launched."""

    warps: int = 4
    stages: int = 2
    descriptors: bool = True
    """Load by tensor descriptors, on GPUs where products read what TMA has laid out for them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantised:
    """int8 of a [B, L, H, d] tensor, by blocks of tokens."""

    values: Tensor
    """[B*H*blocks*rows, d], 0 beyond the end of a head's tokens."""
    scale: Tensor
    """fp32 [B*H, blocks]."""
    means: Tensor
    """[B, H, blocks, d]: `block_means` of the same."""


def quantised(x_BLHd: Tensor, rows: int, middle: Tensor | None = None) -> Quantised:
    """Of x less `middle` [B, 1, H, d], with one scale for each `rows` tokens of a head."""
    batch, length, heads, head_dim = x_BLHd.shape
    count, many = triton.cdiv(length, rows), batch * heads
    values = torch.empty((many * count * rows, head_dim), dtype=torch.int8, device=x_BLHd.device)
    scale = torch.empty((many, count), dtype=torch.float32, device=x_BLHd.device)
    means = torch.empty((batch, heads, count, head_dim), dtype=x_BLHd.dtype, device=x_BLHd.device)
    _quantised[(count, many)](
        x_BLHd, x_BLHd if middle is None else middle, values, scale, means, *x_BLHd.stride()[:3],
        length, heads, CENTRED=middle is not None, ROWS=rows, DIM=head_dim, num_warps=4,
        enable_fp_fusion=False,
    )  # fmt: skip
    return Quantised(values=values, scale=scale, means=means)


def packed_values(v_BLHd: Tensor, rows: int, *, fp8: bool) -> tuple[Tensor, Tensor]:
    """Values [B*H*d, blocks*rows] in e4m3, else fp16; the scale of each head's dimension, fp32 [B*H, d]."""
    batch, length, heads, head_dim = v_BLHd.shape
    count, many, device = triton.cdiv(length, rows), batch * heads, v_BLHd.device
    if fp8:
        scale = of_blocks.largest(v_BLHd)
        # Divided by a tensor: a number's reciprocal would be multiplied by, on a GPU.
        scale = scale / torch.full_like(scale, VALUE_MOST)
        scale = torch.where(scale > 0, scale, 1.0)
    else:
        scale = torch.ones((many, head_dim), dtype=torch.float32, device=device)
    dtype = torch.float8_e4m3fn if fp8 else torch.float16
    values = torch.empty((many * head_dim, count * rows), dtype=dtype, device=device)
    _packed_values[(count, many)](
        v_BLHd, scale, values, *v_BLHd.stride()[:3], length, heads,
        FP8=fp8, EMULATED=not v_BLHd.is_cuda, ROWS=rows, DIM=head_dim, num_warps=4,
    )  # fmt: skip
    return values, scale


def attention(
    out_BLHd: Tensor, q: Quantised, k: Quantised, v: tuple[Tensor, Tensor], chosen_BHMn: Tensor, keys: int,
    *, add: bool, launch: Launch | None = None,
) -> None:  # fmt: skip
    """Into `out_BLHd`, or onto what is in it; `chosen_BHMn` of `keys` tokens: int32, ascending."""
    _, length, heads, head_dim = out_BLHd.shape
    count, taken = chosen_BHMn.shape[2:]
    many, key_count = k.scale.shape
    rows, key_rows = (len(x.values) // x.scale.numel() for x in (q, k))
    launch = launch or Launch(warps=4 if rows == 64 else 8)
    with_tma = not out_BLHd.is_cuda or torch.cuda.get_device_capability(out_BLHd.device)[0] in {9, 10}
    described = launch.descriptors and with_tma
    q_blocks, k_blocks, v_blocks = (
        TensorDescriptor.from_tensor(x, list(shape)) if described else x
        for x, shape in (
            (q.values, (rows, head_dim)), (k.values, (key_rows, head_dim)), (v[0], (head_dim, key_rows))
        )
    )  # fmt: skip
    _attention[(count, many)](
        q_blocks, k_blocks, v_blocks, q.scale, k.scale, v[1], chosen_BHMn, out_BLHd, *out_BLHd.stride()[:3],
        length, keys, heads, count, key_count, taken, head_dim**-0.5 * math.log2(math.e),
        QUERY=rows, KEY=key_rows, DIM=head_dim, FP8=v[0].dtype == torch.float8_e4m3fn,
        EMULATED=not out_BLHd.is_cuda, RAGGED=keys % key_rows != 0, DESCRIBED=described, ADD=add,
        num_warps=launch.warps, num_stages=launch.stages,
    )  # fmt: skip


@triton.jit(do_not_specialize=["length", "heads"])
def _quantised(
    x_ptr, centre_ptr, values_ptr, scale_ptr, means_ptr, x_b, x_l, x_h, length, heads,
    CENTRED: tl.constexpr, ROWS: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    number, which = tl.program_id(0), tl.program_id(1)
    place = which * tl.num_programs(0) + number
    x = block(x_ptr, centre_ptr, x_b, x_l, x_h, number, which, heads, length, CENTRED, ROWS, DIM)
    store_mean(means_ptr, x, number, which, length, ROWS, DIM)
    scale = tl.div_rn(tl.max(tl.max(tl.abs(x), axis=1), axis=0), 127.0) + 1e-7
    tl.store(scale_ptr + place, scale)
    # Of a float the conversion leaves away what is behind the point.
    values = (tl.div_rn(x, scale + tl.zeros_like(x)) + tl.where(x < 0, -0.5, 0.5)).to(tl.int8)
    rows = place.to(tl.int64) * ROWS + tl.arange(0, ROWS)
    tl.store(values_ptr + rows[:, None] * DIM + tl.arange(0, DIM)[None, :], values)


@triton.jit
def _e4m3(x, EMULATED: tl.constexpr):
    """To the nearest, half to even; Triton's interpreter does not carry into the exponent by itself."""
    if EMULATED:
        bits = x.to(tl.int32, bitcast=True)
        kept = (bits + 0x7FFFF + ((bits >> 20) & 1)) & -0x100000
        # Below 2^-6 all steps are of 2^-9.
        small = (x + 24576.0) - 24576.0
        x = tl.where(tl.abs(x) < 0.015625, small, kept.to(tl.float32, bitcast=True))
    return x.to(tl.float8e4nv)


@triton.jit(do_not_specialize=["length", "heads"])
def _packed_values(
    v_ptr, scale_ptr, values_ptr, v_b, v_l, v_h, length, heads,
    FP8: tl.constexpr, EMULATED: tl.constexpr, ROWS: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    number, which = tl.program_id(0), tl.program_id(1)
    sample, head = (which // heads).to(tl.int64), (which % heads).to(tl.int64)
    place, d = tl.arange(0, ROWS), tl.arange(0, DIM)
    token = place
    if FP8:
        # Pairs of the first and of the second 8 tokens by turns; `_attention` does the same to weights.
        token = place // 16 * 16 + place % 4 // 2 * 8 + place % 16 // 4 * 2 + place % 2
    token += number * ROWS
    at = v_ptr + sample * v_b + head * v_h + token[:, None].to(tl.int64) * v_l + d[None, :]
    v = tl.load(at, mask=token[:, None] < length, other=0.0)
    if FP8:
        scale = tl.load(scale_ptr + which * DIM + d)
        v = _e4m3(tl.div_rn(v.to(tl.float32), scale[None, :] + tl.zeros_like(v).to(tl.float32)), EMULATED)
    else:
        v = v.to(tl.float16)
    line = (which * DIM + d).to(tl.int64) * (tl.num_programs(0) * ROWS) + number * ROWS
    tl.store(values_ptr + line[:, None] + place[None, :], v.trans())


@triton.jit
def _tile(source, row, column, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DESCRIBED: tl.constexpr):
    """A tile of a contiguous matrix `width` wide, from its descriptor or else from its address."""
    if DESCRIBED:
        tile = source.load([row, column])
    else:
        at = source + row.to(tl.int64) * width + column
        tile = tl.load(at + tl.arange(0, ROWS)[:, None] * width + tl.arange(0, COLUMNS)[None, :])
    return tile


@triton.jit
def _meet(
    q, q_scale, k_blocks, v_blocks, k_scale_at, which, key_count, picked, keys, largest, total, out,
    KEY: tl.constexpr, DIM: tl.constexpr, FP8: tl.constexpr, EMULATED: tl.constexpr, RAGGED: tl.constexpr,
    DESCRIBED: tl.constexpr,
):  # fmt: skip
    """One block of keys more in the softmax; `largest` is the largest score so far less the exponent."""
    QUERY: tl.constexpr = q.shape[0]
    exponent = WEIGHT_EXPONENT if FP8 else 0.0
    k = _tile(k_blocks, (which * key_count + picked) * KEY, 0, DIM, KEY, DIM, DESCRIBED)
    v = _tile(v_blocks, which * DIM, picked * KEY, key_count * KEY, DIM, KEY, DESCRIBED)
    of_block = q_scale * tl.load(k_scale_at + picked)
    # Integers are summed onto the bits of a float, which then is WHOLE more than their sum, and none is
    # converted; columns beyond the keys, where k is 0, begin and end as minus infinity. One fused step
    # scales and takes away both WHOLE and the largest: exactly, for the scale keeps 22 bits, so that WHOLE
    # times it has 24, and for the largest is moved to where the sum of the two is a float.
    of_block = (of_block.to(tl.int32, bitcast=True) & -4).to(tl.float32, bitcast=True)
    product = tl.full((QUERY, KEY), WHOLE_BITS, dtype=tl.int32)
    if RAGGED:
        present = (tl.arange(0, KEY) < keys - picked * KEY)[None, :]
        product = tl.where(present, product, MINUS_INFINITY_BITS)
    product = tl.dot(q, k.T, product, out_dtype=tl.int32).to(tl.float32, bitcast=True)
    higher = tl.maximum(largest, (tl.max(product, axis=1) - WHOLE) * of_block - exponent)
    lowered = of_block * WHOLE + higher
    higher = lowered - of_block * WHOLE
    weight = tl.exp2(tl.fma(product, of_block, -lowered[:, None]))
    shrink = tl.exp2(largest - higher)
    total = total * shrink + tl.sum(weight, axis=1)
    if FP8:
        weight = _e4m3(weight, EMULATED)
        weight = weight.reshape(QUERY, KEY // 16, 2, 4, 2).permute(0, 1, 3, 2, 4).reshape(QUERY, KEY)
    else:
        weight = weight.to(tl.float16)
    # Each block of keys by itself first: Hopper keeps 14 bits of a sum of fp8 products.
    out = out * shrink[:, None] + tl.dot(weight, v.T)
    return higher, total, out


@triton.jit(do_not_specialize=["length", "keys", "heads", "count", "key_count", "taken"])
def _attention(
    q_blocks, k_blocks, v_blocks, q_scale_ptr, k_scale_ptr, v_scale_ptr, chosen_ptr, out_ptr, o_b, o_l, o_h,
    length, keys, heads, count, key_count, taken, scale,
    QUERY: tl.constexpr, KEY: tl.constexpr, DIM: tl.constexpr, FP8: tl.constexpr, EMULATED: tl.constexpr,
    RAGGED: tl.constexpr, DESCRIBED: tl.constexpr, ADD: tl.constexpr,
):  # fmt: skip
    number, which = tl.program_id(0), tl.program_id(1)
    place = which * count + number
    q = _tile(q_blocks, place * QUERY, 0, DIM, QUERY, DIM, DESCRIBED)
    q_scale = tl.load(q_scale_ptr + place) * scale
    list_at = chosen_ptr + place.to(tl.int64) * taken
    k_scale_at = k_scale_ptr + which * key_count

    largest = tl.full((QUERY,), -1e30, dtype=tl.float32)
    total = tl.zeros((QUERY,), dtype=tl.float32)
    out = tl.zeros((QUERY, DIM), dtype=tl.float32)
    # Only the last of all key blocks has columns beyond the keys, and it comes last, behind the loop.
    for turn in range(0, taken - 1 if RAGGED else taken):
        picked = tl.load(list_at + turn)
        largest, total, out = _meet(
            q, q_scale, k_blocks, v_blocks, k_scale_at, which, key_count, picked, keys, largest, total, out,
            KEY, DIM, FP8, EMULATED, False, DESCRIBED,
        )  # fmt: skip
    if RAGGED:
        picked = tl.load(list_at + taken - 1)
        largest, total, out = _meet(
            q, q_scale, k_blocks, v_blocks, k_scale_at, which, key_count, picked, keys, largest, total, out,
            KEY, DIM, FP8, EMULATED, True, DESCRIBED,
        )  # fmt: skip
    d = tl.arange(0, DIM)
    out = out / total[:, None] * tl.load(v_scale_ptr + which * DIM + d)[None, :]
    rows = number * QUERY + tl.arange(0, QUERY)
    sample, head = (which // heads).to(tl.int64), (which % heads).to(tl.int64)
    o_at = out_ptr + sample * o_b + head * o_h + rows[:, None].to(tl.int64) * o_l + d[None, :]
    out = out.to(out_ptr.dtype.element_ty)
    if ADD:
        # Each part is rounded first, and then their sum.
        there = tl.load(o_at, mask=rows[:, None] < length, other=0.0)
        out = (there.to(tl.float32) + out.to(tl.float32)).to(out.dtype)
    tl.store(o_at, out, mask=rows[:, None] < length)
