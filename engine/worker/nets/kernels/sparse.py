"""Softmax attention of each query block over the key blocks that were chosen for it.

Source: TurboDiffusion turbodiffusion/SLA/kernel.py for what is summed in which precision.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor


def sparse_attention(
    q_BLHd: Tensor, k_BLHd: Tensor, v_BLHd: Tensor, chosen_BHMn: Tensor, query_block: int, key_block: int
) -> Tensor:
    """[B, L, H, d] in the dtype of v; `chosen_BHMn` is int32 and contiguous, d a power of two from 16."""
    batch, length, heads, head_dim = q_BLHd.shape
    blocks, taken = chosen_BHMn.shape[2:]
    out = torch.empty_like(q_BLHd, memory_format=torch.contiguous_format)
    _sparse_attention[(blocks, batch * heads)](
        q_BLHd, k_BLHd, v_BLHd, chosen_BHMn, out,
        *q_BLHd.stride()[:3], *k_BLHd.stride()[:3], *v_BLHd.stride()[:3], *out.stride()[:3],
        length, k_BLHd.shape[1], heads, blocks, taken, head_dim**-0.5 * math.log2(math.e),
        QUERY=query_block, KEY=key_block, DIM=head_dim, num_warps=4, num_stages=2,
    )  # fmt: skip
    return out


@triton.jit
def _sparse_attention(
    q_ptr, k_ptr, v_ptr, chosen_ptr, out_ptr,
    q_b, q_l, q_h, k_b, k_l, k_h, v_b, v_l, v_h, o_b, o_l, o_h,
    length, keys, heads, blocks, taken, scale,
    QUERY: tl.constexpr, KEY: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    block, which = tl.program_id(0), tl.program_id(1)
    sample, head = (which // heads).to(tl.int64), (which % heads).to(tl.int64)
    rows = block * QUERY + tl.arange(0, QUERY)
    d = tl.arange(0, DIM)
    inside = rows[:, None] < length
    q_at = q_ptr + sample * q_b + head * q_h + rows[:, None].to(tl.int64) * q_l + d[None, :]
    q = tl.load(q_at, mask=inside, other=0.0)
    k_at = k_ptr + sample * k_b + head * k_h + d[:, None]
    v_at = v_ptr + sample * v_b + head * v_h + d[None, :]
    list_at = chosen_ptr + (which * blocks + block).to(tl.int64) * taken

    largest = tl.full((QUERY,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((QUERY,), dtype=tl.float32)
    out = tl.zeros((QUERY, DIM), dtype=tl.float32)
    for number in range(0, taken):
        columns = tl.load(list_at + number) * KEY + tl.arange(0, KEY)
        present = columns < keys
        k = tl.load(k_at + columns[None, :].to(tl.int64) * k_l, mask=present[None, :], other=0.0)
        score = tl.dot(q, k) * scale
        score = tl.where(present[None, :], score, float("-inf"))
        higher = tl.maximum(largest, tl.max(score, axis=1))
        weight = tl.exp2(score - higher[:, None])
        shrink = tl.exp2(largest - higher)
        total = total * shrink + tl.sum(weight, axis=1)
        v = tl.load(v_at + columns[:, None].to(tl.int64) * v_l, mask=present[:, None], other=0.0)
        out = out * shrink[:, None] + tl.dot(weight.to(v.dtype), v)
        largest = higher
    out = out / total[:, None]
    o_at = out_ptr + sample * o_b + head * o_h + rows[:, None].to(tl.int64) * o_l + d[None, :]
    tl.store(o_at, out.to(out_ptr.dtype.element_ty), mask=inside)
