"""The diffusion transformer over a released checkpoint's tensors, with the reference's order of rounding.

In fp32 nothing is rounded on the way, so this is also the plain statement of the architecture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.specification import attention, int8

HEAD_DIM = 128
FREQUENCIES = 256
PAIRS = (22, 21, 21)
"""Rotary pairs of a head that tell frame, row and column."""
EPS = 1e-6

Attend = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""Of q, k, v [B, L, H, d] and the block's number the attention's output."""


def layer_norm(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """In fp32, and rounded to the dtype of `x`."""
    wide = x.float()
    wide = wide - wide.mean(-1, keepdim=True)
    wide = wide / torch.sqrt(wide.square().mean(-1, keepdim=True) + EPS)
    if weight is not None and bias is not None:
        wide = wide * weight.float() + bias.float()
    return wide.to(x.dtype)


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    """Over the whole width, before heads are split: fp32 with one rounding."""
    wide = x.float()
    return (wide * (1 / torch.sqrt(wide.square().mean(-1, keepdim=True) + EPS)) * weight.float()).to(x.dtype)


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """The norm rounds before the modulation, which is in fp32 and rounds again."""
    return (layer_norm(x).float() * (1 + scale) + shift).to(x.dtype)


def angles(frames: int, rows: int, columns: int) -> Tensor:
    """fp32 [frames * rows * columns, 64]: tokens run over columns first, then rows, then frames."""
    parts = []
    for axis, (length, pairs) in enumerate(zip((frames, rows, columns), PAIRS, strict=True)):
        power = torch.arange(0, 2 * pairs, 2, dtype=torch.float32) / (2 * pairs)
        turn = torch.outer(torch.arange(length, dtype=torch.float32), 1.0 / torch.pow(10000.0, power))
        shape = [1, 1, 1, pairs]
        shape[axis] = length
        parts.append(turn.view(shape).expand(frames, rows, columns, pairs))
    return torch.cat(parts, dim=-1).reshape(frames * rows * columns, -1)


def rotated(x: Tensor, turn: Tensor) -> Tensor:
    """[B, L, H, d]; neighbours (0, 1), (2, 3), ... are turned together, in fp32."""
    wide = x.float().unflatten(-1, (-1, 2))
    cos, sin = turn.cos()[None, :, None, :], turn.sin()[None, :, None, :]
    first, second = wide[..., 0], wide[..., 1]
    pairs = torch.stack((first * cos - second * sin, first * sin + second * cos), dim=-1)
    return pairs.flatten(-2).to(x.dtype)


def sinusoid(timestep: Tensor) -> Tensor:
    """[B] -> fp32 [B, 256], cosines first; computed in float64."""
    half = FREQUENCIES // 2
    power = torch.arange(half, dtype=torch.float64) / half
    turn = torch.outer(timestep.double(), torch.pow(torch.tensor(10000.0, dtype=torch.float64), -power))
    return torch.cat((turn.cos(), turn.sin()), dim=-1).float()


class Transformer:
    """Over `tensors`, a checkpoint's by its own names, bf16 or fp32, 8-bit or not.

    `attend` takes the place of the self-attention; without it that is dense.
    """

    def __init__(self, tensors: Mapping[str, Tensor], attend: Attend | None = None) -> None:
        self.tensors = tensors
        self.width = tensors["patch_embedding.weight"].shape[0]
        self.heads = self.width // HEAD_DIM
        self.blocks = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("blocks."))
        self.attend = attend or (lambda q, k, v, _block: attention.dense(q, k, v))

    def with_sla(self, topk: float, sage: bool = False) -> Transformer:
        """The same with sparse-linear attention by the checkpoint's own `proj_l`."""

        def attend(q: Tensor, k: Tensor, v: Tensor, block: int) -> Tensor:
            name = f"blocks.{block}.self_attn.attn_op.local_attn.proj_l"
            kind = attention.sage_sla if sage else attention.sla
            return kind(q, k, v, self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"], topk=topk)

        return Transformer(self.tensors, attend)

    def __call__(self, x: Tensor, timestep: Tensor, text: Tensor, condition: Tensor | None = None) -> Tensor:
        """x [B, 16, T, h, w], timestep [B], text [B, 512, 4096], condition [B, 20, T, h, w] -> fp32 as x."""
        dtype = x.dtype
        if condition is not None:
            x = torch.cat((x, condition.to(dtype)), dim=1)
        batch, channels, frames, height, width = x.shape
        rows, columns = height // 2, width // 2
        patches = x.reshape(batch, channels, frames, rows, 2, columns, 2).permute(0, 2, 3, 5, 1, 4, 6)
        patch_weight = self.tensors["patch_embedding.weight"].reshape(self.width, -1)
        patches = patches.reshape(batch, frames * rows * columns, channels * 4)
        tokens = int8.dense_linear(patches, patch_weight, self.tensors["patch_embedding.bias"])

        time = self._in_fp32("time_embedding.0", sinusoid(timestep))
        time = self._in_fp32("time_embedding.2", F.silu(time))
        modulation = self._in_fp32("time_projection.1", F.silu(time)).unflatten(-1, (6, self.width))
        text = self._linear("text_embedding.0", text.to(dtype))
        text = self._linear("text_embedding.2", F.gelu(text, approximate="tanh"))

        turn = angles(frames, rows, columns)
        for block in range(self.blocks):
            tokens = self._block(block, tokens, modulation, text, turn)

        table = self.tensors["head.modulation"].float() + time[:, None]
        shift, scale = table.chunk(2, dim=1)
        wide = layer_norm(tokens).float() * (1 + scale) + shift
        out = self._in_fp32("head.head", wide)
        out = out.reshape(batch, frames, rows, columns, 2, 2, 16).permute(0, 6, 1, 2, 4, 3, 5)
        return out.reshape(batch, 16, frames, height, width)

    def _block(self, number: int, x: Tensor, modulation: Tensor, text: Tensor, turn: Tensor) -> Tensor:
        name = f"blocks.{number}"
        table = self.tensors[f"{name}.modulation"] + modulation
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = table.float().chunk(6, dim=1)

        y = modulated(x, shift, scale)
        q, k, v = self._heads(f"{name}.self_attn", y, y)
        y = self.attend(rotated(q, turn), rotated(k, turn), v, number).flatten(2)
        x = x + self._linear(f"{name}.self_attn.o", y) * gate.to(x.dtype)

        y = layer_norm(x, self.tensors[f"{name}.norm3.weight"], self.tensors[f"{name}.norm3.bias"])
        y = attention.dense(*self._heads(f"{name}.cross_attn", y, text)).flatten(2)
        x = x + self._linear(f"{name}.cross_attn.o", y)

        y = self._linear(f"{name}.ffn.0", modulated(x, ffn_shift, ffn_scale))
        y = self._linear(f"{name}.ffn.2", F.gelu(y, approximate="tanh"))
        return x + y * ffn_gate.to(x.dtype)

    def _heads(self, name: str, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q = rms_norm(self._linear(f"{name}.q", x), self.tensors[f"{name}.norm_q.weight"])
        k = rms_norm(self._linear(f"{name}.k", context), self.tensors[f"{name}.norm_k.weight"])
        v = self._linear(f"{name}.v", context)
        return tuple(y.unflatten(-1, (self.heads, HEAD_DIM)) for y in (q, k, v))

    def _linear(self, name: str, x: Tensor) -> Tensor:
        bias = self.tensors[f"{name}.bias"]
        if (values := self.tensors.get(f"{name}.int8_weight")) is not None:
            return int8.linear(x, int8.Quantised(values, self.tensors[f"{name}.scale"]), bias)
        return int8.dense_linear(x, self.tensors[f"{name}.weight"], bias)

    def _in_fp32(self, name: str, x: Tensor) -> Tensor:
        return F.linear(
            x.float(), self.tensors[f"{name}.weight"].float(), self.tensors[f"{name}.bias"].float()
        )
