"""Sparse-linear attention (SLA): softmax over the key blocks that matter, linear attention over all keys.

The PyTorch path for any device; `kernels.sparse` has the same sparse part for GPUs. Everything walks over
the tokens in parts, so that no copy of all queries or keys is made beside them.

Source: TurboDiffusion turbodiffusion/SLA (core and utils).
"""

# Shapes: B videos, H heads, L tokens, d the head's dimension, M query blocks, N key blocks, n chosen ones.

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.planning.attention import DEFAULT_TOPK as DEFAULT_TOPK
from engine.planning.shapes import PART_TOKENS
from engine.worker.nets import kernels

LINEAR_EPS = 1e-5


@dataclass(frozen=True, kw_only=True, slots=True)
class Blocks:
    """Tokens of a query block and of a key block."""

    query: int = 128
    key: int = 64

    def chosen(self, length: int, topk: float) -> int:
        """How many key blocks of `length` tokens a query block attends to: truncated, one at least."""
        count = -(-length // self.key)
        return max(1, min(count, int(topk * count)))


SLA_BLOCKS = Blocks(query=128, key=64)


def choose_blocks(q_BLHd: Tensor, k_BLHd: Tensor, topk: float, blocks: Blocks) -> Tensor:
    """The numbers of the key blocks each query block attends to, int64 [B, H, M, n], in no order.

    By products of block means, of keys less their mean over the sequence; all in the inputs' dtype.
    """
    if kernels.usable(q_BLHd.device):
        by_blocks = kernels.block_kernels()
        centre = by_blocks.centre(k_BLHd)
        q_BHMd, k_BHNd = (
            by_blocks.block_means(q_BLHd, blocks.query),
            by_blocks.block_means(k_BLHd, blocks.key, centre),
        )
    else:
        centre = k_BLHd.mean(dim=1, keepdim=True)
        q_BHMd, k_BHNd = block_means(q_BLHd, blocks.query), block_means(k_BLHd, blocks.key, centre)
    return best_blocks(q_BHMd, k_BHNd, blocks.chosen(k_BLHd.shape[1], topk))


def best_blocks(q_BHMd: Tensor, k_BHNd: Tensor, count: int) -> Tensor:
    """Of each query block the `count` key blocks whose means meet its own best, int64 [B, H, M, count]."""
    score = q_BHMd @ k_BHNd.transpose(-1, -2)
    return score.topk(count, dim=-1, sorted=False).indices


def block_means(x_BLHd: Tensor, rows: int, centre: Tensor | None = None) -> Tensor:
    """Means of each `rows` tokens less `centre`, [B, H, blocks, d]; summed in fp32, the last of fewer."""
    means = []
    for part in parts_of(x_BLHd.shape[1]):
        x = x_BLHd[:, part]
        if centre is not None:
            x = x - centre
        whole = x.shape[1] // rows * rows
        sums = x[:, :whole].reshape(x.shape[0], -1, rows, *x.shape[2:]).sum(dim=2, dtype=torch.float32)
        means.append((sums / rows).to(x.dtype))
        if whole < x.shape[1]:
            rest = x[:, whole:].sum(dim=1, keepdim=True, dtype=torch.float32) / (x.shape[1] - whole)
            means.append(rest.to(x.dtype))
    return torch.cat(means, dim=1).transpose(1, 2)


def sparse_attention(
    q_BLHd: Tensor, k_BLHd: Tensor, v_BLHd: Tensor, chosen_BHMn: Tensor, blocks: Blocks
) -> Tensor:
    """Softmax attention of each query block over its chosen key blocks alone, [B, L, H, d].

    Scores and sums in fp32; the weights are rounded to the dtype of v before they meet it. One query
    block's scores exist at a time.
    """
    length, dtype = k_BLHd.shape[1], v_BLHd.dtype
    pad = (0, 0, 0, -length % blocks.key)
    k_blocks, v_blocks = (
        padded.view(*padded.shape[:2], -1, blocks.key, padded.shape[-1])
        for padded in (F.pad(x.transpose(1, 2), pad) for x in (k_BLHd, v_BLHd))
    )
    inside = torch.arange(blocks.key, device=q_BLHd.device)
    out = torch.empty_like(q_BLHd)
    scale = q_BLHd.shape[-1] ** -0.5
    for number, q in enumerate(torch.split(q_BLHd, blocks.query, dim=1)):
        picked = chosen_BHMn[:, :, number]
        at = picked[..., None, None].expand(-1, -1, -1, *k_blocks.shape[-2:])
        k, v = (x.gather(2, at).flatten(2, 3).float() for x in (k_blocks, v_blocks))
        score = (q.transpose(1, 2).float() @ k.transpose(-1, -2)) * scale
        beyond = (picked[..., None] * blocks.key + inside >= length).flatten(2)
        score.masked_fill_(beyond[:, :, None], -math.inf)
        weight = torch.exp2((score - score.amax(-1, keepdim=True)) * math.log2(math.e))
        near = (weight.to(dtype).float() @ v) / weight.sum(-1, keepdim=True)
        begin = number * blocks.query
        out[:, begin : begin + q.shape[1]] = near.transpose(1, 2)
    return out


class LinearAttention:
    """Linear attention over all keys, its features softmaxes over d; called with queries, part by part."""

    def __init__(self, k_BLHd: Tensor, v_BLHd: Tensor) -> None:
        self.parts = parts_of(k_BLHd.shape[1])
        batch, _, heads, head_dim = k_BLHd.shape
        shape = (batch, heads, head_dim, head_dim)
        state = torch.zeros(shape, dtype=torch.float32, device=k_BLHd.device)
        total = torch.zeros((batch, heads, 1, head_dim), dtype=torch.float32, device=k_BLHd.device)
        for part in self.parts:
            k = _features(k_BLHd[:, part])
            state += k.float().transpose(-1, -2) @ v_BLHd[:, part].transpose(1, 2).float()
            total += k.sum(dim=-2, keepdim=True, dtype=torch.float32)
        self._state_BHdd, self._total_BHd = state.to(v_BLHd.dtype), total.to(v_BLHd.dtype)

    def __call__(self, q_BLHd: Tensor) -> Tensor:
        """[B, L, H, d] of these queries, in the dtype of v."""
        q = _features(q_BLHd)
        out = (q @ self._state_BHdd) / (LINEAR_EPS + (q * self._total_BHd).sum(-1, keepdim=True))
        return out.transpose(1, 2)


def add_linear(near_BLHd: Tensor, q_BLHd: Tensor, k_BLHd: Tensor, v_BLHd: Tensor, proj_l: nn.Linear) -> None:
    """Into `near_BLHd`, contiguous: linear attention over all keys through `proj_l`."""
    if kernels.usable(q_BLHd.device):
        linear = kernels.linear_attention_kernels()
        state = linear.key_state(k_BLHd, v_BLHd)
        linear.add_linear(near_BLHd, q_BLHd, *state, *projection(proj_l, q_BLHd.dtype), LINEAR_EPS)
        return
    far = LinearAttention(k_BLHd, v_BLHd)
    for part in far.parts:
        near_BLHd[:, part] += proj_l(far(q_BLHd[:, part]))


def projection(proj_l: nn.Linear, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Its weight [d, d] and bias [d] as the kernels take them."""
    return proj_l.weight.to(dtype).contiguous(), proj_l.bias.to(dtype).contiguous()


def parts_of(length: int) -> list[slice]:
    """`length` tokens in parts of whole blocks, but for the last."""
    return [slice(begin, min(length, begin + PART_TOKENS)) for begin in range(0, length, PART_TOKENS)]


def _features(x_BLHd: Tensor) -> Tensor:
    return x_BLHd.transpose(1, 2).softmax(-1, dtype=torch.float32).to(x_BLHd.dtype)
