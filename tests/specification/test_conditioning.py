"""The engine's conditioning by an image against the statement."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan
from PIL import Image
from torch import Tensor

from engine.planning.shapes import adaptive_size
from engine.wire import Resolution
from engine.worker.conditioning import fit_image, image_condition
from tests.specification import conditioning

MEANS = [-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
         0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921]  # fmt: skip
DEVIATIONS = [2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
              3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160]  # fmt: skip
"""Of the released VAE."""


def picture(width: int, height: int) -> Tensor:
    return torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(0)).byte()


def fitted(pixels: Tensor, width: int, height: int) -> Tensor:
    return fit_image(Image.fromarray(pixels.permute(1, 2, 0).numpy()), width, height)


@pytest.mark.parametrize(
    "size", [(70, 90), (31, 17), (300, 40), (48, 32)], ids=["smaller", "larger", "squeezed", "as it is"]
)
def test_an_image_is_stretched_as_stated(size: tuple[int, int]) -> None:
    pixels = picture(*size)
    found = fitted(pixels, 48, 32)
    expected = torch.floor(conditioning.resized(pixels, 48, 32) + 0.5)
    levels = (found * 0.5 + 0.5) * 255
    # Whole levels, and those stated; the weights' fixed point shows where a sum ends beside a half.
    assert (levels - levels.round()).abs().max() < 1e-3
    assert (levels.round() - expected).abs().max() <= 1
    assert (levels.round() != expected).double().mean() < 0.05
    assert torch.equal(found, conditioning.normalised(levels.round()))


def test_black_white_and_the_grey_between() -> None:
    for level, value in ((0, -1.0), (255, 1.0)):
        assert fitted(torch.full((3, 20, 20), level).byte(), 16, 16).unique().tolist() == [value]
    assert conditioning.clip(torch.ones(3, 16, 16), 5)[:, :, 1:].unique().tolist() == [0.0]


@pytest.fixture(scope="module")
def vae() -> Any:
    torch.manual_seed(0)
    return AutoencoderKLWan(base_dim=8, num_res_blocks=1).requires_grad_(False).eval()


@pytest.mark.parametrize(
    ("dtype", "most"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=["fp32", "bf16"]
)
def test_the_condition_is_the_statement_s(vae: Any, dtype: torch.dtype, most: float) -> None:
    vae = vae.to(dtype)
    image = conditioning.normalised(picture(48, 32))

    def encode(pixels: Tensor) -> Tensor:
        mean: Tensor = vae.encode(pixels.to(dtype)).latent_dist.mode()
        return mean

    with torch.inference_mode():
        found = image_condition(vae, image, 3, lambda latent_frame: None)
        expected = conditioning.condition(encode, image, 9, MEANS, DEVIATIONS)
    assert (found.shape, found.dtype) == (expected.shape, dtype) == ((1, 20, 3, 4, 6), dtype)
    assert torch.equal(found[:, :4], expected[:, :4])
    assert found[0, :4].float().sum(dim=(0, 2, 3)).tolist() == [4 * 4 * 6, 0, 0]
    for channel in range(4, 20):
        difference = (found[:, channel] - expected[:, channel]).float().norm()
        assert difference / expected[:, channel].float().norm() < most, channel
    # Grey frames are not nothing: they remember the first one.
    assert (found[:, 4:, 1] - found[:, 4:, 2]).abs().max() > 1e-4


@pytest.mark.parametrize("size", [(1280, 720), (832, 480), (640, 640), (704, 960)])
def test_an_adaptive_size_is_the_statement_s(size: tuple[int, int]) -> None:
    row = Resolution(name="x", aspect_ratio="x", width=size[0], height=size[1])
    for image in ((4032, 3024), (3024, 4032), (1, 1), (1920, 1080), (1000, 1001), (317, 123), (768, 1365)):
        expected = conditioning.adaptive(size[0] * size[1], *image)
        assert adaptive_size(row, *image) == expected
        assert abs(expected[0] * expected[1] / (size[0] * size[1]) - 1) < 0.05
