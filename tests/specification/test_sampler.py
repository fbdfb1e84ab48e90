"""The engine's sampler against closed forms and the statement, alone and with the net."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from engine.planning.shapes import DEFAULT_SIGMA_MAX, experts_for, rcm_timesteps
from engine.worker.denoise import Velocity, denoise, net_timestep, start
from engine.worker.pipeline import net_velocity
from engine.worker.side_by_side import each_sample
from tests.specification import sampler
from tests.specification.checkpoints import TEXT, turbo_wan
from tests.specification.dit import Transformer
from tests.specification.test_wan_net import net_of

CPU = torch.device("cpu")
SIGMAS = (80.0, 200.0, 1600.0)
SHAPE = (2, 16, 2, 4, 6)
GOAL = 0.25


def generator(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def walked(
    velocity: Velocity, *, sigma_max: float, steps: int, ode: bool = False, shape: tuple[int, ...] = SHAPE
) -> tuple[Tensor, Tensor]:
    """The engine's latents, and the generator's state after them."""
    grid = rcm_timesteps(steps, sigma_max)
    states = [start(shape, grid, generator())]
    latents = denoise(states[0], velocity, timesteps=grid, ode=ode, after_step=states.append)
    assert [state.step for state in states] == list(range(steps + 1))
    assert {state.x_BCTHW.dtype for state in states} == {torch.float64} and latents.dtype == torch.float32
    return latents, states[-1].generator_state


@pytest.mark.parametrize("sigma_max", SIGMAS)
@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_times_are_of_a_closed_form(sigma_max: float, steps: int) -> None:
    found = rcm_timesteps(steps, sigma_max)
    middle = [math.tan(angle) / (1 + math.tan(angle)) for angle in (1.5, 1.4, 1.0)[: steps - 1]]
    assert found == pytest.approx([sigma_max / (1 + sigma_max), *middle, 0.0], rel=1e-15)
    assert found[-1] == 0.0
    assert found == pytest.approx(sampler.times(sigma_max, steps), rel=1e-15)


def test_the_usual_noise_is_the_published_one() -> None:
    assert rcm_timesteps(4, DEFAULT_SIGMA_MAX["t2v"]) == pytest.approx(
        (0.9876543210, 0.9337810614, 0.8528953948, 0.6089790492, 0.0), abs=5e-11
    )
    assert rcm_timesteps(1, DEFAULT_SIGMA_MAX["i2v"])[0] == pytest.approx(0.9950248756, abs=5e-11)


@pytest.mark.parametrize(
    ("kind", "told"), [("t2v", [988.0, 932.0, 852.0, 608.0]), ("i2v", [996.0, 932.0, 852.0, 608.0])]
)
def test_the_net_is_told_times_of_eight_bits(kind: str, told: list[float]) -> None:
    grid = rcm_timesteps(4, DEFAULT_SIGMA_MAX[kind])  # type: ignore[index]
    assert [net_timestep(time, CPU).item() for time in grid[:-1]] == told


def test_every_time_is_rounded_as_stated() -> None:
    for number in range(2000):
        time = (number + 0.37) / 2000
        assert net_timestep(time, CPU).item() == sampler.net_timestep(time), time


@pytest.mark.parametrize("sigma_max", SIGMAS)
@pytest.mark.parametrize(
    ("steps", "experts"),
    [
        (1, ["high"]),
        (2, ["high", "high"]),
        (3, ["high", "high", "low"]),
        (4, ["high", "high", "low", "low"]),
    ],
)
def test_the_high_expert_takes_what_is_not_below_the_boundary(
    sigma_max: float, steps: int, experts: list[str]
) -> None:
    assert list(experts_for(rcm_timesteps(steps, sigma_max))) == experts
    assert sampler.experts(sigma_max, steps) == experts
    assert experts_for((0.9, math.nextafter(0.9, 0), 0.0)) == ("high", "low")


@pytest.mark.parametrize("ode", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_latents_and_draws_are_the_statement_s(steps: int, ode: bool) -> None:
    """A net that answers in bf16, so that the least difference in what it sees would show."""

    def net(x: Tensor, timestep: Tensor) -> Tensor:
        return torch.sin(x * (timestep / 300)) * 0.7

    def velocity(x: Tensor, step: int) -> Tensor:
        told = net_timestep(rcm_timesteps(steps, 200.0)[step], CPU)
        return net(x.to(torch.bfloat16), told.to(torch.bfloat16))

    found, state = walked(velocity, sigma_max=200.0, steps=steps, ode=ode)
    drawn = generator()
    expected = sampler.sample(net, SHAPE, sigma_max=200.0, steps=steps, ode=ode, generator=drawn)
    # The noise of a step is fp32 in the engine, as its time is no array to torch; here it is float64.
    assert (found - expected).abs().max() < 1e-6
    assert torch.equal(state, drawn.get_state())


@pytest.mark.parametrize("ode", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_each_step_draws_once_the_last_too_and_an_ode_s_none(steps: int, ode: bool) -> None:
    _, state = walked(lambda x, step: x * 0.5, sigma_max=80.0, steps=steps, ode=ode)
    drawn = generator()
    for _ in range(1 if ode else 1 + steps):
        torch.randn(SHAPE, generator=drawn)
    assert torch.equal(state, drawn.get_state())


@pytest.mark.parametrize("sigma_max", SIGMAS)
@pytest.mark.parametrize("ode", [False, True])
def test_the_right_velocity_leads_home_in_float64(sigma_max: float, ode: bool) -> None:
    """v = (x - goal) / t: the last step ends at the goal, to float64's digits and not to fp32's."""
    grid = rcm_timesteps(4, sigma_max)
    seen: list[Tensor] = []

    def velocity(x: Tensor, step: int) -> Tensor:
        seen.append(x)
        return (x - GOAL) / grid[step]

    found, _ = walked(velocity, sigma_max=sigma_max, steps=4, ode=ode)
    assert torch.equal(found, torch.full(SHAPE, GOAL))
    drawn = generator()
    noise = torch.randn(SHAPE, generator=drawn).double()
    for step, time in enumerate(grid[:-1]):
        # With an ODE what lies between goal and noise shrinks as time does; with an SDE it is new.
        expected = noise * grid[0] if step == 0 else (1 - time) * GOAL + time * noise
        if ode and step > 0:
            expected = GOAL + (noise * grid[0] - GOAL) * (time / grid[0])
        assert (seen[step] - expected).abs().max() < (1e-14 if ode else 3e-7)
        if not ode:
            noise = torch.randn(SHAPE, generator=drawn).double()


def test_a_net_sees_the_state_then_what_it_is_given_and_is_told_the_time() -> None:
    seen: list[Tensor] = []

    class Net:
        patch_embedding = torch.nn.Linear(4, 4, dtype=torch.bfloat16)

        def __call__(self, *given: Tensor) -> Tensor:
            seen.extend(given)
            return given[0][:, :16]

    x = torch.randn(1, 16, 2, 4, 6, dtype=torch.float64, generator=generator())
    beside = torch.randn(1, 20, 2, 4, 6, generator=generator(1))
    text = torch.randn(1, 512, TEXT, generator=generator(2))
    net_velocity(Net(), x, rcm_timesteps(4, 200.0)[0], text, beside)
    assert torch.equal(seen[0], torch.cat((x.bfloat16(), beside.bfloat16()), dim=1))
    assert seen[1].tolist() == [996.0] and torch.equal(seen[2], text.bfloat16())


@pytest.mark.parametrize(
    ("kind", "ode"), [("t2v", False), ("i2v", False), ("i2v", True)], ids=["t2v", "i2v sde", "i2v ode"]
)
def test_from_noise_to_latents_with_the_nets(kind: str, ode: bool) -> None:
    """Two samples, each with the same text and condition; image to video with its two experts."""
    channels, sigma_max = (36, 200.0) if kind == "i2v" else (16, 80.0)
    experts = sampler.experts(sigma_max, 4) if kind == "i2v" else ["high"] * 4
    tensors = {name: turbo_wan(channels=channels, seed=seed, dtype=torch.bfloat16)
               for seed, name in enumerate(dict.fromkeys(experts))}  # fmt: skip
    nets = {name: net_of(found, channels) for name, found in tensors.items()}
    statements = {name: Transformer(found) for name, found in tensors.items()}
    text = torch.randn(1, 20, TEXT, generator=generator(1)).bfloat16()
    beside = torch.randn(1, 20, *SHAPE[2:], generator=generator(2)).bfloat16() if kind == "i2v" else None
    grid = rcm_timesteps(4, sigma_max)

    def one(x: Tensor, step: int, last: bool) -> Tensor:
        return net_velocity(nets[experts[step]], x, grid[step], text, beside)

    def whole(order: Callable[[], str], x: Tensor, timestep: Tensor) -> Tensor:
        count = len(x)
        given = None if beside is None else beside.repeat(count, 1, 1, 1, 1)
        return statements[order()](x, timestep.repeat(count), text.repeat(count, 1, 1), given)

    with torch.inference_mode():
        found, _ = walked(partial(each_sample, one, lambda: None), sigma_max=sigma_max, steps=4, ode=ode)
        expected = sampler.sample(
            partial(whole, iter(experts).__next__),
            SHAPE, sigma_max=sigma_max, steps=4, ode=ode, generator=generator(),
        )  # fmt: skip
    assert (found - expected).norm() / expected.norm() < 5e-3
    assert (found[0] - found[1]).norm() / found[0].norm() > 0.1
