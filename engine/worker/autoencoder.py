"""Through the Wan VAE in both directions, one latent frame at a time.

diffusers' own encode and decode do the same for the whole clip at once; going by latent frame
lets finished frames leave the device, and a cancel be seen, without changing a single value.

Source: diffusers AutoencoderKLWan (the order of chunks and their caches); TurboDiffusion
rcm/tokenizers/wan2pt1.py (the constants' rounding to the VAE's dtype).
"""

# Shapes: B videos (1), C channels, T frames, H/W rows/columns; pixels in [-1, 1].

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.errors import WorkFailed
from engine.planning.shapes import TEMPORAL_STRIDE

Frames = NDArray[np.uint8]


def encode_first_frame(
    vae: Any, image_CHW: Tensor, latent_frames: int, check: Callable[[int], None]
) -> Tensor:
    """Normalised latents [1, 16, T, H/8, W/8] of a clip that is `image_CHW` and then mid grey.

    All of it must be encoded: the grey frames' latents depend on the first through the causal
    caches. `check(latent_frame)` runs before each and may raise.
    """
    dtype, device = _dtype_and_device(vae)
    first = image_CHW.to(device=device, dtype=dtype)[None, :, None]
    grey = torch.zeros_like(first).expand(-1, -1, TEMPORAL_STRIDE, -1, -1)
    cache = _empty_cache(vae.encoder)
    encoded = []
    for latent_frame in range(latent_frames):
        check(latent_frame)
        chunk = first if latent_frame == 0 else grey
        encoded.append(vae.encoder(chunk, feat_cache=cache, feat_idx=[0]))
    # The distribution's mean: no sampling at inference.
    mean_BCTHW = vae.quant_conv(torch.cat(encoded, dim=2)).chunk(2, dim=1)[0]
    shift, inverse = _constants(vae, dtype, device)
    latents_BCTHW: Tensor = (mean_BCTHW - shift) * inverse
    return latents_BCTHW


def decode_frames(vae: Any, latents_BCTHW: Tensor, check: Callable[[int], None]) -> Iterator[Frames]:
    """Pixel frames [T, H, W, 3] on the host for each latent frame in turn: 1, then 4 each.

    `check(latent_frame)` runs before each and may raise.

    Raises:
        WorkFailed: the VAE returned a value that is not finite.
    """
    dtype, device = _dtype_and_device(vae)
    shift, inverse = _constants(vae, dtype, device)
    z_BCTHW = vae.post_quant_conv(latents_BCTHW.to(device=device, dtype=dtype) / inverse + shift)
    cache = _empty_cache(vae.decoder)
    for latent_frame in range(z_BCTHW.shape[2]):
        check(latent_frame)
        pixels_BCTHW = vae.decoder(
            z_BCTHW[:, :, latent_frame : latent_frame + 1],
            feat_cache=cache,
            feat_idx=[0],
            first_chunk=latent_frame == 0,
        )
        if not bool(torch.isfinite(pixels_BCTHW).all()):
            raise WorkFailed(
                f"vae returned values that are not finite in latent frame {latent_frame + 1}; "
                "its weight file may be damaged: fetch or convert the model again"
            )
        yield to_frames(pixels_BCTHW)


def to_frames(pixels_BCTHW: Tensor) -> Frames:
    """uint8 RGB [T, H, W, 3] of one video: clamp to [-1, 1], then round half up from 0 to 255."""
    unit = (1.0 + pixels_BCTHW[0].float().clamp(-1, 1)) / 2.0
    frames = (unit * 255 + 0.5).to(torch.uint8)
    return frames.permute(1, 2, 3, 0).contiguous().cpu().numpy()


def _constants(vae: Any, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """The latents' mean and 1/std as [1, 16, 1, 1, 1], rounded to the VAE's dtype as the reference does."""
    mean = torch.tensor(vae.config.latents_mean, device=device).to(dtype).view(1, -1, 1, 1, 1)
    std = torch.tensor(vae.config.latents_std, device=device).to(dtype).view(1, -1, 1, 1, 1)
    return mean, 1.0 / std


def _empty_cache(half: nn.Module) -> list[Any]:
    return [None] * sum(isinstance(part, WanCausalConv3d) for part in half.modules())


def _dtype_and_device(vae: nn.Module) -> tuple[torch.dtype, torch.device]:
    weight = next(vae.parameters())
    return weight.dtype, weight.device
