"""What one net is, from its tensors alone: names, shapes and dtypes.

A name of a file is believed in what no tensor tells: which of two experts it holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from engine.errors import ModelUnusable
from engine.models.configs import I2V_CHANNELS, T2V_CHANNELS
from engine.models.importing.found import Expert, Found, unreadable, unsupported
from engine.models.importing.nets import HEAD_DIM
from engine.models.importing.weights import Weights
from engine.models.layout import INT8, NOT_DISTILLED
from engine.planning.shapes import LATENT_CHANNELS

_LORA = re.compile(r"\.(lora_(A|B|up|down)|lora\.(up|down)|hada_w\d|lokr_w\d|diff(_b)?)(\.|$)|(^|\.)lora_")
_HIGH = re.compile(r"(?<![a-z])high(?:(?=[-_. ]?noise)|(?![a-z]))", re.IGNORECASE)
_LOW = re.compile(r"(?<![a-z])low(?:(?=[-_. ]?noise)|(?![a-z]))", re.IGNORECASE)


def recognise(path: Path, weights: Weights) -> Found:
    """What `weights`, which lie at `path`, are."""
    names = weights.tensors
    lora = next((name for name in names if _LORA.search(name)), None)
    if lora is not None:
        return replace(
            unsupported(
                path,
                "LoRA",
                f"it is a LoRA ({lora}), which changes a model and is none; merge it into a model first",
            ),
            kind="lora",
        )
    eight = next((tensor for tensor in names.values() if tensor.entry.dtype.startswith("F8_")), None)
    if eight is not None or "scaled_fp8" in names:
        which = "scaled_fp8" if eight is None else eight.name
        return unsupported(
            path,
            "fp8 weights",
            f"its weights are fp8 ({which}), which this build does not run; take the bf16 or the -quant file",
        )
    if "patch_embedding.weight" in names and _any_of(names, "blocks.0.self_attn.", "blocks.0.attn1."):
        return _dit(path, weights)
    if _any_of(names, "decoder.conv1.", "decoder.conv_in.", "decoder.middle.", "decoder.mid_block."):
        return _vae(path, weights)
    encoder = _text(path, weights)
    if encoder is not None:
        return encoder
    if _any_of(names, "visual.", "text_model.", "vision_model.", "conditioner.", "log_scale", "textual."):
        return unsupported(
            path,
            "CLIP",
            "it is a CLIP encoder, which Wan2.1 I2V needs and no model that this build runs",
        )
    first = ", ".join(list(names)[:3])
    return unsupported(
        path,
        f"{len(names)} tensors of another net",
        f"its tensors ({first}, ...) belong to no Wan DiT, no Wan2.1 VAE and no umT5 encoder",
    )


def _dit(path: Path, weights: Weights) -> Found:
    names = weights.tensors
    patch = names["patch_embedding.weight"].entry.shape
    if len(patch) not in (2, 5) or not all(patch):
        return unreadable(
            path,
            ModelUnusable(
                f"{path} holds patch_embedding.weight of shape {list(patch)} where a Wan DiT has "
                "[width, channels * 4] or [width, channels, 1, 2, 2]"
            ),
        )
    width = patch[0]
    channels = patch[1] // 4 if len(patch) == 2 else patch[1]
    layers = _layers(names, r"blocks\.(\d+)\.")
    quantised = any(
        name.endswith(".int8_weight") or (name.endswith(".weight") and tensor.entry.dtype == INT8)
        for name, tensor in names.items()
    )
    distilled = any(".proj_l." in name for name in names)
    kind = {T2V_CHANNELS: "T2V", I2V_CHANNELS: "I2V"}.get(channels, f"{channels}-channel")
    family = "TurboWan" if distilled else "Wan"
    title = f"{family} {kind} DiT, {layers} layers of {width}, {'int8' if quantised else weights.dtype_name}"
    found = Found(
        path=path,
        kind="dit",
        verdict="usable",
        sentence="it is distilled by TurboDiffusion: it makes videos in 1 to 4 steps",
        title=title,
        width=width,
        layers=layers,
        in_channels=channels,
        quantised=quantised,
        distilled=distilled,
        expert=expert_of(path),
    )
    refusal = _dit_refusal(weights, width, channels)
    if refusal is not None:
        return replace(found, kind="unsupported", verdict="unsupported", sentence=refusal)
    if not distilled:
        return replace(found, verdict="parts", sentence=NOT_DISTILLED)
    return found


def _dit_refusal(weights: Weights, width: int, channels: int) -> str | None:
    """Why this build does not run such a DiT; None where it does."""
    names = weights.tensors

    def first(*parts: str) -> str | None:
        return next((name for name in names if any(part in name for part in parts)), None)

    if of := first("vace_"):
        return f"it is a Wan VACE model ({of}), which this build does not run; take a TurboWan checkpoint"
    if channels == 48:
        return (
            "it is Wan2.2 TI2V 5B (48 channels of latents), which TurboDiffusion does not distil and this "
            "build does not run; take TurboWan2.1 T2V or TurboWan2.2 I2V A14B"
        )
    if of := first("img_emb.", ".k_img.", "image_embedder.", ".add_k_proj."):
        return (
            f"it is Wan2.1 I2V with an image encoder ({of}), which this build does not run; take "
            "TurboWan2.2 I2V A14B"
        )
    if of := first("motion_encoder.", "face_adapter.", "casual_audio_encoder.", "audio_injector."):
        return f"it is a Wan model for faces or sound ({of}), which this build does not run"
    if of := first("control_adapter.", "ref_conv."):
        return f"it is a Wan model with control inputs ({of}), which this build does not run"
    if channels not in (T2V_CHANNELS, I2V_CHANNELS):
        return (
            f"its DiT takes {channels} channels, and this build runs {T2V_CHANNELS} (text to video) and "
            f"{I2V_CHANNELS} (image to video with two experts)"
        )
    if width % HEAD_DIM:
        return f"its DiT is {width} wide, which is no whole number of heads of {HEAD_DIM}"
    return None


def _vae(path: Path, weights: Weights) -> Found:
    names = weights.tensors
    released = "conv2.weight" in names
    bottleneck = weights.shape("conv2.weight" if released else "post_quant_conv.weight")
    depth = len(bottleneck) if bottleneck else 0
    if (bottleneck and bottleneck[0] == 48) or _any_of(names, "decoder.upsamples.0.upsamples."):
        return unsupported(
            path,
            "Wan2.2 VAE",
            "it is the VAE of Wan2.2 TI2V 5B (48 channels of latents); every model that this build runs has "
            "that of Wan2.1 (Wan2.1_VAE.pth)",
        )
    first = "encoder.conv1.weight" if released else "encoder.conv_in.weight"
    if depth != 5 or bottleneck is None or bottleneck[0] != LATENT_CHANNELS or first not in names:
        said = "no 3-D bottleneck" if depth != 5 or bottleneck is None else f"{bottleneck[0]} latent channels"
        return unsupported(
            path, "another VAE", f"it is a VAE with {said}, and this build decodes with that of Wan2.1"
        )
    return Found(
        path=path,
        kind="vae",
        verdict="usable",
        sentence="it is the VAE of all models that this build runs",
        title=f"Wan2.1 VAE, {weights.dtype_name}",
    )


def _text(path: Path, weights: Weights) -> Found | None:
    """The text encoder that `weights` are; None where they are no such thing."""
    names = weights.tensors
    released = "token_embedding.weight" in names and "blocks.0.attn.q.weight" in names
    if not released and "encoder.block.0.layer.0.SelfAttention.q.weight" not in names:
        return None
    own_bias = (
        "blocks.{}.pos_embedding.embedding.weight"
        if released
        else "encoder.block.{}.layer.0.SelfAttention.relative_attention_bias.weight"
    )
    blocks = r"blocks\.(\d+)\." if released else r"encoder\.block\.(\d+)\."
    layers = _layers(names, blocks)
    if layers > 1 and own_bias.format(1) not in names:
        return unsupported(
            path,
            "T5 encoder",
            f"it is a T5 encoder with one bias for all layers ({own_bias.format(1)} is missing); Wan models "
            "need umT5",
        )
    return Found(
        path=path,
        kind="text",
        verdict="usable",
        sentence="it is the umT5 encoder of all models that this build runs",
        title=f"umT5 encoder, {layers} layers, {weights.dtype_name}",
    )


def expert_of(path: Path) -> Expert | None:
    """Which of two experts `path` names, or else the folder that it lies in; None where neither says."""
    for name in (path.name, path.parent.name):
        said: list[Expert] = []
        if _HIGH.search(name):
            said.append("high")
        if _LOW.search(name):
            said.append("low")
        if len(said) == 1:
            return said[0]
    return None


def _any_of(names: Iterable[str], *beginnings: str) -> bool:
    return any(name.startswith(beginnings) for name in names)


def _layers(names: Iterable[str], block: str) -> int:
    """How many blocks there are by the highest number of one, which `block` finds."""
    return max(int(found[1]) for name in names if (found := re.match(block, name))) + 1
