"""The nets as the importer describes them, and the released names: each against the modules themselves."""

from __future__ import annotations

import dataclasses
import inspect

import pytest
import torch
from diffusers import AutoencoderKLWan
from diffusers.loaders.single_file_utils import (
    convert_wan_transformer_to_diffusers,
    convert_wan_vae_to_diffusers,
)
from torch import nn
from transformers import UMT5Config, UMT5EncoderModel

from engine.models.importing.keymaps import Rename, diffusers_dit_name, dit_name, text_name, vae_name
from engine.models.importing.nets import DitSizes, Net, TextSizes, VaeSizes
from engine.worker.nets.int8 import replace_linears
from engine.worker.nets.wan import WanNet, add_proj_l
from tests.released import umt5, wan_vae
from tests.specification import checkpoints

DIT = {
    "width": 256, "layers": 2, "in_channels": 16, "out_channels": 16, "ffn": 384, "text_dim": 48,
    "frequencies": 256,
}  # fmt: skip
TEXT = TextSizes(vocabulary=64, width=48, inner=32, heads=4, ffn=40, layers=2, buckets=32)


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def shapes_in(net: Net) -> dict[str, tuple[int, ...]]:
    return {name: wanted.shape for name, wanted in net.tensors().items()}


@pytest.mark.parametrize("quantised", [False, True])
@pytest.mark.parametrize("distilled", [False, True])
def test_a_dit_has_the_tensors_of_its_module(quantised: bool, distilled: bool) -> None:
    sizes = DitSizes(**DIT, quantised=quantised, distilled=distilled)
    config = sizes.config()
    config.pop("quantization_config", None)
    with torch.device("meta"):
        net = WanNet.build(config)
        if quantised:
            replace_linears(net)
        if distilled:
            add_proj_l(net)
    assert shapes_in(sizes) == shapes_of(net)


@pytest.mark.parametrize(("base", "decoder_base"), [(8, 8), (96, 96), (8, 16)])
def test_a_vae_has_the_tensors_of_its_module(base: int, decoder_base: int) -> None:
    sizes = VaeSizes(base=base, decoder_base=decoder_base)
    with torch.device("meta"):
        net = AutoencoderKLWan.from_config(sizes.config())
    assert shapes_in(sizes) == shapes_of(net)
    assert len(shapes_of(net)) == 194
    stock = inspect.signature(AutoencoderKLWan.__init__).parameters
    assert list(net.config.latents_mean) == stock["latents_mean"].default
    assert list(net.config.latents_std) == stock["latents_std"].default


def test_a_text_encoder_has_the_tensors_of_its_module() -> None:
    with torch.device("meta"):
        net = UMT5EncoderModel(UMT5Config.from_dict(TEXT.config()))
    found = shapes_of(net)
    assert found.pop("encoder.embed_tokens.weight") == found["shared.weight"]
    assert shapes_in(TEXT) == found


@pytest.mark.parametrize("quantised", [False, True])
def test_every_released_name_of_a_dit_has_a_place_and_no_place_is_left(quantised: bool) -> None:
    tensors = checkpoints.turbo_wan()
    tensors = checkpoints.quantised(tensors) if quantised else tensors
    named = {dit_name(name): tuple(tensor.shape) for name, tensor in tensors.items()}
    named["patch_embedding.weight"] = (256, 16, 1, 2, 2)
    assert named == shapes_in(DitSizes(**DIT, quantised=quantised, distilled=True))


def test_a_dit_is_renamed_as_diffusers_renames_it() -> None:
    """But for the linear part of the sparse attention, which diffusers does not know."""
    released = checkpoints.turbo_wan(proj_l=False)
    marked = {name: torch.tensor(number) for number, name in enumerate(released)}
    ours = {dit_name(name): int(mark) for name, mark in marked.items()}
    assert ours == {name: int(mark) for name, mark in convert_wan_transformer_to_diffusers(marked).items()}


def test_a_vae_is_renamed_as_diffusers_renames_it() -> None:
    released = wan_vae()
    marked = {name: torch.tensor(number) for number, name in enumerate(released)}
    ours = {vae_name(name): int(mark) for name, mark in marked.items()}
    assert ours == {name: int(mark) for name, mark in convert_wan_vae_to_diffusers(marked).items()}
    assert {vae_name(name): tuple(tensor.shape) for name, tensor in released.items()} == shapes_in(
        VaeSizes(base=8, decoder_base=8)
    )


def test_every_released_name_of_a_text_encoder_has_its_place() -> None:
    named = {text_name(name): tuple(tensor.shape) for name, tensor in umt5().items()}
    assert named == shapes_in(dataclasses.replace(TEXT, vocabulary=1024))


@pytest.mark.parametrize("rename", [diffusers_dit_name, vae_name, text_name])
def test_our_own_names_stay_and_strangers_have_none(rename: Rename) -> None:
    nets: dict[Rename, Net] = {
        diffusers_dit_name: DitSizes(**DIT, quantised=True, distilled=True),
        vae_name: VaeSizes(base=8, decoder_base=8),
        text_name: TEXT,
    }
    names = list(nets[rename].tensors())
    assert [rename(name) for name in names] == names
    for stranger in ("", "weight", "blocks.0", "blocks.0.weight", "blocks.x.norm3.weight", f"{names[0]}.x"):
        assert rename(stranger) is None
    for name in names:
        assert rename(f"x.{name}") is None


def test_the_linear_part_of_diffusers_repositories_comes_to_the_same_place() -> None:
    assert diffusers_dit_name("blocks.3.attn1.attn_op.local_attn.proj_l.bias") == "blocks.3.attn1.proj_l.bias"
    for rename in (dit_name, diffusers_dit_name):
        assert rename("blocks.3.cross_attn.attn_op.local_attn.proj_l.bias") is None
        assert rename("blocks.3.attn2.attn_op.local_attn.proj_l.bias") is None


def test_the_two_norms_that_swap_their_names_are_not_taken_for_each_other() -> None:
    assert dit_name("blocks.0.norm3.weight") == diffusers_dit_name("blocks.0.norm2.weight")
    assert dit_name("blocks.0.norm2.weight") is diffusers_dit_name("blocks.0.norm3.weight") is None
