"""The three kinds of self-attention: dense, sparse-linear (SLA), and SLA with 8-bit products (SageSLA).

All take q, k, v as [B, L, H, d] after RMS norm and rotary embedding, and give the same shape and dtype.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SLA_BLOCKS = (128, 64)
"""Rows of a query block and of a key block as TurboDiffusion uses SLA, and SageSLA but for Hopper."""
SAGE_BLOCKS_HOPPER = (64, 128)


def dense(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v, summed in fp32."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    scores = (q.float() @ k.float().transpose(-1, -2)) / math.sqrt(q.shape[-1])
    return (scores.softmax(-1) @ v.float()).to(v.dtype).transpose(1, 2)


def chosen_blocks(q: Tensor, k: Tensor, topk: float, blocks: tuple[int, int]) -> Tensor:
    """Which key blocks each query block attends to: bool [B, H, query blocks, key blocks].

    By the products of block means, of keys less their mean over the sequence. At least one block.
    """
    q, k = q.transpose(1, 2), k.transpose(1, 2)
    k = k - k.mean(dim=-2, keepdim=True)
    score = _block_means(q, blocks[0]) @ _block_means(k, blocks[1]).transpose(-1, -2)
    count = score.shape[-1]
    taken = max(1, min(count, int(topk * count)))
    chosen = torch.zeros(score.shape, dtype=torch.bool)
    return chosen.scatter(-1, score.topk(taken, dim=-1).indices, True)


def _block_means(x: Tensor, rows: int) -> Tensor:
    """[B, H, L, d] -> [B, H, blocks, d]: the sum in fp32 over the rows there are, stored in the dtype."""
    means = [part.float().sum(-2) / part.shape[-2] for part in x.split(rows, dim=-2)]
    return torch.stack(means, dim=-2).to(x.dtype)


def _rows_of_blocks(chosen: Tensor, lengths: tuple[int, int], blocks: tuple[int, int]) -> Tensor:
    wide = chosen.repeat_interleave(blocks[0], -2).repeat_interleave(blocks[1], -1)
    return wide[..., : lengths[0], : lengths[1]]


def sparse(q: Tensor, k: Tensor, v: Tensor, chosen: Tensor, blocks: tuple[int, int]) -> Tensor:
    """Softmax attention over the chosen blocks alone; the normaliser is over them alone too."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    scores = (q.float() @ k.float().transpose(-1, -2)) * q.shape[-1] ** -0.5
    scores = scores.masked_fill(~_rows_of_blocks(chosen, scores.shape[-2:], blocks), -math.inf)
    largest = scores.amax(-1, keepdim=True)
    weights = torch.exp2((scores - largest) * math.log2(math.e))
    out = (weights.to(v.dtype).float() @ v.float()) / weights.sum(-1, keepdim=True)
    return out.to(v.dtype).transpose(1, 2)


def linear_part(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Linear attention over all keys, its features the softmax over the head's dimension."""
    dtype = v.dtype
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    q, k = (x.float().softmax(-1).to(dtype) for x in (q, k))
    state = k.transpose(-1, -2) @ v
    total = k.sum(-2, keepdim=True)
    return ((q @ state) / (1e-5 + (q * total).sum(-1, keepdim=True))).transpose(1, 2)


def sla(
    q: Tensor, k: Tensor, v: Tensor, proj_weight: Tensor, proj_bias: Tensor, *, topk: float = 0.1,
    blocks: tuple[int, int] = SLA_BLOCKS,
) -> Tensor:  # fmt: skip
    """The sparse part plus the linear part through `proj_l`, a [d, d] map shared by the heads."""
    near = sparse(q, k, v, chosen_blocks(q, k, topk, blocks), blocks)
    far = torch.nn.functional.linear(linear_part(q, k, v), proj_weight.to(v.dtype), proj_bias.to(v.dtype))
    return near + far


def sage_quantise(x: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """[B, H, L, d] -> int8 values, and for each row the fp32 scale of its block of `rows` rows."""
    values, scales = [], []
    for part in x.float().split(rows, dim=-2):
        scale = part.abs().amax((-1, -2), keepdim=True) / 127.0 + 1e-7
        values.append(torch.trunc(part / scale + 0.5 * part.sign()))
        scales.append(scale.expand(*part.shape[:-1], 1))
    return torch.cat(values, -2).to(torch.int8), torch.cat(scales, -2)


def sage_sparse(
    q: Tensor, k: Tensor, v: Tensor, chosen: Tensor, blocks: tuple[int, int], eight_bit_values: bool = True
) -> Tensor:
    """Attention over the chosen blocks by 8-bit queries and keys, and fp8 (else fp16) weights and values.

    Key blocks are met in ascending order. Weights are rounded beside the largest score met so far; the
    normaliser is of weights before they are rounded.
    """
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    q8, q_scale = sage_quantise(q, blocks[0])
    k8, k_scale = sage_quantise(k - k.mean(-2, keepdim=True), blocks[1])
    v_scale = torch.ones(1)
    if eight_bit_values:
        v_scale = v.float().abs().amax(-2, keepdim=True) / 2.25
        v_scale = v_scale.masked_fill(v_scale == 0, 1.0)
    narrow, exponent = (torch.float8_e4m3fn, 8.807) if eight_bit_values else (torch.float16, 0.0)
    values = (v.float() / v_scale).to(narrow).float()
    scores = (q8.double() @ k8.double().transpose(-1, -2)).float() * (q_scale * k_scale.transpose(-1, -2))
    scores = scores * (q.shape[-1] ** -0.5 * math.log2(math.e))
    scores = scores.masked_fill(~_rows_of_blocks(chosen, scores.shape[-2:], blocks), -math.inf)
    largest = torch.full(scores.shape[:-1], -1e30)[..., None]
    out, total = torch.zeros(q.shape, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for of_block, value in zip(scores.split(blocks[1], -1), values.split(blocks[1], -2), strict=True):
        higher = torch.maximum(largest, of_block.amax(-1, keepdim=True))
        weights, shrink = torch.exp2(of_block - higher + exponent), torch.exp2(largest - higher).double()
        total = total * shrink + weights.double().sum(-1, keepdim=True)
        out = out * shrink + weights.to(narrow).double() @ value.double()
        largest = higher
    return (out / total * v_scale).to(v.dtype).transpose(1, 2)


def sage_sla(
    q: Tensor, k: Tensor, v: Tensor, proj_weight: Tensor, proj_bias: Tensor, *, topk: float = 0.1,
    blocks: tuple[int, int] = SLA_BLOCKS, eight_bit_values: bool = True,
) -> Tensor:  # fmt: skip
    """SLA whose sparse part multiplies 8-bit queries and keys, and on newer GPUs fp8 weights and values."""
    near = sage_sparse(q, k, v, chosen_blocks(q, k, topk, blocks), blocks, eight_bit_values)
    far = torch.nn.functional.linear(linear_part(q, k, v), proj_weight.to(v.dtype), proj_bias.to(v.dtype))
    return near + far
