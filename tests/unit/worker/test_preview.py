"""Pictures of the latents: what they show, what they cost, and that they change nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine.worker.channel import JobPreviewed, JobStaged, RunJob
from engine.worker.cpu import CpuBackend
from engine.worker.latent_rgb import CHANNELS, DecodeSums, LatentColours, latents_to_rgb
from engine.worker.pipeline import run_job
from engine.worker.preview import MOST_PIXELS, Previewer
from engine.worker.store import ComponentStore
from engine.worker.watch import JobWatch

from .conftest import I2V, SMALL, Seen

MakeJob = Callable[..., RunJob]


class Told:
    """What a job showed."""

    def __init__(self) -> None:
        self.pictures: list[JobPreviewed] = []
        self.stages: list[JobStaged] = []

    def __call__(self, message: JobPreviewed | JobStaged) -> None:
        (self.pictures if isinstance(message, JobPreviewed) else self.stages).append(message)  # type: ignore[arg-type]


def previewer(told: Told, backend: CpuBackend, steps: int = 4) -> Previewer:
    return Previewer(3, steps, backend, tell=told)


def of_a_world(frames: int, height: int, width: int) -> tuple[torch.Tensor, np.ndarray, torch.Tensor]:
    """Latents, the pixels that a VAE with a linear world makes of them, and that world's map [17, 3]."""
    generator = torch.Generator().manual_seed(frames)
    latents = torch.randn(1, CHANNELS, frames, height, width, generator=generator)
    world = torch.cat([torch.randn(CHANNELS, 3, generator=generator) * 12, torch.full((1, 3), 120.0)])
    colours = torch.einsum("cthw,cr->thwr", latents[0], world[:CHANNELS]) + world[CHANNELS]
    pixels = colours.clamp(0, 255).round().to(torch.uint8).numpy().repeat(8, 1).repeat(8, 2)
    return latents, pixels, world


def learnt(latents: torch.Tensor, pixels: np.ndarray) -> np.ndarray:
    sums = DecodeSums(latents)
    for frame in range(latents.shape[2]):
        # Of the pixel frames of a latent one the last is what it stands for.
        sums.add(frame, np.stack([np.zeros_like(pixels[frame]), pixels[frame]]))
    return sums.sums


@pytest.mark.parametrize("size", [(3, 10, 16), (21, 60, 104)])
def test_the_colours_of_a_vae_are_learnt_from_what_it_decodes(size: tuple[int, int, int]) -> None:
    latents, pixels, world = of_a_world(*size)
    colours = LatentColours()
    assert colours.map_of("a") is None
    colours.learn("a", learnt(latents, pixels))
    found = colours.map_of("a")
    assert found is not None and colours.map_of("b") is None
    # Clamping bends the world a little.
    assert (found - world).abs().max() < 2.5
    picture = latents_to_rgb(latents[0, :, 1], found).numpy().astype(int)
    assert np.abs(picture - pixels[1, ::8, ::8]).mean() < 4


def test_colours_outlive_a_worker_and_a_damaged_file_is_none(tmp_path: Path) -> None:
    latents, pixels, _world = of_a_world(2, 6, 8)
    LatentColours(tmp_path / "colours").learn("a" * 64, learnt(latents, pixels))
    kept = LatentColours(tmp_path / "colours").map_of("a" * 64)
    assert kept is not None and torch.isfinite(kept).all()
    (file,) = (tmp_path / "colours").iterdir()
    file.write_text("[1, 2")
    assert LatentColours(tmp_path / "colours").map_of("a" * 64) is None


def test_later_decodes_move_the_colours_and_do_not_wear_out() -> None:
    latents, pixels, world = of_a_world(5, 30, 40)
    other, others, changed = of_a_world(6, 30, 40)
    colours = LatentColours()
    for _ in range(100):
        colours.learn("a", learnt(latents, pixels))
    for _ in range(12):
        colours.learn("a", learnt(other, others))
    found = colours.map_of("a")
    assert found is not None
    assert (found - changed).abs().mean() < (found - world).abs().mean()


def test_before_a_decode_a_picture_is_grey_and_shows_what_stands_out() -> None:
    latents = torch.zeros(CHANNELS, 2, 3)
    latents[:, 1, 2] = 1.0
    grey = latents_to_rgb(latents, None)
    assert grey[0, 0].tolist() == [0, 0, 0] and grey[1, 2].tolist() == [90, 90, 90]


def test_what_is_out_of_range_or_not_finite_is_a_colour_all_the_same() -> None:
    colours = torch.zeros(CHANNELS + 1, 3)
    colours[3] = 50.0
    latents = torch.zeros(CHANNELS, 1, 3)
    latents[3] = torch.tensor([[1e9, -1e9, float("nan")]])
    assert latents_to_rgb(latents, colours)[0].tolist() == [[255] * 3, [0] * 3, [0] * 3]


def test_it_shows_the_estimate_of_the_middle_frame(backend: CpuBackend) -> None:
    told = Told()
    watch = previewer(told, backend)
    x, v = torch.randn(1, CHANNELS, 5, 6, 8, dtype=torch.float64), torch.randn(1, CHANNELS, 5, 6, 8).double()
    t = torch.tensor(0.7, dtype=torch.float64)
    watch.saw(1, x, v, t)
    watch.close()
    (picture,) = told.pictures
    assert (picture.job_id, picture.step, picture.steps) == (3, 2, 4)
    assert (picture.width, picture.height) == (8, 6)
    expected = latents_to_rgb(x[0, :, 2] - 0.7 * v[0, :, 2], None)
    assert picture.rgb == expected.numpy().tobytes()


@pytest.mark.parametrize(("height", "width"), [(240, 416), (161, 120), (4, 20000)])
def test_large_latents_are_averaged_until_a_message_is_small(
    backend: CpuBackend, height: int, width: int
) -> None:
    told = Told()
    watch = previewer(told, backend)
    latents = torch.ones(1, CHANNELS, 1, height, width, dtype=torch.float64)
    watch.saw(0, latents, latents, torch.tensor(0.0))
    watch.close()
    (picture,) = told.pictures
    assert picture.width * picture.height <= MOST_PIXELS
    assert len(picture.rgb) == picture.width * picture.height * 3
    assert len(set(picture.rgb[0::3])) == 1


def test_latents_of_another_kind_have_no_picture(backend: CpuBackend) -> None:
    told = Told()
    watch = previewer(told, backend)
    other = torch.zeros(1, 48, 1, 4, 4)
    watch.saw(0, other, other, torch.tensor(0.5))
    watch.close()
    assert not told.pictures


def test_a_picture_that_nobody_takes_keeps_no_step_waiting(backend: CpuBackend) -> None:
    taken = threading.Event()
    told: list[int] = []

    def tell(message: JobPreviewed | JobStaged) -> None:
        taken.wait(10)
        assert isinstance(message, JobPreviewed)
        told.append(message.step)

    watch = Previewer(3, 4, backend, tell=tell)
    latents = torch.zeros(1, CHANNELS, 1, 2, 2)
    began = time.monotonic()
    for step in range(3):
        watch.saw(step, latents, latents, torch.tensor(0.5))
    assert time.monotonic() - began < 1
    taken.set()
    watch.close()
    watch.saw(3, latents, latents, torch.tensor(0.5))
    watch.close()
    assert told == [1, 4]


def test_a_picture_costs_the_step_a_few_milliseconds(backend: CpuBackend) -> None:
    told = Told()
    watch = previewer(told, backend)
    latents = torch.randn(1, CHANNELS, 21, 90, 160, dtype=torch.float64)
    took = []
    for step in range(6):
        began = time.perf_counter()
        watch.saw(step, latents, latents, torch.tensor(0.5))
        took.append(time.perf_counter() - began)
    watch.close()
    # The quickest of six, since other processes share the cores.
    assert min(took) < 0.03
    assert [picture.step for picture in told.pictures] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(("model", "ode"), [(SMALL, False), (I2V, False), (I2V, True)])
def test_frames_are_the_same_bit_by_bit_with_and_without_it(
    store: ComponentStore,
    backend: CpuBackend,
    seen: Seen,
    job: MakeJob,
    tmp_path: Path,
    model: str,
    ode: bool,
) -> None:
    more: dict[str, object] = {}
    if model == I2V:
        Image.radial_gradient("L").convert("RGB").save(tmp_path / "picture.png")
        more = {"image": str(tmp_path / "picture.png"), "ode": ode}
    digests = []
    for preview in (False, True):
        told = Told()
        message = job(model, steps=3, **more)
        colours = LatentColours()
        watch = JobWatch(message, backend, tell=told, preview=preview, colours=colours)
        watch.begin(None)
        manifest, _path = run_job(
            message, store, backend, report=seen.progress.append, cancelled=lambda: False, watch=watch
        )
        watch.close()
        digests.append(manifest.frames_sha256)
        assert [picture.step for picture in told.pictures] == ([1, 2, 3] if preview else [])
        if preview:
            assert colours.map_of(store.open(message.model).components["vae"].content) is not None
    assert digests[0] == digests[1]


def test_the_stages_are_told_as_they_begin_and_end(
    store: ComponentStore, backend: CpuBackend, seen: Seen, job: MakeJob
) -> None:
    told = Told()
    message = job(SMALL)
    watch = JobWatch(message, backend, tell=told, preview=False)
    assert watch.begin({"text": 1.0, "denoise": 2.0, "decode": 1.0, "write": 0.0}) is not None
    manifest, _path = run_job(
        message, store, backend, report=seen.progress.append, cancelled=lambda: False, watch=watch
    )
    course = [(message.current, len(message.ended)) for message in told.stages]
    assert course == [
        *(("text", 0), (None, 1), ("denoise", 1), (None, 2)),
        *(("decode", 2), (None, 3), ("write", 3), (None, 4)),
    ]
    assert told.stages[-1].ended == manifest.stages
    assert all(item.current_before_bytes is not None for item in told.stages if item.current)
    assert list(told.stages[0].shares) == ["text", "denoise", "decode", "write"]
    assert told.stages[0].shares["denoise"] == pytest.approx(0.5, abs=0.01)
    assert told.stages[0].from_last
