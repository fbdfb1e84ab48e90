"""The linear part of SLA: one pass over the keys sums their state, one over the queries adds what it gives.

Source: TurboDiffusion turbodiffusion/SLA/core.py for what is rounded where.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.worker.nets.kernels.tiles import tokens_by_head

KEYS = 64
"""Tokens that a program takes at a time."""
SPLITS = 32
"""Programs that share a head's keys."""
ROWS = 128
"""Queries of a program, where they have two bytes."""
ROW_WARPS = 4


def key_state(k_BLHd: Tensor, v_BLHd: Tensor) -> tuple[Tensor, Tensor]:
    """Of features softmax_d(k) the sums over L of outer products with v [B*H, d, d], and of themselves.

    Both, the latter [B*H, d], in the dtype of v, summed in fp32.
    """
    batch, length, heads, head_dim = k_BLHd.shape
    per_split = triton.cdiv(triton.cdiv(length, KEYS), SPLITS) * KEYS
    of_all = (SPLITS, batch * heads, head_dim)
    state = torch.empty((*of_all, head_dim), dtype=torch.float32, device=k_BLHd.device)
    total = torch.empty(of_all, dtype=torch.float32, device=k_BLHd.device)
    _key_state[(SPLITS, batch * heads)](
        *(tokens_by_head(x, KEYS) for x in (k_BLHd, v_BLHd)), state, total, length, heads, per_split,
        KEYS=KEYS, DIM=head_dim, num_warps=4, num_stages=2,
    )  # fmt: skip
    return state.sum(0).to(v_BLHd.dtype), total.sum(0).to(v_BLHd.dtype)


def add_linear(
    near_BLHd: Tensor, q_BLHd: Tensor, state: Tensor, total: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> None:
    """Into `near_BLHd`: the linear attention of these queries through `proj_l` [d, d]."""
    _launch(near_BLHd, q_BLHd, state, total, weight, bias, eps, add=True)


def put_linear(
    into_BLHd: Tensor, q_BLHd: Tensor, state: Tensor, total: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> None:
    """The same in the place of what is in `into_BLHd`, which may be the queries themselves."""
    _launch(into_BLHd, q_BLHd, state, total, weight, bias, eps, add=False)


def _launch(
    into_BLHd: Tensor, q_BLHd: Tensor, state: Tensor, total: Tensor, weight: Tensor, bias: Tensor, eps: float,
    *, add: bool,
) -> None:  # fmt: skip
    batch, length, heads, head_dim = q_BLHd.shape
    rows = ROWS if q_BLHd.element_size() == 2 else 32
    _linear[(triton.cdiv(length, rows), batch * heads)](
        *(tokens_by_head(x, rows) for x in (into_BLHd, q_BLHd)), state, total, weight, bias,
        length, heads, eps, ADD=add, ROWS=rows, DIM=head_dim, num_warps=ROW_WARPS, num_stages=1,
        enable_fp_fusion=False,
    )  # fmt: skip


@triton.jit
def _features(x, inside):
    wide = x.to(tl.float32)
    weight = tl.exp(wide - tl.max(wide, axis=1)[:, None])
    weight = weight / tl.sum(weight, axis=1)[:, None]
    return tl.where(inside, weight, 0.0).to(x.dtype)


@triton.jit
def _key_state(
    keys, values, state_ptr, total_ptr, length, heads, per_split, KEYS: tl.constexpr, DIM: tl.constexpr
):
    split, which = tl.program_id(0), tl.program_id(1)
    sample, column = which // heads, (which % heads) * DIM
    d = tl.arange(0, DIM)
    state = tl.zeros((DIM, DIM), dtype=tl.float32)
    total = tl.zeros((DIM,), dtype=tl.float32)
    for begin in tl.range(split * per_split, tl.minimum(length, (split + 1) * per_split), KEYS):
        inside = (begin + tl.arange(0, KEYS) < length)[:, None]
        k = _features(keys.load([sample, begin, column]).reshape(KEYS, DIM), inside)
        v = values.load([sample, begin, column]).reshape(KEYS, DIM)
        state += tl.dot(tl.trans(k), v, input_precision="ieee")
        total += tl.sum(k.to(tl.float32), axis=0)
    place = split * tl.num_programs(1) + which
    tl.store(total_ptr + place * DIM + d, total)
    tl.store(state_ptr + place.to(tl.int64) * DIM * DIM + d[:, None] * DIM + d[None, :], state)


@triton.jit
def _linear(
    into, queries, state_ptr, total_ptr, weight_ptr, bias_ptr, length, heads, eps,
    ADD: tl.constexpr, ROWS: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    block, which = tl.program_id(0), tl.program_id(1)
    sample, column = which // heads, (which % heads) * DIM
    d = tl.arange(0, DIM)
    q = queries.load([sample, block * ROWS, column]).reshape(ROWS, DIM)
    q = _features(q, (block * ROWS + tl.arange(0, ROWS) < length)[:, None])
    state = tl.load(state_ptr + which.to(tl.int64) * DIM * DIM + d[:, None] * DIM + d[None, :])
    total = tl.load(total_ptr + which * DIM + d)
    top = tl.dot(q, state, input_precision="ieee").to(q.dtype)
    below = tl.sum((q.to(tl.float32) * total[None, :].to(tl.float32)).to(q.dtype).to(tl.float32), axis=1)
    below = (below.to(q.dtype).to(tl.float32) + eps).to(q.dtype)
    linear = (top.to(tl.float32) / below[:, None].to(tl.float32)).to(q.dtype)
    weight = tl.load(weight_ptr + d[None, :] * DIM + d[:, None])
    bias = tl.load(bias_ptr + d).to(tl.float32)
    projected = (tl.dot(linear, weight, input_precision="ieee") + bias[None, :]).to(q.dtype)
    if ADD:
        near = into.load([sample, block * ROWS, column]).reshape(ROWS, DIM)
        projected = (near.to(tl.float32) + projected.to(tl.float32)).to(near.dtype)
    into.store([sample, block * ROWS, column], projected.reshape(1, ROWS, DIM))
