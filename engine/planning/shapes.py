"""The geometry of a generation: frames, latents, tokens, timesteps, and the family's resolutions.

Plain arithmetic on plain numbers. The worker's denoising loop, the checks of a request and the
memory estimates all use it, so that they cannot disagree.

Source: TurboDiffusion, rcm/inference and rcm/datasets/utils; Wan2.1 VAE.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, TypeAlias

from engine.wire import ModelKind, Resolution

FPS = 16
TEMPORAL_STRIDE = 4
"""Pixel frames to one latent frame, but for the first, which stands alone."""
SPATIAL_STRIDE = 8
"""Pixels to one latent row or column."""
PATCH = 2
"""Latent rows or columns to one token."""
LATENT_CHANNELS = 16
SIZE_STEP = SPATIAL_STRIDE * PATCH
"""Width and height are multiples of this."""
TEXT_TOKENS = 512
PART_TOKENS = 16384
"""Tokens of a video for which the DiT computes at once what each needs alone; whole blocks of any kernel."""

MIN_STEPS, MAX_STEPS = 1, 4
MAX_SAMPLES = 8
"""Videos of one job; side by side they must still be a picture that a player opens."""
MAX_SIDE = 128 * SIZE_STEP
"""Pixels. Source: the reference's rotary embedding knows 128 rows and columns of tokens."""
BOUNDARY = 0.9
"""RF time below which the low-noise expert takes over. Source: Wan2.2 I2V A14B configuration."""
DEFAULT_SIGMA_MAX: Mapping[ModelKind, float] = MappingProxyType({"t2v": 80.0, "i2v": 200.0})
MID_ANGLES = (1.5, 1.4, 1.0)
"""TrigFlow angles of the second and later steps; fewer steps use the first of them."""
MIN_SIGMA_MAX, MAX_SIGMA_MAX = 15.0, 10_000.0
"""Below tan(1.5) = 14.1 the second timestep would lie above the first."""

Expert: TypeAlias = Literal["high", "low"]

TABLES: Mapping[str, Mapping[str, tuple[int, int]]] = MappingProxyType(
    {
        "480p": MappingProxyType(
            {"16:9": (832, 480), "9:16": (480, 832), "4:3": (640, 480), "3:4": (480, 640), "1:1": (640, 640)}
        ),
        "480": MappingProxyType(
            {"16:9": (768, 432), "9:16": (432, 768), "4:3": (640, 480), "3:4": (480, 640), "1:1": (480, 480)}
        ),
        "512": MappingProxyType(
            {"16:9": (640, 384), "9:16": (384, 640), "4:3": (640, 512), "3:4": (512, 640), "1:1": (512, 512)}
        ),
        "720p": MappingProxyType(
            {
                "16:9": (1280, 720),
                "9:16": (720, 1280),
                "4:3": (960, 720),
                "3:4": (720, 960),
                "1:1": (960, 960),
            }
        ),
        "720": MappingProxyType(
            {
                "16:9": (1280, 704),
                "9:16": (704, 1280),
                "4:3": (960, 704),
                "3:4": (704, 960),
                "1:1": (960, 960),
            }
        ),
    }
)
"""Name to aspect ratio to (width, height) in pixels."""


def resolutions(*names: str) -> tuple[Resolution, ...]:
    """The rows of the tables called `names`, in their order."""
    return tuple(
        Resolution(name=name, aspect_ratio=aspect_ratio, width=width, height=height)
        for name in names
        for aspect_ratio, (width, height) in TABLES[name].items()
    )


def adaptive_size(row: Resolution, image_width: int, image_height: int) -> tuple[int, int] | None:
    """Width and height in the image's shape and with about the pixels of `row`; None where a side is
    beyond what the nets take.

    Source: TurboDiffusion inference/wan2.2_i2v_infer.py; halves are rounded to even.
    """
    area, ratio = row.width * row.height, image_height / image_width
    height = SIZE_STEP * round(math.sqrt(area * ratio) / SIZE_STEP)
    width = SIZE_STEP * round(math.sqrt(area / ratio) / SIZE_STEP)
    fits = all(SIZE_STEP <= side <= MAX_SIDE for side in (width, height))
    return (width, height) if fits else None


def are_valid_frames(num_frames: int) -> bool:
    """Whether the VAE can fold `num_frames` whole: 4n + 1."""
    return num_frames >= 1 and (num_frames - 1) % TEMPORAL_STRIDE == 0


def nearest_frames(num_frames: int) -> tuple[int, ...]:
    """The valid counts on either side of `num_frames`; itself alone when it is valid."""
    if are_valid_frames(num_frames):
        return (num_frames,)
    if num_frames < 1:
        return (1,)
    below = num_frames - (num_frames - 1) % TEMPORAL_STRIDE
    return (below, below + TEMPORAL_STRIDE)


def latent_frames(num_frames: int) -> int:
    """Latent frames for `num_frames` pixel frames: 81 -> 21.

    Raises:
        ValueError: `num_frames` is not 4n + 1; rounding would drop frames silently.
    """
    if not are_valid_frames(num_frames):
        raise ValueError(f"num_frames must be 4n + 1, got {num_frames}")
    return 1 + (num_frames - 1) // TEMPORAL_STRIDE


def latent_size(width: int, height: int) -> tuple[int, int]:
    """Latent (rows, columns) of a `width` x `height` video: 832, 480 -> (60, 104).

    Raises:
        ValueError: a side is not a positive multiple of 16.
    """
    for name, value in (("width", width), ("height", height)):
        if value < SIZE_STEP or value % SIZE_STEP:
            raise ValueError(f"{name} must be a positive multiple of {SIZE_STEP}, got {value}")
    return height // SPATIAL_STRIDE, width // SPATIAL_STRIDE


def latent_shape(
    width: int, height: int, num_frames: int, samples: int = 1
) -> tuple[int, int, int, int, int]:
    """Shape [B, C, T, H, W] of the latents of so many videos.

    Raises:
        ValueError: as `latent_frames` and `latent_size`.
    """
    rows, columns = latent_size(width, height)
    return (samples, LATENT_CHANNELS, latent_frames(num_frames), rows, columns)


def dit_tokens(width: int, height: int, num_frames: int) -> int:
    """Tokens that the DiT's self-attention sees: 832, 480, 81 -> 32,760.

    Raises:
        ValueError: as `latent_frames` and `latent_size`.
    """
    rows, columns = latent_size(width, height)
    return latent_frames(num_frames) * (rows // PATCH) * (columns // PATCH)


def rcm_timesteps(steps: int, sigma_max: float) -> tuple[float, ...]:
    """RF times of the rCM sampler in float64: `steps` of them, strictly falling, then 0.0.

    4, 80.0 -> (0.98765, 0.93378, 0.85290, 0.60898, 0.0). The net is given `bf16(1000 * float32(t))`;
    the update uses these values.

    Raises:
        ValueError: `steps` is not 1 to 4, or `sigma_max` lies outside 15 to 10,000.
    """
    if not MIN_STEPS <= steps <= MAX_STEPS:
        raise ValueError(f"steps must be {MIN_STEPS} to {MAX_STEPS}, got {steps}")
    if not MIN_SIGMA_MAX <= sigma_max <= MAX_SIGMA_MAX:
        raise ValueError(f"sigma_max must be {MIN_SIGMA_MAX:g} to {MAX_SIGMA_MAX:g}, got {sigma_max:g}")
    angles = (math.atan(sigma_max), *MID_ANGLES[: steps - 1], 0.0)
    return tuple(math.sin(angle) / (math.cos(angle) + math.sin(angle)) for angle in angles)


def expert_for(t: float) -> Expert:
    """The A14B expert that a step starting at RF time `t` uses."""
    return "low" if t < BOUNDARY else "high"


def experts_for(timesteps: tuple[float, ...]) -> tuple[Expert, ...]:
    """The expert of each step of `rcm_timesteps`; one or two steps never reach the low-noise one."""
    return tuple(expert_for(t) for t in timesteps[:-1])
