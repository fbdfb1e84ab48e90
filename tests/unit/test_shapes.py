"""Frames, latents, tokens and timesteps."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.planning.shapes import (
    TABLES,
    adaptive_size,
    are_valid_frames,
    dit_tokens,
    expert_for,
    experts_for,
    latent_frames,
    latent_shape,
    latent_size,
    nearest_frames,
    rcm_timesteps,
    resolutions,
)
from engine.wire import Resolution


@pytest.mark.parametrize(("frames", "latents"), [(1, 1), (5, 2), (17, 5), (77, 20), (81, 21)])
def test_the_vae_keeps_the_first_frame_and_folds_fours(frames: int, latents: int) -> None:
    assert latent_frames(frames) == latents


@given(st.integers(-50, 500))
def test_the_nearest_counts_are_valid_and_enclose_the_asked_one(frames: int) -> None:
    nearest = nearest_frames(frames)
    assert all(are_valid_frames(count) for count in nearest)
    if are_valid_frames(frames):
        assert nearest == (frames,)
        assert 4 * (latent_frames(frames) - 1) + 1 == frames
    else:
        with pytest.raises(ValueError, match="4n"):
            latent_frames(frames)
        if frames > 0:
            assert nearest[0] < frames < nearest[1] == nearest[0] + 4


@pytest.mark.parametrize(
    ("width", "height", "tokens"),
    [(832, 480, 32_760), (640, 640, 33_600), (640, 480, 25_200), (1280, 720, 75_600), (960, 720, 56_700)],
)
def test_tokens_of_81_frames_are_those_of_the_reference(width: int, height: int, tokens: int) -> None:
    assert dit_tokens(width, height, 81) == tokens


def test_latents_are_rows_by_columns() -> None:
    assert latent_size(832, 480) == (60, 104)
    assert latent_shape(128, 80, 17) == (1, 16, 5, 10, 16)


@pytest.mark.parametrize(("width", "height"), [(833, 480), (832, 8), (0, 480), (-16, 16)])
def test_sides_that_are_no_multiple_of_16_are_refused(width: int, height: int) -> None:
    with pytest.raises(ValueError, match="multiple of 16"):
        latent_size(width, height)


def test_every_row_of_every_table_can_be_generated() -> None:
    rows = resolutions(*TABLES)
    assert len(rows) == 25
    for row in rows:
        assert dit_tokens(row.width, row.height, 81) > 0
        across, down = map(int, row.aspect_ratio.split(":"))
        assert (row.width > row.height) == (across > down)
        assert (row.width < row.height) == (across < down)
        assert abs(row.width / row.height / (across / down) - 1) < 0.12


@pytest.mark.parametrize(
    ("sigma_max", "first"), [(80.0, 0.9876543210), (200.0, 0.9950248756), (1600.0, 0.9993753904)]
)
def test_timesteps_are_those_of_the_reference(sigma_max: float, first: float) -> None:
    expected = (first, 0.9337810614, 0.8528953948, 0.6089790492, 0.0)
    assert rcm_timesteps(4, sigma_max) == pytest.approx(expected, abs=1e-10)
    assert rcm_timesteps(3, sigma_max) == pytest.approx((*expected[:3], 0.0), abs=1e-10)


@given(st.integers(1, 4), st.floats(15, 10_000))
def test_timesteps_fall_strictly_from_below_one_to_exactly_zero(steps: int, sigma_max: float) -> None:
    timesteps = rcm_timesteps(steps, sigma_max)
    assert len(timesteps) == steps + 1
    assert 1 > timesteps[0]
    assert timesteps[-1] == 0.0
    assert all(after < before for before, after in pairwise(timesteps))
    assert timesteps[0] == pytest.approx(sigma_max / (1 + sigma_max))


@pytest.mark.parametrize(("steps", "sigma_max"), [(0, 80), (5, 80), (4, 14), (4, math.inf), (1, math.nan)])
def test_a_schedule_that_cannot_be_is_refused(steps: int, sigma_max: float) -> None:
    with pytest.raises(ValueError, match=r"steps|sigma_max"):
        rcm_timesteps(steps, sigma_max)


def test_the_low_noise_expert_takes_over_below_the_boundary() -> None:
    assert expert_for(0.9) == "high"
    assert expert_for(0.8999) == "low"
    assert experts_for(rcm_timesteps(4, 200.0)) == ("high", "high", "low", "low")
    assert experts_for(rcm_timesteps(3, 200.0)) == ("high", "high", "low")
    assert experts_for(rcm_timesteps(2, 200.0)) == ("high", "high")


@pytest.mark.parametrize(
    ("image", "table", "size"),
    [
        ((1280, 720), (1280, 720), (1280, 720)),
        ((4032, 3024), (1280, 720), (1104, 832)),
        ((3024, 4032), (832, 480), (544, 736)),
        ((1, 1), (832, 480), (624, 624)),
    ],
)
def test_an_adaptive_size_keeps_the_area_and_takes_the_ratio(
    image: tuple[int, int], table: tuple[int, int], size: tuple[int, int]
) -> None:
    row = Resolution(name="x", aspect_ratio="16:9", width=table[0], height=table[1])
    assert adaptive_size(row, *image) == size
    assert adaptive_size(row, 9999, 1) is None and adaptive_size(row, 1, 9999) is None
