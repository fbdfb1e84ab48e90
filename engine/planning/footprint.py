"""How much memory each stage of a generation takes at its peak, estimated before it runs.

Analytic: weights from the files' headers, working memory from the nets' sizes and the video's.
An upper estimate, meant for admission: too high makes a job wait, too low makes it fail.

Source: of the DiT what `engine.worker.nets.wan` holds at once (U = tokens x D x bytes; 5.08 to 5.44 U
measured on an H200 at 32,760 and 75,600 tokens); of the VAE `engine.planning.vae_footprint`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from engine.models.configs import DitConfig, TextConfig
from engine.models.dtypes import BYTES_BY_NAME
from engine.models.model import Model
from engine.planning.attention import DEFAULT_TOPK
from engine.planning.shapes import PART_TOKENS, TEXT_TOKENS, dit_tokens, latent_shape
from engine.planning.vae_footprint import decode_bytes, encode_bytes
from engine.wire import AttentionKind, Stage

DeviceKind: TypeAlias = Literal["cuda", "cpu"]

GIB = 2**30
MIB = 2**20

ATTENTION_UNITS = 4
"""x, queries, keys and values, of all tokens."""
PADDED_UNITS = 2
"""Keys and values in whole blocks, beside those, where no kernel attends sparsely."""
LOOKUP_BYTES = 12
"""For each key block that a head's query block chose: its number as it is found, and as kernels take it."""
QUERY_BLOCK, KEY_BLOCK = 128, 64
"""Tokens of the blocks; with 8-bit products on some GPUs the other way round, which is as many pairs."""
EIGHT_BIT_BYTES = 3
"""For each number of all tokens with 8-bit products: queries, keys and values in 8 bits."""
SCORE_BYTES = 3
"""Numbers for each pair of blocks while the largest are found: scores, and what sorting them takes."""
HEAD_BYTES = 16
"""For each number of some tokens that the output's norm and product in fp32 take."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceMargins:
    """What libraries take beyond the live tensors."""

    factor: float
    """On the live tensors: allocator slack, and workspaces that grow with them."""
    vae_factor: float
    """The same for the VAE's convolutions."""
    constant_bytes: int
    """Workspaces and buffers that any stage takes."""
    wide_bytes: int
    """For each number of the tokens that are computed at once: fp32 between the products, where no kernel
    does it in one pass."""
    int8_bytes: int
    """For each number that an int8 layer takes in or gives, beside those: its int8 copy, on cpu fp32 sums."""


MARGINS: Mapping[DeviceKind, DeviceMargins] = {
    "cuda": DeviceMargins(factor=1.15, vae_factor=1.25, constant_bytes=160 * MIB, wide_bytes=0, int8_bytes=1),
    "cpu": DeviceMargins(factor=1.5, vae_factor=4.5, constant_bytes=96 * MIB, wide_bytes=24, int8_bytes=12),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class StageFootprint:
    """What one stage takes."""

    weights_bytes: int
    """Of the largest component that it uses: it never needs two at once, not even both experts."""
    activation_bytes: int
    """Working memory at its peak, latents included."""

    @property
    def bytes(self) -> int:
        return self.weights_bytes + self.activation_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Footprint:
    """What a whole job takes when every stage holds only what it needs."""

    stages: Mapping[Stage, StageFootprint]
    peak_bytes: int
    """Of the largest stage, its weights included: the least budget in which the job can run."""
    weights_bytes: int
    """The most weights that any one stage needs."""


def estimate_footprint(
    model: Model,
    width: int,
    height: int,
    num_frames: int,
    *,
    device_kind: DeviceKind,
    attention: AttentionKind | None = None,
    topk: float | None = None,
    samples: int = 1,
) -> Footprint:
    """What a `width` x `height` video of `num_frames` takes on `device_kind`.

    `attention` and its `topk` are by default the model's own. Of several samples only the latents
    lie there at once: nets see one after the other.

    Raises:
        ValueError: the model has a problem, or the size or count is none that the nets take.
    """
    if model.configs is None:
        raise ValueError(f"{model.name} cannot be used: {model.problem}")
    configs, margins = model.configs, MARGINS[device_kind]
    sizes = {component.name: component.bytes for component in model.components}
    widths = {component.name: BYTES_BY_NAME[component.dtype] for component in model.components}
    latents_bytes = 8 * _product(latent_shape(width, height, num_frames, samples))
    experts = [name for name in sizes if name.startswith("dit")]

    def stage(*names: str, live_bytes: int, factor: float) -> StageFootprint:
        return StageFootprint(
            weights_bytes=max(sizes[name] for name in names),
            activation_bytes=round(live_bytes * factor) + margins.constant_bytes,
        )

    stages: dict[Stage, StageFootprint] = {}
    stages["text"] = stage(
        "text", live_bytes=_text_bytes(configs.text, widths["text"]), factor=margins.factor
    )
    vae = configs.vae
    if model.kind == "i2v":
        stages["image"] = stage(
            "vae",
            live_bytes=encode_bytes(vae, width, height, widths["vae"]) + latents_bytes,
            factor=margins.vae_factor,
        )
    tokens = dit_tokens(width, height, num_frames)
    # Float64 x and v, the next x, fresh noise; the net's input and output are smaller.
    kind = attention or model.attention
    attention_bytes = _attention_bytes(
        configs.dit, tokens, widths[experts[0]], kind, topk or DEFAULT_TOPK, by_kernels=device_kind == "cuda"
    )
    dit_bytes = _dit_bytes(configs.dit, tokens, widths[experts[0]], margins, attention_bytes)
    dit_bytes += 5 * latents_bytes
    stages["denoise"] = stage(*experts, live_bytes=dit_bytes, factor=margins.factor)
    stages["decode"] = stage(
        "vae",
        live_bytes=decode_bytes(vae, width, height, widths["vae"]) + latents_bytes,
        factor=margins.vae_factor,
    )
    return Footprint(
        stages=stages,
        peak_bytes=max(part.bytes for part in stages.values()),
        weights_bytes=max(part.weights_bytes for part in stages.values()),
    )


def _attention_bytes(
    dit: DitConfig, tokens: int, dtype_bytes: int, kind: AttentionKind, topk: float, *, by_kernels: bool
) -> int:
    """What self-attention takes beside its inputs: its output, and what it works with."""
    numbers = tokens * dit.width
    output = numbers * dtype_bytes
    if kind == "dense":
        return output
    pairs = dit.num_attention_heads * -(-tokens // QUERY_BLOCK) * -(-tokens // KEY_BLOCK)
    found = round(pairs * (topk * LOOKUP_BYTES + SCORE_BYTES * dtype_bytes))
    eight_bit = numbers * EIGHT_BIT_BYTES if kind == "sagesla" else 0
    if by_kernels:
        # With 8-bit copies of the queries the output lies in their place.
        return found + (eight_bit or output)
    # One query block at a time: the keys and values that it chose, as they are and in fp32.
    gathered = round(2 * topk * numbers * (dtype_bytes + 4))
    return output + PADDED_UNITS * numbers * dtype_bytes + gathered + found + eight_bit


def _dit_bytes(
    dit: DitConfig, tokens: int, dtype_bytes: int, margins: DeviceMargins, attention_bytes: int
) -> int:
    """Live bytes of one forward pass at its peak: in attention, in the feed-forward or at the output."""
    unit, part = tokens * dit.width * dtype_bytes, min(tokens, PART_TOKENS)
    beside = part * dit.width * (3 * dtype_bytes + margins.wide_bytes)
    inner = part * dit.ffn_dim * (dtype_bytes + (margins.int8_bytes if dit.int8 else 0))
    head = part * dit.width * max(HEAD_BYTES, margins.wide_bytes)
    # While q, k and v are made, part by part, the attention's output is not there yet.
    attending = ATTENTION_UNITS * unit + max(attention_bytes, beside)
    # Text keys and values, fp32 rotary tables, modulation: small but for short videos.
    text = TEXT_TOKENS * (dit.text_dim + 4 * dit.width) * dtype_bytes
    rotary = tokens * dit.attention_head_dim * 4 * 2
    return max(attending, unit + beside + inner, unit + head) + text + rotary


def _text_bytes(text: TextConfig, dtype_bytes: int) -> int:
    """Live bytes of umT5 over 512 tokens: fp32 scores with their bias, gated feed-forward."""
    scores = 3 * text.num_heads * TEXT_TOKENS**2 * 4
    feed_forward = 4 * TEXT_TOKENS * text.d_ff * dtype_bytes
    hidden = 6 * TEXT_TOKENS * text.d_model * 4
    return scores + feed_forward + hidden


def _product(shape: tuple[int, ...]) -> int:
    total = 1
    for axis in shape:
        total *= axis
    return total
