"""The Wan transformer on diffusers' modules, computing in TurboDiffusion's order of rounding.

The modules, and so the names and shapes of all weights, are diffusers'; what is computed with them is
written here, since theirs keeps other steps in fp32. A block is always entered by calling it: its
weights may still travel, and the arena waits for them there.

Source: TurboDiffusion rcm/networks/wan2pt1.py; diffusers WanTransformer3DModel.
"""

# Shapes: B videos, C channels, T latent frames, H/W latent rows/columns, L tokens, S text tokens,
# D width, d a head's dimension.

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanTransformerBlock
from torch import Tensor, nn
from torch.nn import functional as F

from engine.worker.nets.attention import SelfAttention, dense_attention
from engine.worker.nets.elementwise import (
    add_gated,
    affine_norm,
    modulated_norm,
    rms_norm,
    rotated_rms_norm,
)
from engine.worker.nets.int8 import gelu_input, linear_into, shared_input
from engine.worker.nets.sparse_linear import parts_of

ROPE_THETA = 10_000.0
TIME_THETA = 10_000.0


class WanBlock(WanTransformerBlock):  # type: ignore[misc]  # diffusers has no types
    """Self-attention, cross-attention, feed-forward; x goes in and comes out in the weights' dtype.

    What each token needs alone is done for some of them at a time. Beside x no more than q, k, v and the
    attention's output exist as a whole: five times L * D numbers at most. (With 8-bit products the output
    lies in the place of q, and 8-bit copies of all three beside them: five and a half.)
    """

    def __init__(self, config: Any, self_attention: SelfAttention) -> None:
        width = config.num_attention_heads * config.attention_head_dim
        super().__init__(
            width, config.ffn_dim, config.num_attention_heads, cross_attn_norm=True, eps=config.eps
        )
        self.self_attention = self_attention

    def forward(
        self, x_BLD: Tensor, text_BSD: Tensor, time_B6D: Tensor, rope: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Into `x_BLD`. `time_B6D` and the tables of `rope` are fp32."""
        table_B6D = self.scale_shift_table.float() + time_B6D
        for x_LD, text_SD, table_6D in zip(x_BLD, text_BSD, table_B6D, strict=True):
            shift, scale, gate, *ffn = table_6D.unbind(0)
            self._attend_to_itself(x_LD, (shift, scale, gate), rope)
            self._attend_to_text(x_LD, text_SD)
            self._feed_forward(x_LD, ffn)
        return x_BLD

    def _attend_to_itself(
        self, x_LD: Tensor, modulation: Sequence[Tensor], rope: tuple[Tensor, Tensor]
    ) -> None:
        attn: Any = self.attn1
        shift, scale, gate = modulation
        q, k, v = (torch.empty_like(x_LD) for _ in range(3))
        for part in parts_of(len(x_LD)):
            y = shared_input(modulated_norm(x_LD[part], shift, scale, self.norm1.eps), attn.to_q)
            cos, sin = (table[part] for table in rope)
            rotated_rms_norm(attn.to_q(y), attn.norm_q.weight, attn.norm_q.eps, cos, sin, q[part])
            rotated_rms_norm(attn.to_k(y), attn.norm_k.weight, attn.norm_k.eps, cos, sin, k[part])
            linear_into(v[part], attn.to_v, y)
        proj_l: nn.Linear | None = getattr(attn, "proj_l", None)
        heads: int = attn.heads
        out = self.self_attention(_heads(q, heads), _heads(k, heads), _heads(v, heads), proj_l)
        out_LD = out.reshape(x_LD.shape)
        del q, k, v, out
        for part in parts_of(len(x_LD)):
            add_gated(x_LD[part], attn.to_out[0](out_LD[part]), gate)

    def _attend_to_text(self, x_LD: Tensor, text_SD: Tensor) -> None:
        attn: Any = self.attn2
        heads: int = attn.heads
        text = shared_input(text_SD, attn.to_k)
        k = rms_norm(attn.to_k(text), attn.norm_k.weight, attn.norm_k.eps)
        v = attn.to_v(text)
        for part in parts_of(len(x_LD)):
            y = affine_norm(x_LD[part], self.norm2.weight, self.norm2.bias, self.norm2.eps)
            q = rms_norm(attn.to_q(y), attn.norm_q.weight, attn.norm_q.eps)
            out = dense_attention(_heads(q, heads), _heads(k, heads), _heads(v, heads))
            add_gated(x_LD[part], attn.to_out[0](out.reshape(q.shape)), None)

    def _feed_forward(self, x_LD: Tensor, modulation: Sequence[Tensor]) -> None:
        shift, scale, gate = modulation
        layers: Any = self.ffn.net
        up, down = layers[0].proj, layers[2]
        for part in parts_of(len(x_LD)):
            y = modulated_norm(x_LD[part], shift, scale, self.norm3.eps)
            add_gated(x_LD[part], down(gelu_input(up(y), down)), gate)


class WanNet(WanTransformer3DModel):  # type: ignore[misc]  # diffusers has no types
    """All of it: latents, a timestep and a text to the velocity of the latents, fp32."""

    @classmethod
    def build(cls, config: dict[str, Any], self_attention: SelfAttention = dense_attention) -> WanNet:
        """The net of a diffusers `config.json`, its weights as the caller's device makes them."""
        net: WanNet = cls.from_config({**config, "num_layers": 0})
        layers = config.get("num_layers", 40)
        for _ in range(layers):
            net.blocks.append(WanBlock(net.config, self_attention))
        net.register_to_config(num_layers=layers)
        # Its tables would lie on the device for nothing: they are computed for each pass.
        del net.rope
        return net

    @property
    def has_proj_l(self) -> bool:
        """Whether it was trained for sparse-linear attention."""
        return any(hasattr(block.attn1, "proj_l") for block in self.blocks)

    def set_attention(self, self_attention: SelfAttention) -> None:
        """Attend with this from the next pass on; the weights stay where they are."""
        for block in self.blocks:
            block.self_attention = self_attention

    def forward(self, x_BCTHW: Tensor, timestep_B: Tensor, text_BSD: Tensor) -> Tensor:
        """The velocity [B, 16, T, H, W] in fp32.

        `x_BCTHW`, with the channels of a condition if there are any, and `text_BSD` [B, S, 4096] are in
        the weights' dtype; the timestep is what the net is told, such as 988.
        """
        _, _, frames, height, width = x_BCTHW.shape
        grid = (frames, height // 2, width // 2)
        time_BD, time_B6D = self._time(timestep_B)
        embedder: Any = self.condition_embedder
        text_BSD = embedder.text_embedder(text_BSD)
        rope = rope_tables(grid, self.config.attention_head_dim, x_BCTHW.device)
        x_BLD = self._tokens(x_BCTHW, grid)
        for block in self.blocks:
            x_BLD = block(x_BLD, text_BSD, time_B6D, rope)
        return self._velocity(x_BLD, time_BD, grid)

    def _tokens(self, x_BCTHW: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """The patch embedding as one product; a convolution of the same stride is not always bit-equal."""
        conv: Any = self.patch_embedding
        frames, rows, columns = grid
        batch, channels = x_BCTHW.shape[:2]
        patches = x_BCTHW.reshape(batch, channels, frames, rows, 2, columns, 2).permute(0, 2, 3, 5, 1, 4, 6)
        return F.linear(patches.flatten(4).flatten(1, 3), conv.weight.flatten(1), conv.bias)

    def _time(self, timestep_B: Tensor) -> tuple[Tensor, Tensor]:
        """The timestep's embedding [B, D] and the blocks' share of the modulation [B, 6, D], fp32."""
        embedder: Any = self.condition_embedder
        half = self.config.freq_dim // 2
        power = torch.arange(half, dtype=torch.float64, device=timestep_B.device) / half
        turn = torch.outer(timestep_B.double(), TIME_THETA**-power)
        wave = torch.cat((turn.cos(), turn.sin()), dim=-1).float()
        mlp = embedder.time_embedder
        time_BD = _linear_in_fp32(F.silu(_linear_in_fp32(wave, mlp.linear_1)), mlp.linear_2)
        modulation = _linear_in_fp32(F.silu(time_BD), embedder.time_proj, pieces=6)
        return time_BD, modulation.view(*time_BD.shape[:1], 6, -1)

    def _velocity(self, x_BLD: Tensor, time_BD: Tensor, grid: tuple[int, int, int]) -> Tensor:
        shift, scale = (self.scale_shift_table.float() + time_BD[:, None]).unbind(1)
        shift, scale = shift[:, None], 1 + scale[:, None]
        weight, bias = self.proj_out.weight.float(), self.proj_out.bias.float()
        norm: Any = self.norm_out
        out = torch.empty(*x_BLD.shape[:2], weight.shape[0], dtype=torch.float32, device=x_BLD.device)
        for part in parts_of(x_BLD.shape[1]):
            normed = F.layer_norm(x_BLD[:, part].float(), x_BLD.shape[-1:], eps=norm.eps).to(x_BLD.dtype)
            out[:, part] = F.linear(normed.float() * scale + shift, weight, bias)
        patches = out.view(out.shape[0], *grid, 2, 2, -1)
        return patches.permute(0, 6, 1, 2, 4, 3, 5).flatten(5).flatten(3, 4)


def add_proj_l(dit: Any) -> None:
    """Give each block the map of sparse-linear attention's linear part, one [d, d] for all its heads.

    For models that were trained so. New ones are as any new layer: their files hold what belongs there.
    """
    head_dim = dit.config.attention_head_dim
    for block in dit.blocks:
        block.attn1.proj_l = nn.Linear(head_dim, head_dim)


def rope_tables(grid: tuple[int, int, int], head_dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines [L, d/2] in fp32 of a grid of latent frames, rows and columns of tokens."""
    spatial = head_dim // 6
    parts = []
    for axis, (length, pairs) in enumerate(
        zip(grid, (head_dim // 2 - 2 * spatial, spatial, spatial), strict=True)
    ):
        power = torch.arange(0, 2 * pairs, 2, dtype=torch.float32, device=device) / (2 * pairs)
        turn = torch.outer(
            torch.arange(length, dtype=torch.float32, device=device), 1.0 / torch.pow(ROPE_THETA, power)
        )
        shape = [1, 1, 1, pairs]
        shape[axis] = length
        parts.append(turn.view(shape).expand(*grid, pairs))
    turn_Ld = torch.cat(parts, dim=-1).flatten(0, 2)
    return turn_Ld.cos(), turn_Ld.sin()


def _heads(x_LD: Tensor, heads: int) -> Tensor:
    return x_LD.view(1, len(x_LD), heads, -1)


def _linear_in_fp32(x: Tensor, linear: nn.Linear, pieces: int = 1) -> Tensor:
    """As the layer with its weights widened; `pieces` rows at a time, since a wide copy may be large."""
    outputs = [
        F.linear(x, weight.float(), bias.float())
        for weight, bias in zip(linear.weight.chunk(pieces), linear.bias.chunk(pieces), strict=True)
    ]
    return torch.cat(outputs, dim=-1)
