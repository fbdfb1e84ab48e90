"""The engine's walk through the VAE against the statement and diffusers, from the same tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan
from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers
from torch import Tensor

from engine.worker.nets import vae as net
from engine.worker.nets.vae import Decoder, Encoder
from tests.specification.vae import MEAN, STD, Vae, wan_vae

DIM = 8


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return wan_vae(DIM)


def vae_of(tensors: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> Any:
    vae = AutoencoderKLWan(base_dim=DIM).requires_grad_(False).eval()
    vae.load_state_dict(convert_wan_vae_to_diffusers(dict(tensors)), strict=True)
    return vae.to(dtype)


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def scaled(latents: Tensor) -> Tensor:
    """As the decoder takes them."""
    mean, std = (torch.tensor(values).view(1, -1, 1, 1, 1) for values in (MEAN, STD))
    return latents / (1 / std) + mean


def decoded(vae: Any, z: Tensor, *chunks: int) -> Tensor:
    decoder = Decoder(vae)
    frames = torch.cat([decoder(part) for part in z.split(chunks, dim=2)])
    return frames.permute(3, 0, 1, 2)[None]


def encoded(vae: Any, clip: Tensor, *chunks: int) -> Tensor:
    encoder = Encoder(vae)
    return torch.cat([encoder(part) for part in clip.split(chunks, dim=2)], dim=2)


def error(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())


def test_diffusers_is_the_statement(tensors: dict[str, Tensor]) -> None:
    latents, clip = numbers(1, 16, 3, 4, 6), numbers(1, 3, 9, 32, 48).clamp(-1, 1)
    vae, statement = vae_of(tensors), Vae(tensors)
    assert error(vae.decode(scaled(latents)).sample, statement.decode(latents).clamp(-1, 1)) < 1e-5
    mean, std = (torch.tensor(values).view(1, -1, 1, 1, 1) for values in (MEAN, STD))
    found = (vae.encode(clip).latent_dist.mode() - mean) * (1 / std)
    assert error(found, statement.encode(clip)) < 1e-5


@pytest.mark.parametrize("chunks", [(1, 1, 1), (1, 2)], ids=str)
def test_decoding_is_the_statement(tensors: dict[str, Tensor], chunks: tuple[int, ...]) -> None:
    latents = numbers(1, 16, 3, 4, 6)
    with torch.inference_mode():
        found = decoded(vae_of(tensors), scaled(latents), *chunks)
    expected = Vae(tensors).decode(latents)
    assert found.shape == expected.shape == (1, 3, 9, 32, 48)
    assert error(found, expected) < 1e-5


@pytest.mark.parametrize("chunks", [(1, 4, 4), (1, 8)], ids=str)
def test_encoding_is_the_statement(tensors: dict[str, Tensor], chunks: tuple[int, ...]) -> None:
    clip = numbers(1, 3, 9, 32, 48).clamp(-1, 1)
    mean, std = (torch.tensor(values).view(1, -1, 1, 1, 1) for values in (MEAN, STD))
    with torch.inference_mode():
        found = (encoded(vae_of(tensors), clip, *chunks) - mean) * (1 / std)
    expected = Vae(tensors).encode(clip)
    assert found.shape == expected.shape == (1, 16, 3, 4, 6)
    assert error(found, expected) < 1e-5


def test_in_bf16_it_is_as_near_to_the_statement_as_diffusers(tensors: dict[str, Tensor]) -> None:
    z = numbers(1, 16, 2, 4, 6).bfloat16()
    vae = vae_of(tensors, torch.bfloat16)
    wide = vae_of({name: tensor.bfloat16().float() for name, tensor in tensors.items()})
    with torch.inference_mode():
        exact = decoded(wide, z.float(), 1, 1).clamp(-1, 1)
        found = decoded(vae, z, 1, 1).clamp(-1, 1)
        theirs = vae.decode(z).sample
    assert found.dtype == torch.bfloat16
    assert error(found, exact) < 1.2 * error(theirs, exact)


def test_frames_that_come_again_are_not_computed_again(
    tensors: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image and then grey, as long as the longest video: bit by bit what computing all of it gives."""
    vae, image = vae_of(tensors), numbers(1, 3, 1, 16, 16).clamp(-1, 1)
    grey = torch.zeros(1, 3, 4, 16, 16)
    sizes: list[int] = []
    convolve = net._conv3d

    def counted(whole: Tensor, *rest: Any, **settings: Any) -> Tensor:
        out = convolve(whole, *rest, **settings)
        sizes.append(out.numel() * whole.shape[-1])
        return out

    monkeypatch.setattr(net, "_conv3d", counted)
    with torch.inference_mode():
        plain, quick = Encoder(vae), Encoder(vae)
        expected = [plain(image), *(plain(grey) for _ in range(20))]
        whole = sum(sizes)
        sizes.clear()
        found = [quick(image), quick(grey), *(quick(grey, again=True) for _ in range(19))]
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert sum(sizes) < 0.55 * whole
