"""The few-step sampler (rCM): its times, its two updates, and the order in which noise is drawn."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

MIDDLE_ANGLES = (1.5, 1.4, 1.0)
BOUNDARY = 0.9

Net = Callable[[Tensor, Tensor], Tensor]
"""Of (x in bf16, the net's timestep in bf16) the velocity."""


def times(sigma_max: float, steps: int) -> list[float]:
    """steps + 1 rectified-flow times from sigma_max / (1 + sigma_max) to 0."""
    angles = [math.atan(sigma_max), *MIDDLE_ANGLES[: steps - 1], 0.0]
    return [math.sin(a) / (math.sin(a) + math.cos(a)) for a in angles]


def net_timestep(time: float) -> float:
    """What the net is told: 1000 t, the product in fp32, rounded to bf16."""
    return (torch.tensor(time, dtype=torch.float32) * 1000).to(torch.bfloat16).item()


def experts(sigma_max: float, steps: int) -> list[str]:
    """Of two experts who takes each step: below the boundary the low one, and no way back."""
    found, low = [], False
    for time in times(sigma_max, steps)[:-1]:
        low = low or time < BOUNDARY
        found.append("low" if low else "high")
    return found


def sample(
    net: Net, shape: tuple[int, ...], *, sigma_max: float, steps: int, ode: bool, generator: torch.Generator
) -> Tensor:
    """fp32 latents of `shape`. Everything but the net's input and output is float64."""
    grid = times(sigma_max, steps)
    x = torch.randn(shape, dtype=torch.float32, generator=generator).double() * grid[0]
    for now, then in pairwise(grid):
        timestep = torch.tensor([net_timestep(now)], dtype=torch.bfloat16)
        v = net(x.to(torch.bfloat16), timestep).double()
        if ode:
            x = x - (now - then) * v
        else:
            # Drawn at the last step too, where it counts nothing but moves the generator on.
            noise = torch.randn(shape, dtype=torch.float32, generator=generator).double()
            x = (1 - then) * (x - now * v) + then * noise
    return x.float()
