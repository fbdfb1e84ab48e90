"""Small random checkpoints in the released layout, by the released names, of a tiny width."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.specification import int8

WIDTH = 256
FFN = 384
TEXT = 48
LINEARS = (
    "self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o",
    "cross_attn.q", "cross_attn.k", "cross_attn.v", "cross_attn.o", "ffn.0", "ffn.2",
)  # fmt: skip
"""Of each block: those that a quantised checkpoint stores in 8 bits."""


def turbo_wan(
    *,
    channels: int = 16,
    blocks: int = 2,
    dtype: torch.dtype = torch.float32,
    proj_l: bool = True,
    seed: int = 0,
) -> dict[str, Tensor]:
    """A state dict as TurboWan's .pth holds it: norms and everything else in `dtype`, nothing zero.

    `channels` is 16 for text to video and 36 for image to video.
    """
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, Tensor] = {}

    def put(name: str, *shape: int, scale: float = 1.0, around: float = 0.0) -> None:
        found[name] = (around + scale * torch.randn(shape, generator=generator)).to(dtype)

    def linear(name: str, inputs: int, outputs: int) -> None:
        put(f"{name}.weight", outputs, inputs, scale=inputs**-0.5)
        put(f"{name}.bias", outputs, scale=0.1)

    linear("patch_embedding", channels * 4, WIDTH)
    linear("text_embedding.0", TEXT, WIDTH)
    linear("text_embedding.2", WIDTH, WIDTH)
    linear("time_embedding.0", 256, WIDTH)
    linear("time_embedding.2", WIDTH, WIDTH)
    linear("time_projection.1", WIDTH, 6 * WIDTH)
    linear("head.head", WIDTH, 64)
    put("head.modulation", 1, 2, WIDTH, scale=0.3)
    for number in range(blocks):
        name = f"blocks.{number}"
        put(f"{name}.modulation", 1, 6, WIDTH, scale=0.3)
        put(f"{name}.norm3.weight", WIDTH, scale=0.2, around=1.0)
        put(f"{name}.norm3.bias", WIDTH, scale=0.2)
        for which in LINEARS:
            inputs, outputs = {"ffn.0": (WIDTH, FFN), "ffn.2": (FFN, WIDTH)}.get(which, (WIDTH, WIDTH))
            linear(f"{name}.{which}", inputs, outputs)
        for kind in ("self_attn", "cross_attn"):
            put(f"{name}.{kind}.norm_q.weight", WIDTH, scale=0.2, around=1.0)
            put(f"{name}.{kind}.norm_k.weight", WIDTH, scale=0.2, around=1.0)
        if proj_l:
            put(f"{name}.self_attn.attn_op.local_attn.proj_l.weight", 128, 128, scale=0.1)
            put(f"{name}.self_attn.attn_op.local_attn.proj_l.bias", 128, scale=0.1)
    return found


def quantised(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same as a -quant checkpoint: of each block's linears an int8 weight and its scale."""
    found = dict(tensors)
    for name in tensors:
        part = name.split(".", 2)[2] if name.startswith("blocks.") else ""
        if part.removesuffix(".weight") in LINEARS and part.endswith(".weight"):
            whole = int8.quantise(found.pop(name))
            found[name.removesuffix("weight") + "int8_weight"] = whole.values
            found[name.removesuffix("weight") + "scale"] = whole.scale
    return found
