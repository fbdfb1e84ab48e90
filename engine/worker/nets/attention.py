"""The kinds of self-attention that a Wan block can have; cross-attention is always dense.

Source: TurboDiffusion turbodiffusion/SLA; the library default of 64 by 64 blocks is not what its nets use.
"""

# Shapes: B videos, L tokens, H heads, d the head's dimension.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor, nn
from torch.nn import functional as F

from engine.worker.nets import kernels
from engine.worker.nets.sparse_linear import (
    DEFAULT_TOPK,
    SLA_BLOCKS,
    Blocks,
    add_linear,
    choose_blocks,
    sparse_attention,
)

SelfAttention: TypeAlias = Callable[[Tensor, Tensor, Tensor, "nn.Linear | None"], Tensor]
"""Of q, k, v [B, L, H, d] after norm and rotation, and the block's `proj_l`: the output, as q, in whose
place it may lie: q and k are given up."""


def dense_attention(
    q_BLHd: Tensor, k_BLHd: Tensor, v_BLHd: Tensor, proj_l: nn.Linear | None = None
) -> Tensor:
    """Softmax attention over all keys by the device's fastest kernel; `proj_l` has no part in it."""
    q, k, v = (x.transpose(1, 2) for x in (q_BLHd, k_BLHd, v_BLHd))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class SparseLinearAttention:
    """SLA: softmax over the chosen key blocks, plus linear attention over all keys through `proj_l`."""

    topk: float = DEFAULT_TOPK
    """Share of the key blocks that each query block attends to."""
    blocks: Blocks = SLA_BLOCKS

    def __call__(self, q_BLHd: Tensor, k_BLHd: Tensor, v_BLHd: Tensor, proj_l: nn.Linear | None) -> Tensor:
        """Without `proj_l`, as models have it that were not trained for this, the sparse part alone."""
        chosen_BHMn = choose_blocks(q_BLHd, k_BLHd, self.topk, self.blocks)
        if kernels.usable(q_BLHd.device):
            near: Tensor = kernels.sparse_kernels().sparse_attention(
                q_BLHd, k_BLHd, v_BLHd, chosen_BHMn.int(), self.blocks.query, self.blocks.key
            )
        else:
            near = sparse_attention(q_BLHd, k_BLHd, v_BLHd, chosen_BHMn, self.blocks)
        if proj_l is not None:
            add_linear(near, q_BLHd, k_BLHd, v_BLHd, proj_l)
        return near
