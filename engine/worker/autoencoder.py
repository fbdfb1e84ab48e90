"""Through the Wan VAE in both directions, one latent frame at a time.

diffusers' own encode and decode do the same for the whole clip at once; going by latent frame
lets finished frames leave the device while the next ones are computed, and a cancel be seen.

Source: diffusers AutoencoderKLWan (the order of chunks); TurboDiffusion rcm/tokenizers/wan2pt1.py
(the constants' rounding to the VAE's dtype).
"""

# Shapes: B videos (1), C channels, T frames, H/W rows/columns; pixels in [-1, 1].

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from engine.errors import WorkFailed
from engine.planning.shapes import TEMPORAL_STRIDE
from engine.worker.leaving import Frames, FramesLeaving, Leaving
from engine.worker.nets.vae import Decoder, Encoder


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
    encoder = Encoder(vae)
    encoded = []
    for latent_frame in range(latent_frames):
        check(latent_frame)
        encoded.append(encoder(first if latent_frame == 0 else grey, again=latent_frame > 1))
    # The distribution's mean: no sampling at inference.
    shift, inverse = _constants(vae, dtype, device)
    latents_BCTHW: Tensor = (torch.cat(encoded, dim=2) - shift) * inverse
    return latents_BCTHW


def decode_frames(vae: Any, latents_BCTHW: Tensor, check: Callable[[int], None]) -> Iterator[Frames]:
    """Pixel frames [T, H, W, 3] on the host for each latent frame in turn: 1, then 4 each.

    `check(latent_frame)` runs before each is begun and may raise. On a GPU the next one is begun
    before the frames of this one are handed out.

    Raises:
        WorkFailed: the VAE returned a value that is not finite.
    """
    dtype, device = _dtype_and_device(vae)
    shift, inverse = _constants(vae, dtype, device)
    z_BCTHW = latents_BCTHW.to(device=device, dtype=dtype) / inverse + shift
    decoder, leaving = Decoder(vae), FramesLeaving(device)
    begun: deque[Leaving] = deque()
    for latent_frame in range(z_BCTHW.shape[2]):
        check(latent_frame)
        pixels_THWC = decoder(z_BCTHW[:, :, latent_frame : latent_frame + 1])
        begun.append(leaving.send(pixels_THWC))
        del pixels_THWC
        if len(begun) > leaving.ahead:
            yield _arrived(begun.popleft(), latent_frame - leaving.ahead)
    for left in range(len(begun), 0, -1):
        yield _arrived(begun.popleft(), z_BCTHW.shape[2] - left)


def _arrived(frames: Leaving, latent_frame: int) -> Frames:
    arrived, finite = frames.wait()
    if not finite:
        raise WorkFailed(
            f"vae returned values that are not finite in latent frame {latent_frame + 1}; "
            "its weight file may be damaged: fetch or convert the model again"
        )
    return arrived


def _constants(vae: Any, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """The latents' mean and 1/std as [1, 16, 1, 1, 1], rounded to the VAE's dtype as the reference does."""
    mean = torch.tensor(vae.config.latents_mean, device=device).to(dtype).view(1, -1, 1, 1, 1)
    std = torch.tensor(vae.config.latents_std, device=device).to(dtype).view(1, -1, 1, 1, 1)
    return mean, 1.0 / std


def _dtype_and_device(vae: nn.Module) -> tuple[torch.dtype, torch.device]:
    weight = next(vae.parameters())
    return weight.dtype, weight.device
