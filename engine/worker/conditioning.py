"""From an image file to what an image-to-video net sees beside the noise.

The file is a stranger's: its format, size and frames are checked here again, whatever was
checked when the job was submitted.

Source: TurboDiffusion inference/wan2.2_i2v_infer.py.
"""

# Shapes: B videos (1), C channels, T latent frames, H/W rows/columns.

from __future__ import annotations

import stat
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from engine.errors import InvalidRequest
from engine.planning.shapes import TEMPORAL_STRIDE
from engine.worker.autoencoder import encode_first_frame

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
"""Decoders that may see the file; Pillow knows dozens, of unequal care."""
MAX_PIXELS = 40_000_000
"""8K is 33 million. A decoded image of this size takes 120 MB."""


def read_image(path: Path) -> Image.Image:
    """The first frame of the image at `path`, RGB and upright.

    Raises:
        InvalidRequest: it is missing, no image of `FORMATS`, broken, or larger than `MAX_PIXELS`.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InvalidRequest(f"{path} is not a file; give the path of a {', '.join(FORMATS)} image")
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise _too_large(path, f"{width} x {height}")
                image.seek(0)
                return ImageOps.exif_transpose(image).convert("RGB")
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise _too_large(path, "far too many") from error
    except FileNotFoundError as error:
        raise InvalidRequest(f"{path} is missing; give the path of an image") from error
    except UnidentifiedImageError as error:
        raise InvalidRequest(
            f"{path} is no image that can be read; give one of {', '.join(FORMATS)}"
        ) from error
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as error:
        # Pillow's decoders answer damage with any of these.
        raise InvalidRequest(f"{path} cannot be read as an image ({error}); save it again") from error


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


def _too_large(path: Path, dimensions: str) -> InvalidRequest:
    return InvalidRequest(
        f"{path} has {dimensions} pixels and an image may have {MAX_PIXELS // 10**6} million; "
        "scale it down first"
    )
