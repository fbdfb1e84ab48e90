"""SageSLA: sparse-linear attention whose softmax part multiplies 8-bit queries, keys, weights and values.

The PyTorch path for any device; `kernels.sage` has the same for GPUs. Queries, and keys less their mean
over the sequence, become int8 with one scale a block. Softmax weights become fp8 (e4m3) beside the largest
score met so far, 448 for 1; values become fp8 with one scale for each head and dimension. GPUs that have no
fp8 multiply weights and values in fp16. The linear part is that of SLA.

Source: TurboDiffusion turbodiffusion/SLA (SageSparseLinearAttention) and SpargeAttn, which it calls.
"""

# Shapes: B videos, H heads, L tokens, d the head's dimension, M query blocks, N key blocks, n chosen ones.

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.worker.nets import kernels, sparge
from engine.worker.nets.sparse_linear import (
    DEFAULT_TOPK,
    LINEAR_EPS,
    SLA_BLOCKS,
    Blocks,
    add_linear,
    best_blocks,
    choose_blocks,
    projection,
)

HOPPER_BLOCKS = Blocks(query=64, key=128)
WEIGHT_EXPONENT = 8.807
"""A softmax weight of 1 is 2 to this, which is 448 in e4m3: the largest that it can hold."""
VALUE_MOST = 2.25
"""The largest value of a head's dimension in e4m3; SpargeAttn needs room where it sums in fp16."""
INT8_MOST = 127.0
SCALE_LEAST = 1e-7
"""Added to every scale of int8, so that a block of zeros has one."""


def sage_blocks(device: torch.device) -> Blocks:
    """The blocks that TurboDiffusion uses on that device: Hopper has its own."""
    hopper = device.type == "cuda" and torch.cuda.get_device_capability(device)[0] == 9
    return HOPPER_BLOCKS if hopper else SLA_BLOCKS


def has_fp8(device: torch.device) -> bool:
    """Whether weights and values are fp8 there: on GPUs from Ada on, and where fp8 is emulated anyway."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 9)


@dataclass(frozen=True, kw_only=True, slots=True)
class SageSparseLinearAttention:
    """SLA with 8-bit products in its sparse part."""

    topk: float = DEFAULT_TOPK
    """Share of the key blocks that each query block attends to."""
    blocks: Blocks | None = None
    """None: those of the device that the tensors are on."""
    product: Any | None = None
    """SpargeAttn's, where that is to compute the sparse part; None: our kernel."""

    def __call__(self, q_BLHd: Tensor, k_BLHd: Tensor, v_BLHd: Tensor, proj_l: nn.Linear | None) -> Tensor:
        """Without `proj_l`, as models have it that were not trained for this, the sparse part alone."""
        device = q_BLHd.device
        blocks = self.blocks or sage_blocks(device)
        if kernels.usable(device):
            self._by_kernels(q_BLHd, k_BLHd, v_BLHd, proj_l, blocks)
            return q_BLHd
        chosen_BHMn = choose_blocks(q_BLHd, k_BLHd, self.topk, blocks).sort(-1).values
        near = sage_attention(q_BLHd, k_BLHd, v_BLHd, chosen_BHMn, blocks, fp8=has_fp8(device))
        if proj_l is not None:
            add_linear(near, q_BLHd, k_BLHd, v_BLHd, proj_l)
        return near

    def _by_kernels(
        self, q_BLHd: Tensor, k_BLHd: Tensor, v_BLHd: Tensor, proj_l: nn.Linear | None, blocks: Blocks
    ) -> None:
        """Into `q_BLHd`, which nothing needs any more once its 8-bit copy exists and the linear part.

        The same holds for `k_BLHd`.
        """
        by_blocks, sage = kernels.block_kernels(), kernels.sage_kernels()
        linear = kernels.linear_attention_kernels()
        # First of all, since its sums of parts need room that is gone again before the 8-bit copies come.
        state = None if proj_l is None else linear.key_state(k_BLHd, v_BLHd)
        q = sage.quantised(q_BLHd, blocks.query)
        k = sage.quantised(k_BLHd, blocks.key, by_blocks.centre(k_BLHd))
        chosen_BHMn = best_blocks(q.means, k.means, blocks.chosen(k_BLHd.shape[1], self.topk))
        v = sage.packed_values(v_BLHd, blocks.key, fp8=has_fp8(q_BLHd.device))
        keys, chosen_BHMn = k_BLHd.shape[1], chosen_BHMn.int().sort(-1).values
        # The library cannot add: there the linear part lies in the place of the keys meanwhile.
        far_BLHd = q_BLHd if self.product is None else k_BLHd
        if proj_l is not None and state is not None:
            linear.put_linear(far_BLHd, q_BLHd, *state, *projection(proj_l, q_BLHd.dtype), LINEAR_EPS)
        if self.product is None:
            sage.attention(q_BLHd, q, k, v, chosen_BHMn, keys, add=proj_l is not None)
            return
        sparge.attention(self.product, q_BLHd, q, k, v, chosen_BHMn, keys)
        if proj_l is not None:
            q_BLHd += far_BLHd


def quantised_blocks(x_BLHd: Tensor, rows: int, centre: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Of x less `centre`: int8 [B, H, blocks, rows, d], 0 beyond the end, and fp32 scales [B, H, blocks]."""
    x = x_BLHd if centre is None else x_BLHd - centre
    x = F.pad(x.transpose(1, 2).float(), (0, 0, 0, -x.shape[1] % rows))
    x = x.view(*x.shape[:2], -1, rows, x.shape[-1])
    scale = x.abs().amax((-1, -2)) / INT8_MOST + SCALE_LEAST
    x = x / scale[..., None, None]
    return torch.trunc(x + torch.copysign(torch.full_like(x, 0.5), x)).to(torch.int8), scale


def quantised_values(v_BLHd: Tensor) -> tuple[Tensor, Tensor]:
    """e4m3 [B, L, H, d] and the fp32 scale of each head's dimension, [B, 1, H, d]."""
    scale = v_BLHd.abs().amax(1, keepdim=True).float() / VALUE_MOST
    # A dimension without any value stays 0 by any scale; SpargeAttn would divide by it.
    scale = torch.where(scale > 0, scale, 1.0)
    return (v_BLHd.float() / scale).to(torch.float8_e4m3fn), scale


def sage_attention(
    q_BLHd: Tensor, k_BLHd: Tensor, v_BLHd: Tensor, chosen_BHMn: Tensor, blocks: Blocks, *, fp8: bool
) -> Tensor:
    """Softmax attention of each query block over its chosen key blocks in their order, [B, L, H, d].

    The order matters to roundings alone: weights are rounded beside the largest score up to their block.
    """
    batch, length, heads, head_dim = q_BLHd.shape
    keys, taken = k_BLHd.shape[1], chosen_BHMn.shape[-1]
    q8, q_scale = quantised_blocks(q_BLHd, blocks.query)
    k8, k_scale = quantised_blocks(k_BLHd, blocks.key, k_BLHd.mean(dim=1, keepdim=True))
    values, v_scale = quantised_values(v_BLHd) if fp8 else (v_BLHd.to(torch.float16), None)
    v_blocks = F.pad(values.float().transpose(1, 2), (0, 0, 0, -keys % blocks.key))
    v_blocks = v_blocks.view(batch, heads, -1, blocks.key, head_dim)
    inside = torch.arange(blocks.key, device=q_BLHd.device)
    out = torch.empty_like(q_BLHd, memory_format=torch.contiguous_format)
    for number in range(chosen_BHMn.shape[2]):
        picked = chosen_BHMn[:, :, number]
        at = picked[..., None, None].expand(batch, heads, taken, blocks.key, head_dim)
        # Sums of products of int8 stay below 2^24, so that fp32 holds them exactly.
        products = q8[:, :, number, None].float() @ k8.gather(2, at).float().transpose(-1, -2)
        scale = q_scale[:, :, number, None] * k_scale.gather(2, picked) * (head_dim**-0.5 * math.log2(math.e))
        score = products * scale[..., None, None]
        beyond = picked[..., None] * blocks.key + inside >= keys
        score.masked_fill_(beyond[..., None, :], -math.inf)
        largest = score.amax(-1, keepdim=True).cummax(2).values
        weight = torch.exp2(score - largest + (WEIGHT_EXPONENT if fp8 else 0.0))
        shrink = torch.exp2(largest - largest[:, :, -1:])
        total = (weight.sum(-1, keepdim=True) * shrink).sum(2)
        weight = weight.to(torch.float8_e4m3fn if fp8 else torch.float16).float()
        near = ((weight @ v_blocks.gather(2, at)) * shrink).sum(2) / total
        near = near.transpose(1, 2) if v_scale is None else near.transpose(1, 2) * v_scale
        begin = number * blocks.query
        out[:, begin : begin + blocks.query] = near[:, : length - begin]
    return out
