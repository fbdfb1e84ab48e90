"""Softmax attention of each query block over the key blocks that were chosen for it.

Queries, keys and values come through tensor descriptors, which Hopper's copy engine serves: 540 to 557
TFLOP/s in bf16 on an H200 where loads by pointer reached 396 to 423.

Source: TurboDiffusion turbodiffusion/SLA/kernel.py for what is summed in which precision.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.worker.nets.kernels.tiles import tokens_by_head

WARPS = 4
STAGES = 2
"""Few, so that two programs share a multiprocessor: one multiplies while the other takes its maxima."""


def sparse_attention(
    q_BLHd: Tensor, k_BLHd: Tensor, v_BLHd: Tensor, chosen_BHMn: Tensor, query_block: int, key_block: int
) -> Tensor:
    """[B, L, H, d] in the dtype of v; `chosen_BHMn` is int32 and contiguous, d a power of two from 16.

    The heads of a token lie side by side in q, k and v.
    """
    length, heads, head_dim = q_BLHd.shape[1:]
    blocks, taken = chosen_BHMn.shape[2:]
    out = torch.empty_like(q_BLHd, memory_format=torch.contiguous_format)
    _sparse_attention[(blocks, len(q_BLHd) * heads)](
        *(tokens_by_head(x, query_block) for x in (q_BLHd, out)),
        *(tokens_by_head(x, key_block) for x in (k_BLHd, v_BLHd)),
        chosen_BHMn, length, k_BLHd.shape[1], heads, blocks, taken, head_dim**-0.5 * math.log2(math.e),
        QUERY=query_block, KEY=key_block, DIM=head_dim, num_warps=WARPS, num_stages=STAGES,
    )  # fmt: skip
    return out


@triton.jit
def _sparse_attention(
    queries, out, keys, values, chosen_ptr, length, num_keys, heads, blocks, taken, scale,
    QUERY: tl.constexpr, KEY: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    block, which = tl.program_id(0), tl.program_id(1)
    sample, column = which // heads, (which % heads) * DIM
    q = queries.load([sample, block * QUERY, column]).reshape(QUERY, DIM)
    list_at = chosen_ptr + (which * blocks + block).to(tl.int64) * taken

    largest = tl.full((QUERY,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((QUERY,), dtype=tl.float32)
    summed = tl.zeros((QUERY, DIM), dtype=tl.float32)
    for number in tl.range(0, taken):
        first = tl.load(list_at + number) * KEY
        k = keys.load([sample, first, column]).reshape(KEY, DIM)
        score = tl.dot(q, k.T)
        if first + KEY > num_keys:  # beyond them the tile holds zeros, which would have a weight
            score = tl.where((first + tl.arange(0, KEY) < num_keys)[None, :], score, float("-inf"))
        higher = tl.maximum(largest, tl.max(score, axis=1) * scale)
        weight = tl.exp2(score * scale - higher[:, None])
        shrink = tl.exp2(largest - higher)
        total = total * shrink + tl.sum(weight, axis=1)
        v = values.load([sample, first, column]).reshape(KEY, DIM)
        summed = tl.dot(weight.to(v.dtype), v, summed * shrink[:, None])
        largest = higher
    rounded = (summed / total[:, None]).to(q.dtype)
    out.store([sample, block * QUERY, column], rounded.reshape(1, QUERY, DIM))
