"""The rCM sampler: one loop from noise to latents in 1 to 4 steps, for every model.

It owns the state and the order of random draws, and neither weights nor conditioning: the caller
passes a `Velocity` that picks the net for a step and builds its input.

Source: TurboDiffusion inference/wan2.1_t2v_infer.py and wan2.2_i2v_infer.py.
"""

# Shapes: B videos, C latent channels (16), T latent frames, H/W latent rows/columns.

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.worker.finite_guard import FiniteGuard

TIMES_DTYPE = torch.float64
Velocity = Callable[[Tensor, int], Tensor]
"""(x_BCTHW in float64, step from 0) to the net's velocity of the same shape, in any dtype."""

Saw = Callable[[int, Tensor, Tensor, Tensor], None]
"""Hears what a step is made from: step from 0, x_BCTHW, its velocity, the RF time; changes none of it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DenoiseState:
    """Everything that the loop carries from one step to the next; save it and resume from it."""

    x_BCTHW: Tensor
    """float64, on the device."""
    generator_state: Tensor
    """uint8, on the host; the noise of later steps follows from it."""
    step: int
    """Finished steps."""


def net_timestep(t: float, device: torch.device) -> Tensor:
    """What the net is told for RF time `t`: [1] float32, a bf16 value. 0.9876543 -> 988.0.

    The product is formed as the reference forms it, from float32(t) in float64; the update uses
    the exact `t`.
    """
    exact = torch.tensor([t], dtype=torch.float32).to(torch.float64) * 1000
    return exact.to(torch.bfloat16).to(device=device, dtype=torch.float32)


def net_velocity(net: Any, x_BCTHW: Tensor, t: float, text_BLD: Tensor, condition: Tensor | None) -> Tensor:
    """The DiT's velocity at RF time `t`; `condition` are the channels beside the noise, or None."""
    weight = net.patch_embedding.weight
    x_input = x_BCTHW.to(weight.dtype)
    if condition is not None:
        x_input = torch.cat([x_input, condition.to(weight.dtype)], dim=1)
    velocity: Tensor = net(x_input, net_timestep(t, weight.device), text_BLD.to(weight.dtype))
    return velocity


def start(shape: Sequence[int], timesteps: Sequence[float], generator: torch.Generator) -> DenoiseState:
    """The state before the first step: the seed's noise, scaled by the first timestep.

    One draw of the whole shape in float32, since a generator's numbers depend on the shape drawn.
    """
    noise = torch.randn(tuple(shape), dtype=torch.float32, device=generator.device, generator=generator)
    return DenoiseState(
        x_BCTHW=noise.to(torch.float64) * timesteps[0], generator_state=generator.get_state(), step=0
    )


def times_bytes(timesteps: Sequence[float]) -> int:
    """What `denoise` holds on the device for its whole length beside its state."""
    return len(timesteps) * TIMES_DTYPE.itemsize


def denoise(
    state: DenoiseState,
    velocity: Velocity,
    *,
    timesteps: Sequence[float],
    ode: bool = False,
    before_step: Callable[[int], None] = lambda step: None,
    after_step: Callable[[DenoiseState], None] = lambda state: None,
    saw: Saw | None = None,
    guard: FiniteGuard | None = None,
) -> Tensor:
    """Walk `state` down `timesteps` to 0 and return the latents, float32.

    `before_step` may raise, to cancel; `after_step` gets each new state, which the device may still
    have to make. `guard` looks at each of them; without it values that are not finite pass. Same state
    and nets: the same latents, whether resumed or watched or not.

    Raises:
        WorkFailed: the net returned a value that is not finite, told one step later or at the end.
    """
    x_BCTHW = state.x_BCTHW
    generator = torch.Generator(device=x_BCTHW.device)
    generator.set_state(state.generator_state)
    # 0-dim float64 tensors as in the reference: times float32 noise they stay float32.
    times = torch.tensor(list(timesteps), dtype=TIMES_DTYPE, device=x_BCTHW.device)
    for step in range(state.step, len(timesteps) - 1):
        before_step(step)
        if guard is not None:
            guard.check(step - 2)  # the one before may still run
        t, t_next = times[step], times[step + 1]
        v_BCTHW = velocity(x_BCTHW, step).to(torch.float64)
        if saw is not None:
            saw(step, x_BCTHW, v_BCTHW, t)
        if ode:
            x_BCTHW = x_BCTHW - (t - t_next) * v_BCTHW
        else:
            # Also in the last step, where the noise counts for nothing but advances the generator.
            noise = torch.randn(
                x_BCTHW.shape, dtype=torch.float32, device=x_BCTHW.device, generator=generator
            )
            x_BCTHW = (1 - t_next) * (x_BCTHW - t * v_BCTHW) + t_next * noise
        if guard is not None:
            guard.look(step, x_BCTHW)
            del noise
        del v_BCTHW  # neither lies beside the next pass
        state = DenoiseState(x_BCTHW=x_BCTHW, generator_state=generator.get_state(), step=step + 1)
        after_step(state)
    if guard is not None:
        guard.check(len(timesteps) - 2)
    return state.x_BCTHW.to(torch.float32)
