"""How much the Wan VAE holds on the device at its peak, beside its weights as they were loaded.

Counted after `engine.worker.nets.vae`: the last two frames that each causal convolution saw, which stay
from chunk to chunk; its weights once more with their channels last; and of the part that takes most what
lives while it is computed. None of it depends on the number of frames.
"""

# Counts are numbers of tensors; `places` are the pixels of one frame at a level's size.

from __future__ import annotations

from dataclasses import dataclass

from engine.models.configs import VaeConfig
from engine.planning.shapes import SPATIAL_STRIDE, TEMPORAL_STRIDE

HISTORY = 2
"""Frames that a causal convolution keeps."""
TAPS = 27
LEAVING_BYTES = 24
"""For each number of a chunk of pixels that is made bytes in fp32."""
RGB = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class _Level:
    """Residual blocks of one size, and the step to the next one."""

    places: int
    frames: int
    """Of one chunk."""
    inputs: int
    channels: int
    blocks: int

    @property
    def history(self) -> int:
        """Of its convolutions: two to a block."""
        return HISTORY * self.places * (self.inputs + (2 * self.blocks - 1) * self.channels)

    @property
    def weights(self) -> int:
        shortcut = self.inputs * self.channels if self.inputs != self.channels else 0
        return TAPS * self.channels * (self.inputs + (2 * self.blocks - 1) * self.channels) + shortcut

    @property
    def block(self) -> int:
        """The block's input, what a convolution is given with the frames before, and what it gives."""
        widest = max(self.inputs, self.channels)
        shortcut = 0 if self.inputs == self.channels else self.frames * self.channels
        return self.places * ((3 * self.frames + HISTORY) * widest + shortcut)


def decode_bytes(vae: VaeConfig, width: int, height: int, dtype_bytes: int) -> int:
    """Of decoding one latent frame after the other."""
    base = vae.decoder_base_dim or vae.base_dim
    multiples = vae.dim_mult[::-1]
    upsampled = vae.temperal_downsample[::-1]
    places, frames = width * height // SPATIAL_STRIDE**2, 1
    inputs = widest = base * multiples[0]
    middle = _Level(places=places, frames=frames, inputs=widest, channels=widest, blocks=2)
    levels, steps, history, weights = [middle], [0], 0, TAPS * vae.z_dim * widest
    for number, multiple in enumerate(multiples):
        channels = base * multiple
        blocks = vae.num_res_blocks + 1
        levels.append(_Level(places=places, frames=frames, inputs=inputs, channels=channels, blocks=blocks))
        if number == len(multiples) - 1:
            break
        before = frames * places * channels
        if upsampled[number]:
            history += HISTORY * places * channels
            weights += 3 * channels * 2 * channels
            before += 2 * frames * places * channels
            frames *= 2
        places *= 4
        weights += 9 * channels * channels // 2
        # The input, twice the rows and columns of it, and their convolution of half the channels.
        steps.append(before + frames * places * (channels + channels // 2))
        inputs = channels // 2
    history += HISTORY * (width * height // SPATIAL_STRIDE**2 * vae.z_dim + places * channels)
    weights += TAPS * channels * RGB
    leaving = frames * places * RGB * LEAVING_BYTES
    return max(_total(levels, steps, history, weights) * dtype_bytes, history * dtype_bytes + leaving)


def encode_bytes(vae: VaeConfig, width: int, height: int, dtype_bytes: int) -> int:
    """Of encoding an image and grey after it."""
    places, frames = width * height, TEMPORAL_STRIDE
    inputs = vae.base_dim
    levels, steps = [], [0]
    history, weights = HISTORY * places * RGB, TAPS * RGB * inputs
    for number, multiple in enumerate(vae.dim_mult):
        channels = vae.base_dim * multiple
        levels.append(
            _Level(places=places, frames=frames, inputs=inputs, channels=channels, blocks=vae.num_res_blocks)
        )
        inputs = channels
        if number == len(vae.dim_mult) - 1:
            break
        # The input and its copy with an edge of zeros.
        steps.append(2 * frames * places * channels + frames * places * channels // 4)
        weights += 9 * channels * channels
        places //= 4
        if vae.temperal_downsample[number]:
            history += places * channels
            weights += 3 * channels * channels
            frames //= 2
    levels.append(_Level(places=places, frames=frames, inputs=inputs, channels=inputs, blocks=2))
    history += HISTORY * places * inputs
    weights += TAPS * inputs * 2 * vae.z_dim
    # What a part gave that need not be computed again.
    kept = max(level.frames * level.places * level.channels for level in levels)
    return (_total(levels, steps, history, weights) + kept) * dtype_bytes


def _total(levels: list[_Level], steps: list[int], history: int, weights: int) -> int:
    held = history + sum(level.history for level in levels) + weights + sum(level.weights for level in levels)
    return held + max(*(level.block for level in levels), *steps)
