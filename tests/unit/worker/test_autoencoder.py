"""The VAE by latent frame gives what diffusers gives for the whole clip."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from engine.errors import JobCancelled, NotResident, WorkFailed
from engine.worker.autoencoder import decode_frames, encode_first_frame
from engine.worker.channel import ModelFiles
from engine.worker.leaving import Frames, FramesLeaving
from engine.worker.store import ComponentStore

from .conftest import BUDGET, I2V


def _ignore(latent_frame: int) -> None:
    pass


@pytest.fixture
def vae(store: ComponentStore, files: Callable[[str], ModelFiles]) -> Iterator[Any]:
    model = store.open(files(I2V))
    with (
        store.lease(model, ("vae",), stage="decode", stage_bytes=0, budget_bytes=BUDGET) as modules,
        torch.inference_mode(),
    ):
        yield modules["vae"]
    store.free()


def _scale(vae: Any) -> tuple[torch.Tensor, torch.Tensor]:
    dtype = next(vae.parameters()).dtype
    mean = torch.tensor(vae.config.latents_mean).to(dtype).view(1, -1, 1, 1, 1)
    return mean, 1.0 / torch.tensor(vae.config.latents_std).to(dtype).view(1, -1, 1, 1, 1)


def _bytes(pixels_BCTHW: torch.Tensor) -> Frames:
    pixels_THWC = pixels_BCTHW[0].permute(1, 2, 3, 0).contiguous()
    return FramesLeaving(pixels_THWC.device).send(pixels_THWC).wait()[0]


def test_decoding_by_latent_frame_changes_no_pixel(vae: Any) -> None:
    latents = torch.randn(1, 16, 3, 4, 6, generator=torch.Generator().manual_seed(1))
    chunks = list(decode_frames(vae, latents, _ignore))
    assert [chunk.shape for chunk in chunks] == [(1, 32, 48, 3), (4, 32, 48, 3), (4, 32, 48, 3)]
    mean, inverse = _scale(vae)
    whole = vae.decode(latents.to(mean.dtype) / inverse + mean).sample
    # Sums in another order round a few to the neighbour.
    change = np.abs(np.concatenate(chunks).astype(int) - _bytes(whole))
    assert change.max() <= 1 and (change > 0).mean() < 0.01


def test_encoding_by_latent_frame_changes_no_latent(vae: Any) -> None:
    image = torch.rand(3, 32, 48, generator=torch.Generator().manual_seed(2)) * 2 - 1
    latents = encode_first_frame(vae, image, 3, _ignore)
    mean, inverse = _scale(vae)
    clip = torch.cat([image[None, :, None], torch.zeros(1, 3, 8, 32, 48)], dim=2).to(mean.dtype)
    expected = (vae.encode(clip).latent_dist.mode() - mean) * inverse
    assert latents.shape == (1, 16, 3, 4, 6)
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-5)


def test_pixels_are_clamped_and_rounded_half_up() -> None:
    values = torch.tensor([-2.0, -1.0, 0.0, 1 / 255, 1.0, 3.0])
    frames = _bytes(values.view(1, 1, 1, 1, -1).expand(1, 3, 1, 1, -1))
    assert frames[0, 0, :, 0].tolist() == [0, 0, 128, 128, 255, 255]
    assert frames.dtype == np.uint8


def test_a_cancel_is_seen_between_latent_frames(vae: Any) -> None:
    def check(latent_frame: int) -> None:
        if latent_frame == 1:
            raise JobCancelled("cancelled")

    chunks = decode_frames(vae, torch.zeros(1, 16, 3, 4, 4), check)
    next(chunks)
    with pytest.raises(JobCancelled):
        next(chunks)


def test_a_pixel_that_is_not_finite_fails_the_job(vae: Any) -> None:
    with pytest.raises(WorkFailed, match=r"vae .* latent frame 1"):
        list(decode_frames(vae, torch.full((1, 16, 1, 4, 4), float("nan")), _ignore))


def test_weights_that_are_not_there_are_never_read(
    store: ComponentStore, files: Callable[[str], ModelFiles]
) -> None:
    vae = store.open(files(I2V)).components["vae"].module
    with torch.inference_mode(), pytest.raises(NotResident, match="vae was used while it is not loaded"):
        list(decode_frames(vae, torch.zeros(1, 16, 1, 4, 4), _ignore))
