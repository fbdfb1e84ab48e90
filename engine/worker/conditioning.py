"""From an image file to what an image-to-video net sees beside the noise.

The file is a stranger's: its format, size and frames are checked here again, whatever was
checked when the job was submitted.

Source: TurboDiffusion inference/wan2.2_i2v_infer.py.
"""

# Shapes: B videos (1), C channels, T latent frames, H/W rows/columns.

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

from engine.errors import InvalidRequest
from engine.planning.image_file import FORMATS, check_image
from engine.planning.shapes import TEMPORAL_STRIDE
from engine.worker.autoencoder import encode_first_frame


def read_image(path: Path) -> Image.Image:
    """The first frame of the image at `path`, RGB and upright.

    Raises:
        InvalidRequest: as `check_image`, or its pixels cannot be decoded.
    """
    check_image(path)
    try:
        with warnings.catch_warnings():
            # Pillow warns of large images on its own scale; ours was applied.
            warnings.simplefilter("ignore")
            # Not by its path: what Pillow maps into memory of a TIFF that lies, it takes for an upright one.
            with open(path, "rb") as file, Image.open(file, formats=FORMATS) as image:
                image.seek(0)
                return _eight_bits(ImageOps.exif_transpose(image)).convert("RGB")
    except Exception as error:  # Pillow's decoders answer damage with whatever they trip over
        raise InvalidRequest(f"the image {str(path)!r} is broken ({error}); save it again") from error


def _eight_bits(image: Image.Image) -> Image.Image:
    """`image`, of more than 8 bits of grey the upper 8: Pillow would take all above 255 for white.

    Floats up to 1, as TIFFs have them, are shares of white, which Pillow would take for black.
    """
    if image.mode == "F":
        levels = np.nan_to_num(np.asarray(image), posinf=255, neginf=0)
        grey = np.clip(levels * 255 if levels.max() <= 1 else levels, 0, 255).round()
    elif image.mode.startswith("I"):
        levels = np.clip(np.asarray(image), 0, None)
        grey = levels // (2**8 if levels.max() < 2**16 else 2**23)
    else:
        return image
    return Image.fromarray(grey.astype(np.uint8))


def fit_image(image: Image.Image, width: int, height: int) -> Tensor:
    """`image` stretched to the video's size: [3, height, width] float32 in [-1, 1].

    Resized as uint8 by antialiased bilinear interpolation, before the VAE sees it, so that an 8K
    image costs the VAE no more than a small one.
    """
    pixels_CHW = torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1)
    resized = F.interpolate(
        pixels_CHW[None].contiguous(), size=(height, width), mode="bilinear", antialias=True
    )[0]
    return (resized.to(torch.float32) / 255 - 0.5) / 0.5


def image_condition(vae: Any, image_CHW: Tensor, latent_frames: int, check: Callable[[int], None]) -> Tensor:
    """Channels 16 to 35 of the net's input, [1, 20, T, H/8, W/8]: mask, then the image's latents.

    The mask is one at the first latent frame, zero after it. Constant over all steps.
    """
    latents_BCTHW = encode_first_frame(vae, image_CHW, latent_frames, check)
    mask_shape = (1, TEMPORAL_STRIDE, *latents_BCTHW.shape[2:])
    mask_BCTHW = torch.zeros(mask_shape, dtype=latents_BCTHW.dtype, device=latents_BCTHW.device)
    mask_BCTHW[:, :, 0] = 1.0
    return torch.cat([mask_BCTHW, latents_BCTHW], dim=1)
