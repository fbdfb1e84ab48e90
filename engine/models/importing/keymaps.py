"""Every tensor name of the released files, and what it is called here. Nothing matches in part.

Sources: TurboDiffusion rcm/networks/wan2pt1.py, Wan2.1 wan/modules/{vae,t5}.py for the released names;
diffusers and transformers for ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TypeAlias

from engine.models.layout import SCALE

Rename: TypeAlias = Callable[[str], str | None]
"""A bare name to ours; None where the net has no such tensor."""

_PARAMETERS = MappingProxyType(
    {"weight": ".weight", "bias": ".bias", "int8_weight": ".weight", "scale": SCALE, "weight_scale": SCALE}
)
"""Of a layer: the endings of its tensors' names. A scale belongs to an int8 weight."""
_TOP: Mapping[str, str] = MappingProxyType(
    {
        "patch_embedding": "patch_embedding",
        "text_embedding.0": "condition_embedder.text_embedder.linear_1",
        "text_embedding.2": "condition_embedder.text_embedder.linear_2",
        "time_embedding.0": "condition_embedder.time_embedder.linear_1",
        "time_embedding.2": "condition_embedder.time_embedder.linear_2",
        "time_projection.1": "condition_embedder.time_proj",
        "head.head": "proj_out",
    }
)
_ATTENTIONS = MappingProxyType({"self_attn": "attn1", "cross_attn": "attn2"})
_PROJECTIONS = MappingProxyType({"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0"})
_IN_BLOCK: Mapping[str, str] = MappingProxyType(
    {
        # The released norm3 stands between self-attention and cross-attention, where diffusers has norm2.
        "norm3": "norm2",
        "ffn.0": "ffn.net.0.proj",
        "ffn.2": "ffn.net.2",
        "self_attn.attn_op.local_attn.proj_l": "attn1.proj_l",
        **{
            f"{attention}.{part}": f"{ours}.{name}"
            for attention, ours in _ATTENTIONS.items()
            for part, name in (*_PROJECTIONS.items(), ("norm_q", "norm_q"), ("norm_k", "norm_k"))
        },
    }
)
_OUR_TOP: Mapping[str, str] = MappingProxyType({name: name for name in _TOP.values()})
_OUR_IN_BLOCK: Mapping[str, str] = MappingProxyType(
    {name: name for name in _IN_BLOCK.values()} | {"attn1.attn_op.local_attn.proj_l": "attn1.proj_l"}
)
"""Of diffusers' names; its own renaming leaves `proj_l` where it was."""

_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")


def dit_name(name: str) -> str | None:
    """Of a DiT: the released name to ours."""
    return _dit_name(name, _TOP, _IN_BLOCK, "modulation", "head.modulation")


def diffusers_dit_name(name: str) -> str | None:
    """Of a DiT: diffusers' name to ours. Not one function with `dit_name`: its norm2 is the other's norm3."""
    return _dit_name(name, _OUR_TOP, _OUR_IN_BLOCK, "scale_shift_table", "scale_shift_table")


def dit_names(names: Iterable[str]) -> Rename:
    """Which of the two a file with these names has."""
    released = any(".self_attn." in name or ".cross_attn." in name for name in names)
    return dit_name if released else diffusers_dit_name


def _dit_name(
    name: str, top: Mapping[str, str], in_block: Mapping[str, str], block_table: str, head_table: str
) -> str | None:
    if name == head_table:
        return "scale_shift_table"
    block = _BLOCK.fullmatch(name)
    rest = name if block is None else block[2]
    if block is not None and rest == block_table:
        return f"blocks.{block[1]}.scale_shift_table"
    layer, _, parameter = rest.rpartition(".")
    ending = _PARAMETERS.get(parameter)
    ours = (top if block is None else in_block).get(layer)
    if ending is None or ours is None:
        return None
    return ours + ending if block is None else f"blocks.{block[1]}.{ours}{ending}"


_VAE_RESIDUAL = MappingProxyType(
    {"residual.0": "norm1", "residual.2": "conv1", "residual.3": "norm2", "residual.6": "conv2"}
    | {"shortcut": "conv_shortcut"}
)
_VAE_ENDS = MappingProxyType({"conv1": "conv_in", "head.0": "norm_out", "head.2": "conv_out"})
_VAE_MIDDLE = MappingProxyType({"0": "resnets.0", "1": "attentions.0", "2": "resnets.1"})
_VAE_PART = re.compile(r"(encoder|decoder)\.(middle|downsamples|upsamples)\.(\d+)\.(.+)")
_VAE_OURS = re.compile(
    r"((post_)?quant_conv|(encoder|decoder)\.(conv_in|conv_out|norm_out|(mid_block|down_blocks|up_blocks)\..+))"
    r"\.(weight|bias|gamma)"
)
LEVEL = 4
"""Numbers that the released decoder has for each of its levels: three residual blocks, what enlarges."""


def vae_name(name: str) -> str | None:
    """Of a Wan2.1 VAE: the released name, or diffusers', to ours."""
    if _VAE_OURS.fullmatch(name):
        return name
    layer, _, parameter = name.rpartition(".")
    if layer in ("conv1", "conv2"):
        return f"{'quant_conv' if layer == 'conv1' else 'post_quant_conv'}.{parameter}"
    side, _, rest = layer.partition(".")
    if side in ("encoder", "decoder") and rest in _VAE_ENDS:
        return f"{side}.{_VAE_ENDS[rest]}.{parameter}"
    found = _VAE_PART.fullmatch(layer)
    if found is None:
        return None
    side, where, number, inside = found.groups()
    inside = _VAE_RESIDUAL.get(inside, inside)
    if where == "middle":
        place = None if number not in _VAE_MIDDLE else f"mid_block.{_VAE_MIDDLE[number]}"
    elif side == "encoder":
        place = f"down_blocks.{number}" if where == "downsamples" else None
    else:
        level, position = divmod(int(number), LEVEL)
        part = "upsamplers.0" if position == LEVEL - 1 else f"resnets.{position}"
        place = f"up_blocks.{level}.{part}" if where == "upsamples" else None
    return None if place is None else f"{side}.{place}.{inside}.{parameter}"


_TEXT_TOP = MappingProxyType(
    {
        "token_embedding.weight": "shared.weight",
        "norm.weight": "encoder.final_layer_norm.weight",
    }
)
_TEXT_IN_BLOCK: Mapping[str, str] = MappingProxyType(
    {
        "norm1": "layer.0.layer_norm",
        "norm2": "layer.1.layer_norm",
        "pos_embedding.embedding": "layer.0.SelfAttention.relative_attention_bias",
        "ffn.gate.0": "layer.1.DenseReluDense.wi_0",
        "ffn.fc1": "layer.1.DenseReluDense.wi_1",
        "ffn.fc2": "layer.1.DenseReluDense.wo",
        **{f"attn.{part}": f"layer.0.SelfAttention.{part}" for part in "qkvo"},
    }
)
_TEXT_OURS = re.compile(r"(shared|encoder\.(final_layer_norm|embed_tokens|block\..+))\.weight")


def text_name(name: str) -> str | None:
    """Of a umT5 encoder: the released name, or transformers', to ours."""
    if name in _TEXT_TOP:
        return _TEXT_TOP[name]
    if _TEXT_OURS.fullmatch(name):
        return name
    block = _BLOCK.fullmatch(name)
    if block is None or not block[2].endswith(".weight"):
        return None
    inside = _TEXT_IN_BLOCK.get(block[2].removesuffix(".weight"))
    return None if inside is None else f"encoder.block.{block[1]}.{inside}.weight"


# --------------------------------------------------------------------------- and back


def spellings(ours: str) -> Iterator[str]:
    """What files may call the tensor that is `ours` here, our own name first.

    Of all nets and spellings; which of them a file has, its `Rename` tells.
    """
    yield ours
    yield from _dit_spellings(ours)
    yield from _text_spellings(ours)
    yield from _vae_spellings(ours)


def _dit_spellings(ours: str) -> Iterator[str]:
    block = _BLOCK.fullmatch(ours)
    before, rest = ("", ours) if block is None else (f"blocks.{block[1]}.", block[2])
    if rest == "scale_shift_table":
        yield "head.modulation" if block is None else f"{before}modulation"
    for layer, mine in (*_TOP.items(), *_IN_BLOCK.items(), *_OUR_IN_BLOCK.items()):
        for parameter, ending in _PARAMETERS.items():
            if mine + ending == rest:
                yield f"{before}{layer}.{parameter}"


def _text_spellings(ours: str) -> Iterator[str]:
    yield from (name for name, mine in _TEXT_TOP.items() if mine == ours)
    block = re.fullmatch(r"encoder\.block\.(\d+)\.(.+)\.weight", ours)
    for name, mine in _TEXT_IN_BLOCK.items() if block else ():
        if block and mine == block[2]:
            yield f"blocks.{block[1]}.{name}.weight"


def _vae_spellings(ours: str) -> Iterator[str]:
    layer, _, parameter = ours.rpartition(".")
    side, _, rest = layer.partition(".")
    if layer in ("quant_conv", "post_quant_conv"):
        yield f"{'conv1' if layer == 'quant_conv' else 'conv2'}.{parameter}"
    yield from (f"{side}.{name}.{parameter}" for name, mine in _VAE_ENDS.items() if mine == rest)
    for where, inside in _vae_places(side, rest):
        for name in (*(name for name, mine in _VAE_RESIDUAL.items() if mine == inside), inside):
            yield f"{side}.{where}.{name}.{parameter}"


def _vae_places(side: str, rest: str) -> Iterator[tuple[str, str]]:
    """Where a released file has what lies at `rest` of a side here, and what it is called in there."""
    for number, mine in _VAE_MIDDLE.items():
        if rest.startswith(f"mid_block.{mine}."):
            yield f"middle.{number}", rest.removeprefix(f"mid_block.{mine}.")
    if found := re.fullmatch(r"down_blocks\.(\d+)\.(.+)", rest):
        yield f"downsamples.{found[1]}", found[2]
    if found := re.fullmatch(r"up_blocks\.(\d+)\.(?:resnets\.(\d+)|upsamplers\.0)\.(.+)", rest):
        position = LEVEL - 1 if found[2] is None else int(found[2])
        yield f"upsamples.{LEVEL * int(found[1]) + position}", found[3]
