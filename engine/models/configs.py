"""What a model's folder says of its nets: the settings that this build depends on, checked.

Diffusers layout: `model_index.json` names the components' classes, each component's
`config.json` its sizes. Only what planning and the checks need is read; the worker builds the
modules from the whole files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from engine.errors import ModelUnusable
from engine.models.index import FETCH_AGAIN
from engine.models.layout import INT8_BLOCK_SIZE
from engine.planning.shapes import LATENT_CHANNELS

Size = Annotated[int, msgspec.Meta(ge=1, le=2**31)]

T2V_CHANNELS = LATENT_CHANNELS
I2V_CHANNELS = 2 * LATENT_CHANNELS + 4
"""Noise, the mask of given frames, the image's latents."""
INT8_BLOCK = "int8_block"
"""The quantisation that this build runs: int8 in blocks of 128 x 128, one fp32 scale to each."""


class QuantizationConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How the linear layers inside a DiT's blocks are stored. Absent: as floating numbers."""

    quant_method: str = "unnamed"
    block_size: Size | None = None


class DitConfig(msgspec.Struct, frozen=True, kw_only=True, rename={"class_name": "_class_name"}):
    """Of `transformer/config.json`; the defaults are diffusers' own."""

    class_name: str
    num_attention_heads: Size = 40
    attention_head_dim: Size = 128
    in_channels: Size = 16
    out_channels: Size = 16
    text_dim: Size = 4096
    ffn_dim: Size = 13824
    num_layers: Size = 40
    patch_size: tuple[int, ...] = (1, 2, 2)
    image_dim: int | None = None
    added_kv_proj_dim: int | None = None
    quantization_config: QuantizationConfig | None = None

    @property
    def width(self) -> int:
        """Hidden size D."""
        return self.num_attention_heads * self.attention_head_dim

    @property
    def int8(self) -> bool:
        """Whether the linear layers of its blocks are int8 blocks."""
        return self.quantization_config is not None


class VaeConfig(msgspec.Struct, frozen=True, kw_only=True, rename={"class_name": "_class_name"}):
    """Of `vae/config.json`; the defaults are those of the Wan2.1 VAE."""

    class_name: str
    base_dim: Size = 96
    decoder_base_dim: Size | None = None
    z_dim: Size = 16
    dim_mult: tuple[Size, ...] = (1, 2, 4, 4)
    num_res_blocks: Size = 2
    temperal_downsample: tuple[bool, ...] = (False, True, True)
    is_residual: bool = False
    patch_size: int | None = None


class TextConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Of `text_encoder/config.json`; the defaults are those of umT5-xxl."""

    model_type: str
    d_model: Size = 4096
    d_kv: Size = 64
    d_ff: Size = 10240
    num_heads: Size = 64
    num_layers: Size = 24
    vocab_size: Size = 256384


class Configs(msgspec.Struct, frozen=True, kw_only=True):
    """The nets of one model; both experts of a two-expert model are alike."""

    dit: DitConfig
    vae: VaeConfig
    text: TextConfig


Read = TypeVar("Read")


def read_json(path: Path, kind: type[Read]) -> Read:
    """The settings in `path`.

    Raises:
        ModelUnusable: the file is missing, unreadable or says something else.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError as error:
        raise ModelUnusable(f"{path} is missing; {FETCH_AGAIN}") from error
    except OSError as error:
        raise ModelUnusable(f"{path} cannot be read: {error.strerror}; check its permissions") from error
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ModelUnusable(f"{path} is damaged or of another kind ({error}); {FETCH_AGAIN}") from error


def read_dit_config(folder: Path) -> DitConfig:
    """Raises: ModelUnusable: no DiT of the Wan text-to-video or two-expert image-to-video kind, or
    one that is quantised in a way that this build does not know."""
    config = read_json(folder / "config.json", DitConfig)
    _require_class(folder, config.class_name, "WanTransformer3DModel")
    if config.image_dim is not None or config.added_kv_proj_dim is not None:
        raise ModelUnusable(
            f"{folder} expects an image encoder (image_dim {config.image_dim}), which this build cannot run; "
            "use a text-to-video model or Wan2.2 I2V A14B"
        )
    if config.in_channels not in (T2V_CHANNELS, I2V_CHANNELS) or config.out_channels != LATENT_CHANNELS:
        raise ModelUnusable(
            f"{folder} has {config.in_channels} input and {config.out_channels} output channels, "
            f"this build runs {T2V_CHANNELS} or {I2V_CHANNELS} to {LATENT_CHANNELS}; use another model"
        )
    if config.patch_size != (1, 2, 2):
        raise ModelUnusable(
            f"{folder} has patches of {list(config.patch_size)}, this build runs [1, 2, 2]; use another model"
        )
    known = QuantizationConfig(quant_method=INT8_BLOCK, block_size=INT8_BLOCK_SIZE)
    if config.quantization_config not in (None, known):
        assert config.quantization_config is not None
        raise ModelUnusable(
            f"{folder} is quantised by {config.quantization_config.quant_method!r} in blocks of "
            f"{config.quantization_config.block_size}, this build runs {INT8_BLOCK!r} in blocks of "
            f"{INT8_BLOCK_SIZE}; use another model or update turbotui"
        )
    return config


def read_vae_config(folder: Path) -> VaeConfig:
    """Raises: ModelUnusable: no VAE with the strides and channels of Wan2.1's."""
    config = read_json(folder / "config.json", VaeConfig)
    _require_class(folder, config.class_name, "AutoencoderKLWan")
    if (
        config.z_dim != LATENT_CHANNELS
        or config.is_residual
        or config.patch_size is not None
        or len(config.dim_mult) != 4
        or config.temperal_downsample != (False, True, True)
    ):
        raise ModelUnusable(
            f"{folder} is no Wan2.1 VAE ({config.z_dim} latent channels, residual {config.is_residual}); "
            "this build decodes with that one only, use another model"
        )
    return config


def read_text_config(folder: Path) -> TextConfig:
    """Raises: ModelUnusable: no umT5 encoder."""
    config = read_json(folder / "config.json", TextConfig)
    _require_class(folder, config.model_type, "umt5")
    return config


def _require_class(folder: Path, found: str, known: str) -> None:
    if found != known:
        raise ModelUnusable(
            f"{folder} is of class {found!r}, this build runs {known}; use another model or update turbotui"
        )
