"""The nets that this build runs, by their sizes: every tensor with its shape, and the `config.json`.

The names are those of the modules: diffusers' WanTransformer3DModel and AutoencoderKLWan, transformers'
UMT5EncoderModel. The sizes are read from a checkpoint's own shapes, so no configuration is fetched.

Source: the modules' own state dicts, which tests/unit/test_import_nets.py compares.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from engine.models.configs import INT8_BLOCK
from engine.models.layout import FP32, INT8, INT8_BLOCK_SIZE, SCALE, int8_scale_shape
from engine.planning.shapes import LATENT_CHANNELS

HEAD_DIM = 128
PATCH = (1, 2, 2)
FLOATING = "floating"
"""Any number format that is."""
_PROJ_L = ".attn1.proj_l."
VAE_MULT = (1, 2, 4, 4)
VAE_DOWN_IN_TIME = (False, True, True)
LATENTS_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
LATENTS_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip
"""Of the Wan2.1 VAE's latents, by channel."""

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What a net has a place for."""

    shape: Shape
    dtype: str = FLOATING
    """As headers spell it, or `FLOATING`."""


class Net(Protocol):
    """One net by its sizes."""

    def tensors(self) -> dict[str, Wanted]:
        """Every tensor that the module has a place for, by name."""

    def config(self) -> dict[str, object]:
        """The component's `config.json`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DitSizes:
    """A Wan transformer."""

    width: int
    layers: int
    in_channels: int
    out_channels: int
    ffn: int
    text_dim: int
    frequencies: int
    """Numbers of the sinusoid that stands for the time."""
    quantised: bool
    distilled: bool
    """Whether its self-attention has `proj_l`."""

    def tensors(self) -> dict[str, Wanted]:
        width = self.width
        found: dict[str, Wanted] = {
            "patch_embedding.weight": Wanted(shape=(width, self.in_channels, *PATCH)),
            "patch_embedding.bias": Wanted(shape=(width,)),
            "scale_shift_table": Wanted(shape=(1, 2, width)),
        }
        embedder = "condition_embedder"
        found |= _linear(f"{embedder}.time_embedder.linear_1", self.frequencies, width)
        found |= _linear(f"{embedder}.time_embedder.linear_2", width, width)
        found |= _linear(f"{embedder}.time_proj", width, 6 * width)
        found |= _linear(f"{embedder}.text_embedder.linear_1", self.text_dim, width)
        found |= _linear(f"{embedder}.text_embedder.linear_2", width, width)
        found |= _linear("proj_out", width, self.out_channels * math.prod(PATCH))
        for number in range(self.layers):
            found |= self._block(f"blocks.{number}")
        return found

    def config(self) -> dict[str, object]:
        config: dict[str, object] = {
            "_class_name": "WanTransformer3DModel",
            "added_kv_proj_dim": None,
            "attention_head_dim": HEAD_DIM,
            "cross_attn_norm": True,
            "eps": 1e-6,
            "ffn_dim": self.ffn,
            "freq_dim": self.frequencies,
            "image_dim": None,
            "in_channels": self.in_channels,
            "num_attention_heads": self.width // HEAD_DIM,
            "num_layers": self.layers,
            "out_channels": self.out_channels,
            "patch_size": list(PATCH),
            "pos_embed_seq_len": None,
            "qk_norm": "rms_norm_across_heads",
            "rope_max_seq_len": 1024,
            "text_dim": self.text_dim,
        }
        if self.quantised:
            config["quantization_config"] = {"quant_method": INT8_BLOCK, "block_size": INT8_BLOCK_SIZE}
        return config

    def _block(self, name: str) -> dict[str, Wanted]:
        width = self.width
        found = {f"{name}.scale_shift_table": Wanted(shape=(1, 6, width))}
        found |= {f"{name}.norm2.{part}": Wanted(shape=(width,)) for part in ("weight", "bias")}
        for attention in ("attn1", "attn2"):
            for part in ("to_q", "to_k", "to_v", "to_out.0"):
                found |= self._quantised_linear(f"{name}.{attention}.{part}", width, width)
            for part in ("norm_q", "norm_k"):
                found[f"{name}.{attention}.{part}.weight"] = Wanted(shape=(width,))
        found |= self._quantised_linear(f"{name}.ffn.net.0.proj", width, self.ffn)
        found |= self._quantised_linear(f"{name}.ffn.net.2", self.ffn, width)
        if self.distilled:
            found |= _linear(f"{name}{_PROJ_L}".removesuffix("."), HEAD_DIM, HEAD_DIM)
        return found

    def _quantised_linear(self, name: str, inputs: int, outputs: int) -> dict[str, Wanted]:
        found = _linear(name, inputs, outputs)
        if self.quantised:
            found[f"{name}.weight"] = Wanted(shape=(outputs, inputs), dtype=INT8)
            found[f"{name}{SCALE}"] = Wanted(shape=int8_scale_shape(outputs, inputs), dtype=FP32)
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class TextSizes:
    """A umT5 encoder."""

    vocabulary: int
    width: int
    inner: int
    """Width of all heads together."""
    heads: int
    ffn: int
    layers: int
    buckets: int
    """Of relative distance."""

    def tensors(self) -> dict[str, Wanted]:
        width = self.width
        found = {
            "shared.weight": Wanted(shape=(self.vocabulary, width)),
            "encoder.final_layer_norm.weight": Wanted(shape=(width,)),
        }
        for number in range(self.layers):
            attention = f"encoder.block.{number}.layer.0"
            for part in "qkv":
                found[f"{attention}.SelfAttention.{part}.weight"] = Wanted(shape=(self.inner, width))
            found[f"{attention}.SelfAttention.o.weight"] = Wanted(shape=(width, self.inner))
            bias = f"{attention}.SelfAttention.relative_attention_bias.weight"
            found[bias] = Wanted(shape=(self.buckets, self.heads))
            found[f"{attention}.layer_norm.weight"] = Wanted(shape=(width,))
            feed = f"encoder.block.{number}.layer.1"
            for part in ("wi_0", "wi_1"):
                found[f"{feed}.DenseReluDense.{part}.weight"] = Wanted(shape=(self.ffn, width))
            found[f"{feed}.DenseReluDense.wo.weight"] = Wanted(shape=(width, self.ffn))
            found[f"{feed}.layer_norm.weight"] = Wanted(shape=(width,))
        return found

    def config(self) -> dict[str, object]:
        return {
            "architectures": ["UMT5EncoderModel"],
            "d_ff": self.ffn,
            "d_kv": self.inner // self.heads,
            "d_model": self.width,
            "feed_forward_proj": "gated-gelu",
            "layer_norm_epsilon": 1e-6,
            "model_type": "umt5",
            "num_heads": self.heads,
            "num_layers": self.layers,
            "relative_attention_max_distance": 128,
            "relative_attention_num_buckets": self.buckets,
            "tie_word_embeddings": False,
            "vocab_size": self.vocabulary,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class VaeSizes:
    """A VAE of Wan2.1's kind."""

    base: int
    decoder_base: int

    def tensors(self) -> dict[str, Wanted]:
        return {name: Wanted(shape=shape) for name, shape in self._shapes()}

    def config(self) -> dict[str, object]:
        return {
            "_class_name": "AutoencoderKLWan",
            "attn_scales": [],
            "base_dim": self.base,
            "decoder_base_dim": None if self.decoder_base == self.base else self.decoder_base,
            "dim_mult": list(VAE_MULT),
            "dropout": 0.0,
            "latents_mean": list(LATENTS_MEAN),
            "latents_std": list(LATENTS_STD),
            "num_res_blocks": 2,
            "temperal_downsample": list(VAE_DOWN_IN_TIME),
            "z_dim": LATENT_CHANNELS,
        }

    def _shapes(self) -> Iterator[tuple[str, Shape]]:
        z = LATENT_CHANNELS
        yield from _conv("quant_conv", 2 * z, 2 * z, (1, 1, 1))
        yield from _conv("post_quant_conv", z, z, (1, 1, 1))
        widths = [self.base * mult for mult in (1, *VAE_MULT)]
        yield from _conv("encoder.conv_in", 3, widths[0], (3, 3, 3))
        number = 0
        for level, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
            for residual in range(2):
                before = outputs if residual else inputs
                yield from _residual(f"encoder.down_blocks.{number}", before, outputs)
                number += 1
            if level < len(VAE_DOWN_IN_TIME):
                name = f"encoder.down_blocks.{number}"
                yield from _conv(f"{name}.resample.1", outputs, outputs, (3, 3))
                if VAE_DOWN_IN_TIME[level]:
                    yield from _conv(f"{name}.time_conv", outputs, outputs, (3, 1, 1))
                number += 1
        yield from _middle("encoder", widths[-1])
        yield from _end("encoder", widths[-1], 2 * z)
        widths = [self.decoder_base * mult for mult in (VAE_MULT[-1], *reversed(VAE_MULT))]
        yield from _conv("decoder.conv_in", z, widths[0], (3, 3, 3))
        yield from _middle("decoder", widths[0])
        for level, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
            # What enlarges the level before has halved its channels.
            inputs = inputs // 2 if level else inputs
            for residual in range(3):
                name = f"decoder.up_blocks.{level}.resnets.{residual}"
                yield from _residual(name, outputs if residual else inputs, outputs)
            if level < len(VAE_DOWN_IN_TIME):
                name = f"decoder.up_blocks.{level}.upsamplers.0"
                yield from _conv(f"{name}.resample.1", outputs, outputs // 2, (3, 3))
                if VAE_DOWN_IN_TIME[-1 - level]:
                    yield from _conv(f"{name}.time_conv", outputs, 2 * outputs, (3, 1, 1))
        yield from _end("decoder", widths[-1], 3)


def _linear(name: str, inputs: int, outputs: int) -> dict[str, Wanted]:
    return {f"{name}.weight": Wanted(shape=(outputs, inputs)), f"{name}.bias": Wanted(shape=(outputs,))}


def _conv(name: str, inputs: int, outputs: int, kernel: Shape) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (outputs, inputs, *kernel)
    yield f"{name}.bias", (outputs,)


def _residual(name: str, inputs: int, outputs: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.norm1.gamma", (inputs, 1, 1, 1)
    yield from _conv(f"{name}.conv1", inputs, outputs, (3, 3, 3))
    yield f"{name}.norm2.gamma", (outputs, 1, 1, 1)
    yield from _conv(f"{name}.conv2", outputs, outputs, (3, 3, 3))
    if inputs != outputs:
        yield from _conv(f"{name}.conv_shortcut", inputs, outputs, (1, 1, 1))


def _middle(name: str, width: int) -> Iterator[tuple[str, Shape]]:
    yield from _residual(f"{name}.mid_block.resnets.0", width, width)
    yield f"{name}.mid_block.attentions.0.norm.gamma", (width, 1, 1)
    yield from _conv(f"{name}.mid_block.attentions.0.to_qkv", width, 3 * width, (1, 1))
    yield from _conv(f"{name}.mid_block.attentions.0.proj", width, width, (1, 1))
    yield from _residual(f"{name}.mid_block.resnets.1", width, width)


def _end(name: str, width: int, outputs: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.norm_out.gamma", (width, 1, 1, 1)
    yield from _conv(f"{name}.conv_out", width, outputs, (3, 3, 3))


def dit_sizes(shapes: Mapping[str, Shape], *, quantised: bool) -> DitSizes:
    """Of the tensors that a file holds, by our names.

    Raises:
        KeyError: one that tells a size is missing; it is the error's argument.
    """
    patch = shapes["patch_embedding.weight"]
    return DitSizes(
        width=patch[0],
        layers=_count(shapes, "blocks."),
        in_channels=math.prod(patch[1:]) // math.prod(PATCH),
        out_channels=shapes["proj_out.bias"][0] // math.prod(PATCH),
        ffn=shapes["blocks.0.ffn.net.0.proj.bias"][0],
        text_dim=shapes["condition_embedder.text_embedder.linear_1.weight"][-1],
        frequencies=shapes["condition_embedder.time_embedder.linear_1.weight"][-1],
        quantised=quantised,
        distilled=any(_PROJ_L in name for name in shapes),
    )


def text_sizes(shapes: Mapping[str, Shape]) -> TextSizes:
    """As `dit_sizes`."""
    first = "encoder.block.0.layer.0.SelfAttention"
    buckets, heads = shapes[f"{first}.relative_attention_bias.weight"]
    vocabulary, width = shapes["shared.weight"]
    return TextSizes(
        vocabulary=vocabulary,
        width=width,
        inner=shapes[f"{first}.q.weight"][0],
        heads=heads,
        ffn=shapes["encoder.block.0.layer.1.DenseReluDense.wi_0.weight"][0],
        layers=_count(shapes, "encoder.block."),
        buckets=buckets,
    )


def vae_sizes(shapes: Mapping[str, Shape]) -> VaeSizes:
    """As `dit_sizes`."""
    return VaeSizes(base=shapes["encoder.conv_in.bias"][0], decoder_base=shapes["decoder.conv_out.weight"][1])


def _count(names: Mapping[str, Shape], prefix: str) -> int:
    """How many numbered blocks there are.

    Raises:
        KeyError: one is missing between others.
    """
    found = {name.removeprefix(prefix).partition(".")[0] for name in names if name.startswith(prefix)}
    for number in range(len(found)):
        # The highest number alone may be anything that a file says.
        if str(number) not in found:
            raise KeyError(f"{prefix}{number}")
    return len(found)
