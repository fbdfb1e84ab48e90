"""The linear layer of int8 block weights: 8-bit integers with one fp32 scale to each 128 x 128 of them.

The format is that of TurboDiffusion's quantised checkpoints (symmetric, no zero point), and so is what
is computed: activations are quantised the same way as they come (W8A8).

Source: TurboDiffusion turbodiffusion/ops, Int8Linear and its quantiser.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.models.layout import INT8_BLOCK_SIZE, int8_scale_shape
from engine.worker.nets import kernels

LEVELS = 128.0
LEAST_MAGNITUDE = 1e-8


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Quantised:
    """Activations as int8 blocks: what several layers that take the same can share."""

    values: Tensor
    """int8 [L, K]."""
    scale: Tensor
    """fp32 [ceil(L / 128), ceil(K / 128)]."""
    shape: torch.Size
    """Of what they were: [..., K]."""
    dtype: torch.dtype


class Int8BlockLinear(nn.Module):
    """A linear layer whose weight lies as int8 blocks and is multiplied as such."""

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

    def forward(self, x: Tensor | Quantised, out: Tensor | None = None) -> Tensor:
        """`x` [..., in] to [..., out] in the dtype of `x`; into `out`, contiguous, where that is given.

        Activations are quantised in the blocks in which they lie: give whole multiples of 128 tokens, but
        for the last, where a sequence is computed in parts.
        """
        given = x if isinstance(x, Quantised) else quantised(x)
        bias = None if self.bias is None else self.bias.to(given.dtype)
        block = INT8_BLOCK_SIZE
        if kernels.usable(self.weight.device) and self.in_features % block == self.out_features % block == 0:
            found: Tensor = kernels.int8_kernels().linear(
                given.values, given.scale, self.weight, self.weight_scale, bias, given.dtype, out_LN=out
            )
        else:
            found = block_linear(given, self.weight, self.weight_scale, bias)
            found = found if out is None else out.copy_(found)
        return found.view(*given.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        )


def quantised(x: Tensor) -> Quantised:
    """`x` [..., K] in int8 blocks; its tokens are all but the last axis."""
    flat = x.reshape(-1, x.shape[-1])
    if kernels.usable(x.device):
        values, scale = kernels.int8_kernels().quantise(flat.contiguous())
    else:
        values, scale = quantise(flat)
    return Quantised(values=values, scale=scale, shape=x.shape, dtype=x.dtype)


def shared_input(x: Tensor, layer: nn.Module) -> Tensor | Quantised:
    """What `layer` and others of its kind take of `x`: quantised once for all of them, or as it is."""
    return quantised(x) if isinstance(layer, Int8BlockLinear) else x


def linear_into(out_LN: Tensor, layer: nn.Module, x: Tensor | Quantised) -> None:
    """What `layer`, of either kind and with a bias, gives for `x` [L, K], without a copy."""
    if isinstance(layer, Int8BlockLinear):
        layer(x, out_LN)
    elif isinstance(layer, nn.Linear) and isinstance(x, Tensor) and layer.bias is not None:
        torch.addmm(layer.bias, x, layer.weight.T, out=out_LN)  # as F.linear has it
    else:
        out_LN.copy_(layer(x))


def gelu_input(x: Tensor, layer: nn.Module) -> Tensor | Quantised:
    """What `layer` takes of gelu(x), in the approximation by tanh; of an int8 layer in one pass.

    `x` is given up: it may become the result.
    """
    if isinstance(layer, Int8BlockLinear) and kernels.usable(x.device):
        values, scale = kernels.int8_kernels().gelu_quantise(x.reshape(-1, x.shape[-1]).contiguous())
        return Quantised(values=values, scale=scale, shape=x.shape, dtype=x.dtype)
    return shared_input(torch.ops.aten.gelu_(x, approximate="tanh"), layer)


def block_linear(x: Quantised, weight_NK: Tensor, scale: Tensor, bias_N: Tensor | None) -> Tensor:
    """The PyTorch path of the layer, [L, N]: exact integer products, a tile of 128 inputs at a time."""
    block, length = INT8_BLOCK_SIZE, len(x.values)
    total = torch.zeros((length, len(weight_NK)), dtype=torch.float32, device=weight_NK.device)
    for tile in range(x.scale.shape[1]):
        part = slice(tile * block, (tile + 1) * block)
        # Products below 2^14 and 128 of them: fp32 holds every such sum.
        whole = x.values[:, part].float() @ weight_NK[:, part].float().T
        rows = x.scale[:, tile].repeat_interleave(block)[:length, None]
        columns = scale[:, tile].repeat_interleave(block)[None, : len(weight_NK)]
        total += whole * (rows * columns)
    out = total.to(x.dtype)
    # After the sum was rounded, as a second rounding.
    return out if bias_N is None else out + bias_N


def quantise(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """int8 values and fp32 scales of a floating [rows, columns], by blocks of 128 x 128.

    The largest magnitude of a block is 128, not 127: it saturates where it is positive.
    """
    rows, columns = matrix.shape
    block = INT8_BLOCK_SIZE
    padded = functional.pad(matrix.float(), (0, -columns % block, 0, -rows % block))
    blocks = padded.view(padded.shape[0] // block, block, padded.shape[1] // block, block)
    # One axis after the other: both at once take five times as long on cpu.
    largest = blocks.abs().amax(dim=3).amax(dim=1).clamp(min=LEAST_MAGNITUDE)
    whole = (blocks * (LEVELS / largest)[:, None, :, None]).round_().clamp_(-128, 127)
    return whole.view(padded.shape)[:rows, :columns].to(torch.int8), largest / LEVELS


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
