"""Small random VAEs and text encoders by the released names; tests/specification has the DiT."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from engine.models.demo_tokenizer import make_tokenizer
from tests.specification.checkpoints import TEXT

BASE = 8
"""Channels of the VAE; the released one has 96."""


def write_parts(folder: Path) -> Path:
    """What all models have in common, in `folder` as TurboDiffusion's checkpoints lie."""
    folder.mkdir()
    torch.save(wan_vae(), folder / "Wan2.1_VAE.pth")
    torch.save(umt5(), folder / "models_t5_umt5-xxl-enc-bf16.pth")
    make_tokenizer(folder / "google" / "umt5-xxl")
    return folder


def wan_vae(*, base: int = BASE, latent: int = 16, seed: int = 3) -> dict[str, Tensor]:
    """A state dict as Wan2.1_VAE.pth holds it, 194 tensors."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator) * 0.1 + (1.0 if name.endswith("gamma") else 0.0)
        for name, shape in _vae_shapes(base, latent)
    }


def umt5(
    *, width: int = TEXT, layers: int = 2, vocabulary: int = 1024, dtype: torch.dtype = torch.bfloat16
) -> dict[str, Tensor]:
    """A state dict as models_t5_umt5-xxl-enc-bf16.pth holds it, of 4 heads of 8."""
    generator = torch.Generator().manual_seed(4)
    inner, ffn = 32, 40
    shapes = {"token_embedding.weight": (vocabulary, width), "norm.weight": (width,)}
    for number in range(layers):
        name = f"blocks.{number}"
        shapes |= {f"{name}.attn.{part}.weight": (inner, width) for part in "qkv"}
        shapes |= {
            f"{name}.attn.o.weight": (width, inner),
            f"{name}.norm1.weight": (width,),
            f"{name}.norm2.weight": (width,),
            f"{name}.ffn.gate.0.weight": (ffn, width),
            f"{name}.ffn.fc1.weight": (ffn, width),
            f"{name}.ffn.fc2.weight": (width, ffn),
            f"{name}.pos_embedding.embedding.weight": (32, 4),
        }
    return {name: (0.3 * torch.randn(shape, generator=generator)).to(dtype) for name, shape in shapes.items()}


Shapes = Iterator[tuple[str, tuple[int, ...]]]


def _conv(name: str, inputs: int, outputs: int, *kernel: int) -> Shapes:
    yield f"{name}.weight", (outputs, inputs, *kernel)
    yield f"{name}.bias", (outputs,)


def _residual(name: str, inputs: int, outputs: int) -> Shapes:
    yield f"{name}.residual.0.gamma", (inputs, 1, 1, 1)
    yield from _conv(f"{name}.residual.2", inputs, outputs, 3, 3, 3)
    yield f"{name}.residual.3.gamma", (outputs, 1, 1, 1)
    yield from _conv(f"{name}.residual.6", outputs, outputs, 3, 3, 3)
    if inputs != outputs:
        yield from _conv(f"{name}.shortcut", inputs, outputs, 1, 1, 1)


def _middle(side: str, width: int) -> Shapes:
    yield from _residual(f"{side}.middle.0", width, width)
    yield f"{side}.middle.1.norm.gamma", (width, 1, 1)
    yield from _conv(f"{side}.middle.1.to_qkv", width, 3 * width, 1, 1)
    yield from _conv(f"{side}.middle.1.proj", width, width, 1, 1)
    yield from _residual(f"{side}.middle.2", width, width)


def _vae_shapes(base: int, latent: int) -> Shapes:
    top = 4 * base
    yield from _conv("encoder.conv1", 3, base, 3, 3, 3)
    downs: list[tuple[str, *tuple[int, ...]]] = [
        ("r", base, base),
        ("r", base, base),
        ("d", base),
        ("r", base, 2 * base),
    ]
    downs += [("r", 2 * base, 2 * base), ("dt", 2 * base), ("r", 2 * base, top), ("r", top, top), ("dt", top)]
    downs += [("r", top, top), ("r", top, top)]
    for number, (kind, *widths) in enumerate(downs):
        name = f"encoder.downsamples.{number}"
        if kind == "r":
            yield from _residual(name, *widths)
        else:
            yield from _conv(f"{name}.resample.1", widths[0], widths[0], 3, 3)
            if kind == "dt":
                yield from _conv(f"{name}.time_conv", widths[0], widths[0], 3, 1, 1)
    yield from _middle("encoder", top)
    yield "encoder.head.0.gamma", (top, 1, 1, 1)
    yield from _conv("encoder.head.2", top, 2 * latent, 3, 3, 3)
    yield from _conv("conv1", 2 * latent, 2 * latent, 1, 1, 1)
    yield from _conv("conv2", latent, latent, 1, 1, 1)
    yield from _conv("decoder.conv1", latent, top, 3, 3, 3)
    yield from _middle("decoder", top)
    half = 2 * base
    ups: list[tuple[str, *tuple[int, ...]]] = [("r", top, top)] * 3 + [
        ("ut", top),
        ("r", half, top),
        ("r", top, top),
        ("r", top, top),
        ("ut", top),
    ]
    ups += [("r", half, half)] * 3 + [("u", half)] + [("r", base, base)] * 3
    for number, (kind, *widths) in enumerate(ups):
        name = f"decoder.upsamples.{number}"
        if kind == "r":
            yield from _residual(name, *widths)
        else:
            yield from _conv(f"{name}.resample.1", widths[0], widths[0] // 2, 3, 3)
            if kind == "ut":
                yield from _conv(f"{name}.time_conv", widths[0], 2 * widths[0], 3, 1, 1)
    yield "decoder.head.0.gamma", (base, 1, 1, 1)
    yield from _conv("decoder.head.2", base, 3, 3, 3, 3)
