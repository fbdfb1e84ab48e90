"""The sampler against the reference's own arithmetic, and its state as one value."""

from __future__ import annotations

import io
import itertools
import math

import pytest
import torch
from torch import Tensor

from engine.errors import JobCancelled, WorkFailed
from engine.planning.shapes import rcm_timesteps
from engine.worker.cpu import CpuBackend
from engine.worker.denoise import DenoiseState, denoise, net_timestep, start
from engine.worker.finite_guard import FiniteGuard

SHAPE = (1, 16, 2, 4, 6)
CPU = torch.device("cpu")


def _velocity(x_BCTHW: Tensor, step: int) -> Tensor:
    """A net of sorts: bf16 in and out, and unlike from step to step."""
    return torch.sin(x_BCTHW.to(torch.bfloat16) * (1.5 + step)) * 0.7


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _reference(seed: int, steps: int, sigma_max: float, *, ode: bool) -> tuple[Tensor, Tensor]:
    """The loop of TurboDiffusion's scripts; latents and the generator's state after them."""
    generator = _generator(seed)
    noise = torch.randn(SHAPE, dtype=torch.float32, generator=generator)
    angles = [math.atan(sigma_max), *[1.5, 1.4, 1.0][: steps - 1], 0]
    t_steps = torch.tensor(angles, dtype=torch.float64)
    t_steps = torch.sin(t_steps) / (torch.cos(t_steps) + torch.sin(t_steps))
    x = noise.to(torch.float64) * t_steps[0]
    for step, (t, t_next) in enumerate(itertools.pairwise(t_steps)):
        v = _velocity(x, step).to(torch.float64)
        if ode:
            x = x - (t - t_next) * v
        else:
            fresh = torch.randn(SHAPE, dtype=torch.float32, generator=generator)
            x = (1 - t_next) * (x - t * v) + t_next * fresh
    return x.float(), generator.get_state()


def _run(seed: int, steps: int, *, ode: bool = False, sigma_max: float = 80.0) -> tuple[Tensor, Tensor]:
    timesteps = rcm_timesteps(steps, sigma_max)
    states: list[DenoiseState] = []
    latents = denoise(
        start(SHAPE, timesteps, _generator(seed)),
        _velocity,
        timesteps=timesteps,
        ode=ode,
        after_step=states.append,
    )
    return latents, states[-1].generator_state


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
@pytest.mark.parametrize("ode", [False, True])
def test_latents_and_draws_are_the_reference_s(steps: int, ode: bool) -> None:
    latents, generator_state = _run(5, steps, ode=ode, sigma_max=200.0)
    expected, expected_state = _reference(5, steps, 200.0, ode=ode)
    torch.testing.assert_close(latents, expected, rtol=1e-6, atol=1e-6)
    # Also the draw of the last step, whose noise counts for nothing.
    assert torch.equal(generator_state, expected_state)


def test_the_same_seed_gives_the_same_latents_and_another_seed_others() -> None:
    first, again, other = (_run(seed, 4)[0] for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("stop", [0, 1, 2, 3])
@pytest.mark.parametrize("ode", [False, True])
def test_resuming_from_a_saved_state_changes_no_bit(stop: int, ode: bool) -> None:
    timesteps = rcm_timesteps(4, 200.0)
    states = [start(SHAPE, timesteps, _generator(9))]
    whole = denoise(states[0], _velocity, timesteps=timesteps, ode=ode, after_step=states.append)
    saved = io.BytesIO()
    state = states[stop]
    torch.save({"x": state.x_BCTHW, "generator": state.generator_state, "step": state.step}, saved)
    saved.seek(0)
    read = torch.load(saved, weights_only=True)
    resumed = DenoiseState(x_BCTHW=read["x"], generator_state=read["generator"], step=read["step"])
    assert resumed.step == stop
    assert torch.equal(denoise(resumed, _velocity, timesteps=timesteps, ode=ode), whole)


@pytest.mark.parametrize(("sigma_max", "first"), [(80.0, 988.0), (200.0, 996.0), (1600.0, 1000.0)])
def test_the_net_is_told_timesteps_rounded_to_bf16(sigma_max: float, first: float) -> None:
    told = [net_timestep(t, CPU).item() for t in rcm_timesteps(4, sigma_max)[:-1]]
    assert told == [first, 932.0, 852.0, 608.0]


def test_the_state_starts_at_the_noise_times_the_first_timestep() -> None:
    timesteps = rcm_timesteps(4, 80.0)
    noise = torch.randn(SHAPE, generator=_generator(2))
    state = start(SHAPE, timesteps, _generator(2))
    assert state.x_BCTHW.dtype == torch.float64
    assert torch.equal(state.x_BCTHW, noise.double() * timesteps[0])


def test_a_value_that_is_not_finite_names_the_step_and_the_net() -> None:
    timesteps = rcm_timesteps(4, 200.0)

    def broken(x_BCTHW: Tensor, step: int) -> Tensor:
        return torch.full_like(x_BCTHW, float("nan")) if step == 2 else _velocity(x_BCTHW, step)

    with pytest.raises(WorkFailed, match=r"dit\.low .*step 3 of 4"):
        denoise(
            start(SHAPE, timesteps, _generator(0)),
            broken,
            timesteps=timesteps,
            guard=FiniteGuard(CpuBackend(), ("dit.high", "dit.high", "dit.low", "dit.low")),
        )


def test_a_cancel_is_seen_between_steps() -> None:
    timesteps = rcm_timesteps(4, 80.0)
    made: list[int] = []

    def before_step(step: int) -> None:
        if step == 2:
            raise JobCancelled("cancelled")

    with pytest.raises(JobCancelled):
        denoise(
            start(SHAPE, timesteps, _generator(0)),
            _velocity,
            timesteps=timesteps,
            before_step=before_step,
            after_step=lambda state: made.append(state.step),
        )
    assert made == [1, 2]
