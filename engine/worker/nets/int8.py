"""The linear layer of int8 block weights: 8-bit integers with one fp32 scale to each 128 x 128 of them.

The format is that of TurboDiffusion's quantised checkpoints (symmetric, no zero point). The
numerics here are weights-only: the blocks are turned back into the input's dtype and multiplied
as usual. The released kernels also quantise the activations (W8A8) and so give other last digits;
they belong to the importers of those checkpoints.

Source: TurboDiffusion turbodiffusion/ops, Int8Linear.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.models.layout import INT8_BLOCK_SIZE, int8_scale_shape


class Int8BlockLinear(nn.Module):
    """A linear layer whose weight lies as int8 blocks; a forward makes one dequantised copy and drops it."""

    weight: Tensor
    """int8 [out, in]."""
    weight_scale: Tensor
    """fp32 [ceil(out / 128), ceil(in / 128)]."""
    bias: Tensor | None
    """bf16 [out]."""

    def __init__(
        self, in_features: int, out_features: int, *, bias: bool = True, device: torch.device | None = None
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        shape, scales = (out_features, in_features), int8_scale_shape(out_features, in_features)
        # Buffers: integers cannot be parameters of a module that may be asked for gradients.
        self.register_buffer("weight", torch.zeros(shape, dtype=torch.int8, device=device))
        self.register_buffer("weight_scale", torch.ones(scales, dtype=torch.float32, device=device))
        self.register_buffer(
            "bias", torch.zeros(out_features, dtype=torch.bfloat16, device=device) if bias else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """`x` [..., in] to [..., out] in the dtype of `x`."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return functional.linear(x, dequantise(self.weight, self.weight_scale, x.dtype), bias)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        )


def dequantise(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """int8 `weight` [out, in] times its blocks' fp32 `scale`, rounded once, to `dtype`."""
    rows, columns = weight.shape
    block = INT8_BLOCK_SIZE
    if rows % block or columns % block:
        spread = scale.repeat_interleave(block, 0)[:rows].repeat_interleave(block, 1)[:, :columns]
        return (weight * spread).to(dtype)
    result = torch.empty_like(weight, dtype=dtype)
    blocks = (rows // block, block, columns // block, block)
    # Into `result` and not through an fp32 product, which would be twice its size on the device.
    torch.mul(weight.view(blocks), scale[:, None, :, None], out=result.view(blocks))
    return result


def replace_linears(dit: nn.Module) -> int:
    """Put an `Int8BlockLinear` in the place of every linear layer inside `blocks`; how many they were.

    Those are the layers that the quantised checkpoints quantise: queries, keys, values, outputs
    and feed-forward. Embeddings, the output, and the sparse attention's `proj_l` stay. The new
    layers have the old ones' device and hold nothing yet.
    """
    found = [
        (parent, name, child)
        for parent in dit.get_submodule("blocks").modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.Linear) and name != "proj_l"
    ]
    for parent, name, linear in found:
        replacement = Int8BlockLinear(
            linear.in_features,
            linear.out_features,
            bias=linear.bias is not None,
            device=linear.weight.device,
        )
        setattr(parent, name, replacement)
    return len(found)
