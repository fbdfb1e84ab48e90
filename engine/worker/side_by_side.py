"""Several samples of one job: each through the nets alone, and all in one picture at the end.

One after the other, the device holds no more at once than for a single video but for the latents;
what is decoded before the last sample waits in host memory.
"""

# Shapes: B videos, C latent channels, T frames, H/W rows/columns.

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from engine.worker.leaving import Frames


def each_sample(
    velocity: Callable[[Tensor, int, bool], Tensor], check: Callable[[], None], x_BCTHW: Tensor, step: int
) -> Tensor:
    """`velocity(x of one video, step, whether it is the last of them)` of each, as one batch again.

    `check()` runs between two and may raise.
    """
    found: list[Tensor] = []
    for x_1CTHW in torch.split(x_BCTHW, 1):
        if found:
            check()
        found.append(velocity(x_1CTHW, step, len(found) == x_BCTHW.shape[0] - 1))
    return found[0] if len(found) == 1 else torch.cat(found)


def decode_side_by_side(
    decode: Callable[[Tensor, Callable[[int], None]], Iterator[Frames]],
    latents_BCTHW: Tensor,
    check: Callable[[int, int], None],
) -> Iterator[Frames]:
    """Frames [T, H, B * W, 3] for each latent frame in turn: the videos from left to right.

    `decode(latents of one video, check)` gives its frames by latent frame; `check(video, latent frame)`
    runs before each and may raise.
    """
    *before, last = [
        decode(latents_1CTHW, partial(check, number))
        for number, latents_1CTHW in enumerate(torch.split(latents_BCTHW, 1))
    ]
    earlier = [list(frames) for frames in before]
    for latent_frame, frames_THWC in enumerate(last):
        left = [frames[latent_frame] for frames in earlier]
        yield np.concatenate([*left, frames_THWC], axis=2) if left else frames_THWC
