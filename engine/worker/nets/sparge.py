"""SpargeAttn's product of 8-bit blocks, where it is installed: on Hopper, whose blocks are ours.

It takes what `kernels.sage` has quantised and writes where that would. Other GPUs have other entry points
with other layouts, and are left to our kernel.

Source: SpargeAttn csrc/qattn (qk_int_sv_f8_cuda_sm90), as TurboDiffusion turbodiffusion/SLA/core.py calls it.
"""

# Shapes: B videos, H heads, L tokens, d the head's dimension, M query blocks, n chosen key blocks.

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

MODULE = "spas_sage_attn"
ENTRY = "qk_int8_sv_f8_accum_f32_block_sparse_attn_inst_buf_fuse_v_scale_sm90"
HEADS_FIRST, NOT_CAUSAL, SCALE_OF_BLOCK = 1, 0, 1
"""How it is told the layout [B, H, L, d], that all keys count, and one scale to each block."""


def entry(device: torch.device) -> Any | None:
    """The library's product for this GPU; None where there is none."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device)[0] != 9:
        return None
    try:
        return getattr(importlib.import_module(f"{MODULE}._qattn"), ENTRY)
    except (ImportError, OSError, AttributeError, RuntimeError):
        return None  # none, or one built for another torch


def attention(
    product: Any, out_BLHd: Tensor, q: Any, k: Any, v: tuple[Tensor, Tensor], chosen_BHMn: Tensor, keys: int
) -> None:
    """As `kernels.sage.attention` without `add`, by `product`; q, k and v as those kernels give them."""
    batch, length, heads, head_dim = out_BLHd.shape

    def by_head(x: Tensor) -> Tensor:
        return x.view(batch, heads, -1, x.shape[-1])

    # Each number of a list is told by how far it is from the one before.
    first, rest = chosen_BHMn[..., :1], chosen_BHMn.diff(dim=-1)
    steps = torch.cat((first, rest), dim=-1).int().contiguous()
    count = torch.full(steps.shape[:-1], steps.shape[-1], dtype=torch.int32, device=steps.device)
    values, v_scale = v
    product(
        by_head(q.values)[:, :, :length], by_head(k.values)[:, :, :keys],
        values.view(batch, heads, head_dim, -1), out_BLHd.transpose(1, 2), steps, count,
        q.scale.view(batch, heads, -1), k.scale.view(batch, heads, -1), v_scale.view(batch, heads, -1),
        HEADS_FIRST, NOT_CAUSAL, SCALE_OF_BLOCK, head_dim**-0.5,
    )  # fmt: skip
