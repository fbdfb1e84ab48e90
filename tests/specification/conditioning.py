"""What an image-to-video net sees beside the noise, from the image's pixels on."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

MASK_CHANNELS, LATENT_CHANNELS = 4, 16


def resized(image: Tensor, width: int, height: int) -> Tensor:
    """[C, h, w] uint8 -> [C, height, width] in float64 before the last rounding: stretched, nothing cut off.

    Bilinear and antialiased: where the image shrinks, the triangle is as wide as the pixels that it joins.
    Rows first, which are whole levels before columns follow.
    """
    rows, columns = _weights(image.shape[1], height), _weights(image.shape[2], width)
    narrowed = torch.floor(torch.einsum("cyx,wx->cyw", image.double(), columns) + 0.5)
    return torch.einsum("hy,cyw->chw", rows, narrowed)


def _weights(old: int, new: int) -> Tensor:
    """[new, old], each row's sum 1."""
    scale = old / new
    reach = max(1.0, scale)
    found = torch.zeros(new, old, dtype=torch.float64)
    for place in range(new):
        center = (place + 0.5) * scale
        for pixel in range(old):
            found[place, pixel] = max(0.0, 1.0 - abs(pixel + 0.5 - center) / reach)
    return found / found.sum(dim=1, keepdim=True)


def normalised(levels: Tensor) -> Tensor:
    """0 to 255 -> -1 to 1 in fp32; the value between black and white is 0."""
    return (levels.float() / 255 - 0.5) / 0.5


def clip(image: Tensor, frames: int) -> Tensor:
    """[3, H, W] in -1 to 1 -> [1, 3, F, H, W]: the image, then nothing but mid grey."""
    grey = torch.zeros(1, 3, frames - 1, *image.shape[1:])
    return torch.cat((image[None, :, None], grey), dim=2)


def latents(mean: Tensor, shift: list[float], scale: list[float]) -> Tensor:
    """The posterior's mean by the VAE's constants, which are rounded as it is."""
    by_channel = (1, LATENT_CHANNELS, 1, 1, 1)
    inverse = 1.0 / torch.tensor(scale, dtype=mean.dtype).view(by_channel)
    return (mean - torch.tensor(shift, dtype=mean.dtype).view(by_channel)) * inverse


def condition(
    encode: Callable[[Tensor], Tensor], image: Tensor, frames: int, shift: list[float], scale: list[float]
) -> Tensor:
    """[1, 20, T, H / 8, W / 8]: four channels that tell the given frame, sixteen of the clip's latents.

    `encode` is [1, 3, F, H, W] -> the posterior's mean [1, 16, T, H / 8, W / 8].
    """
    latent = latents(encode(clip(image, frames)), shift, scale)
    mask = torch.zeros(1, MASK_CHANNELS, *latent.shape[2:], dtype=latent.dtype)
    mask[:, :, 0] = 1
    return torch.cat((mask, latent), dim=1)


def adaptive(area: int, image_width: int, image_height: int) -> tuple[int, int]:
    """Width and height, in sixteens, of about this area and of the image's shape."""
    ratio = image_height / image_width
    return 16 * round(math.sqrt(area / ratio) / 16), 16 * round(math.sqrt(area * ratio) / 16)
