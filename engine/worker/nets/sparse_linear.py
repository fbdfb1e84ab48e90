"""Sparse-linear attention (SLA): softmax over the key blocks that matter, linear attention over all keys.

The PyTorch path for any device; `kernels` has the same sparse part for GPUs. Never more than one query
block's scores exist at a time.

Source: TurboDiffusion turbodiffusion/SLA (core and utils); block sizes as its nets use them.
"""

# Shapes: B videos, H heads, L tokens, d the head's dimension, M query blocks, N key blocks, n chosen ones.

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

DEFAULT_TOPK = 0.1
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
SAGE_HOPPER_BLOCKS = Blocks(query=64, key=128)
"""Of SageSLA on GPUs of compute capability 9.0; others use `SLA_BLOCKS`."""


def choose_blocks(q_BHLd: Tensor, k_BHLd: Tensor, topk: float, blocks: Blocks) -> Tensor:
    """The numbers of the key blocks each query block attends to, int64 [B, H, M, n], in no order.

    By products of block means, of keys less their mean over the sequence; all in the inputs' dtype.
    """
    centred = k_BHLd - k_BHLd.mean(dim=-2, keepdim=True)
    score = block_means(q_BHLd, blocks.query) @ block_means(centred, blocks.key).transpose(-1, -2)
    return score.topk(blocks.chosen(k_BHLd.shape[-2], topk), dim=-1, sorted=False).indices


def block_means(x_BHLd: Tensor, rows: int) -> Tensor:
    """The mean of each `rows` tokens, [B, H, blocks, d], summed in fp32; the last block may be shorter."""
    length = x_BHLd.shape[-2]
    padded = F.pad(x_BHLd, (0, 0, 0, -length % rows))
    sums = _in_blocks(padded, rows).sum(dim=-2, dtype=torch.float32)
    counts = torch.full((sums.shape[-2], 1), rows, dtype=torch.float32, device=x_BHLd.device)
    counts[-1] = length - rows * (sums.shape[-2] - 1)
    return (sums / counts).to(x_BHLd.dtype)


def sparse_attention(
    q_BHLd: Tensor, k_BHLd: Tensor, v_BHLd: Tensor, chosen_BHMn: Tensor, blocks: Blocks
) -> Tensor:
    """Softmax attention of each query block over its chosen key blocks alone, [B, H, L, d].

    Scores and sums in fp32; the weights are rounded to the dtype of v before they meet it.
    """
    length, dtype = k_BHLd.shape[-2], v_BHLd.dtype
    pad = (0, 0, 0, -length % blocks.key)
    k_blocks, v_blocks = (_in_blocks(F.pad(x, pad), blocks.key) for x in (k_BHLd, v_BHLd))
    inside = torch.arange(blocks.key, device=q_BHLd.device)
    out = torch.empty_like(q_BHLd)
    scale = q_BHLd.shape[-1] ** -0.5
    for number, q in enumerate(torch.split(q_BHLd, blocks.query, dim=-2)):
        picked = chosen_BHMn[:, :, number]
        at = picked[..., None, None].expand(-1, -1, -1, *k_blocks.shape[-2:])
        k, v = (x.gather(2, at).flatten(2, 3).float() for x in (k_blocks, v_blocks))
        score = (q.float() @ k.transpose(-1, -2)) * scale
        beyond = (picked[..., None] * blocks.key + inside >= length).flatten(2)
        score.masked_fill_(beyond[:, :, None], -math.inf)
        weight = torch.exp2((score - score.amax(-1, keepdim=True)) * math.log2(math.e))
        total = weight.sum(-1, keepdim=True)
        begin = number * blocks.query
        out[:, :, begin : begin + q.shape[-2]] = (weight.to(dtype).float() @ v) / total
    return out


def linear_attention(q_BHLd: Tensor, k_BHLd: Tensor, v_BHLd: Tensor) -> Tensor:
    """Linear attention over all keys, whose features are softmaxes over d; in the dtype of v."""
    dtype = v_BHLd.dtype
    q, k = (x.softmax(-1, dtype=torch.float32).to(dtype) for x in (q_BHLd, k_BHLd))
    state_Bdd = k.transpose(-1, -2) @ v_BHLd
    total = k.sum(dim=-2, keepdim=True)
    return (q @ state_Bdd) / (LINEAR_EPS + (q * total).sum(-1, keepdim=True))


def _in_blocks(x_BHLd: Tensor, rows: int) -> Tensor:
    return x_BHLd.view(*x_BHLd.shape[:2], -1, rows, x_BHLd.shape[-1])
