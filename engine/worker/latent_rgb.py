"""The colours of latents without their VAE: a linear map of the 16 channels to RGB, learnt from decodes.

It tells what is where and in which colour at an eighth of the size; it knows no texture. Every decode
gives latents and the pixels that they became: the least squares of both are the map of that VAE, whichever
it is, a demo model's with random weights too. Before the first decode a picture is grey: how far
the latents are from their mean.
"""

# Shapes: C latent channels (16), T latent frames, H/W latent rows/columns, N places in a frame.

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.planning.shapes import SPATIAL_STRIDE
from engine.whole_file import write_whole

CHANNELS = 16
GREY = 90.0
"""Brightness of latents whose root mean square is one."""
PLACES = 4096
"""Of a decode that are enough; every so-manieth of its frames' are taken."""
REMEMBERED = 4 * PLACES
"""Places that count as much as a new decode's all together, so that a map stays but can move."""
RIDGE = 1e-2

Sums: TypeAlias = NDArray[np.float64]
"""[17, 20]: of each place's channels and a one, the products with themselves and with red, green, blue."""


class LatentColours:
    """The maps of the VAEs that were met, kept as files in `folder`. For the thread that computes."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._known: dict[str, Sums] = {}

    def map_of(self, vae: str) -> Tensor | None:
        """[17, 3] fp32 for the VAE of this content, channels and a one to 0..255; None before a decode."""
        sums = self._sums(vae)
        if sums is None:
            return None
        ridge = np.eye(CHANNELS + 1) * RIDGE * sums[CHANNELS, CHANNELS]
        solved = np.linalg.solve(sums[:, : CHANNELS + 1] + ridge, sums[:, CHANNELS + 1 :])
        return torch.from_numpy(solved.astype(np.float32))

    def learn(self, vae: str, new: Sums) -> None:
        """Take in a decode; a file that cannot be written is learnt anew another time."""
        old = self._sums(vae)
        if old is not None:
            new = new + old * min(1.0, REMEMBERED / max(1.0, old[CHANNELS, CHANNELS]))
        self._known[vae] = new
        if self._folder is not None:
            with suppress(OSError):
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_whole(self._file(vae), json.dumps(new.tolist()).encode())

    def _sums(self, vae: str) -> Sums | None:
        if vae not in self._known and self._folder is not None:
            with suppress(OSError, ValueError, TypeError):
                found = np.array(json.loads(self._file(vae).read_bytes()), dtype=np.float64)
                if found.shape == (CHANNELS + 1, CHANNELS + 4) and np.isfinite(found).all():
                    self._known[vae] = found
        return self._known.get(vae)

    def _file(self, vae: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{vae[:32]}.json"


class DecodeSums:
    """What one decode teaches; it sees a few places of each frame: 4 to 14 ms for all 21 on one core."""

    def __init__(self, latents_BCTHW: Tensor) -> None:
        _, _, frames, height, width = latents_BCTHW.shape
        self._step = max(1, frames * height * width // PLACES)
        self._latents_TNC: NDArray[np.float64] | None = None
        if latents_BCTHW.shape[1] == CHANNELS:
            flat_TNC = latents_BCTHW[0].flatten(2).permute(1, 2, 0)[:, :: self._step]
            self._latents_TNC = flat_TNC.double().cpu().numpy()
        self.sums: Sums = np.zeros((CHANNELS + 1, CHANNELS + 4))

    def add(self, latent_frame: int, frames_THWC: NDArray[np.uint8]) -> None:
        """The pixel frames that `latent_frame` of the first video became; the last of them is taken."""
        if self._latents_TNC is None:
            return
        image = frames_THWC[-1]
        stride = SPATIAL_STRIDE
        height, width = image.shape[0] // stride, image.shape[1] // stride
        places = np.arange(0, height * width, self._step)
        tiles = image[: height * stride, : width * stride].reshape(height, stride, width, stride, 3)
        colours = tiles[places // width, :, places % width].mean(axis=(1, 2), dtype=np.float64)
        latents = self._latents_TNC[latent_frame]
        inputs = np.hstack([latents, np.ones((len(latents), 1))])
        self.sums += inputs.T @ np.hstack([inputs, colours])


def latents_to_rgb(latents_CHW: Tensor, colours: Tensor | None) -> Tensor:
    """uint8 [H, W, 3] on the latents' device by a map [17, 3] there; what is not finite becomes black."""
    latents_CHW = latents_CHW.to(torch.float32)
    if colours is None:
        grey_HW = latents_CHW.square().mean(0).sqrt() * GREY
        rgb_HWC = torch.stack([grey_HW] * 3, dim=-1)
    else:
        # Not as a matrix product, whose library would take a workspace of its own on a GPU.
        parts_HW = [
            (latents_CHW * colours[:CHANNELS, channel, None, None]).sum(0) + colours[CHANNELS, channel]
            for channel in range(3)
        ]
        rgb_HWC = torch.stack(parts_HW, dim=-1)
    return rgb_HWC.nan_to_num(0.0).clamp_(0, 255).to(torch.uint8)
