"""The VAE on a GPU: by our kernels and cuDNN what diffusers makes of the same weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan
from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers
from torch import Tensor

from engine.worker.autoencoder import decode_frames, encode_first_frame
from engine.worker.nets.vae import Decoder, Encoder
from tests.specification.vae import wan_vae

DIM = 96


@pytest.fixture(scope="module")
def make() -> Callable[[torch.dtype], Any]:
    tensors = convert_wan_vae_to_diffusers(wan_vae(DIM))

    def made(dtype: torch.dtype) -> Any:
        vae = AutoencoderKLWan(base_dim=DIM).requires_grad_(False).eval()
        vae.load_state_dict(tensors, strict=True)
        return vae.to("cuda", dtype)

    return made


def _ignore(latent_frame: int) -> None:
    pass


def latents(dtype: torch.dtype, frames: int = 3) -> Tensor:
    return torch.randn(1, 16, frames, 12, 20, generator=torch.Generator().manual_seed(1)).to("cuda", dtype)


def decoded(vae: Any, z: Tensor, chunks: tuple[int, ...]) -> Tensor:
    decoder = Decoder(vae)
    return torch.cat([decoder(part) for part in z.split(chunks, dim=2)]).permute(3, 0, 1, 2)[None]


def error(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-5), (torch.bfloat16, 4e-2)], ids=str)
def test_decoding_gives_what_diffusers_gives(
    make: Callable[[torch.dtype], Any], dtype: torch.dtype, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Else fp32 convolutions round their inputs to 10 bits.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    vae, z = make(dtype), latents(dtype)
    with torch.inference_mode():
        theirs = vae.decode(z).sample
        ours = decoded(vae, z, (1, 1, 1)).clamp(-1, 1)
        pairs = decoded(vae, z, (1, 2)).clamp(-1, 1)
    assert error(ours, theirs) < most and error(pairs, ours) < most


def test_in_bf16_it_is_as_near_to_exact_as_diffusers(make: Callable[[torch.dtype], Any]) -> None:
    vae, z = make(torch.bfloat16), latents(torch.bfloat16)
    wide = AutoencoderKLWan(base_dim=DIM).requires_grad_(False).eval()
    wide.load_state_dict({name: tensor.double() for name, tensor in vae.state_dict().items()})
    wide = wide.to("cuda", torch.float64)
    with torch.inference_mode():
        exact = wide.decode(z.double()).sample
        theirs = error(vae.decode(z).sample, exact)
        ours = error(decoded(vae, z, (1, 1, 1)).clamp(-1, 1), exact)
        print(f"bf16 decode against fp64: {ours:.5f}, diffusers {theirs:.5f}")
    assert ours < 1.2 * theirs


def test_encoding_gives_what_diffusers_gives(make: Callable[[torch.dtype], Any]) -> None:
    vae = make(torch.bfloat16)
    clip = torch.rand(1, 3, 9, 96, 160, generator=torch.Generator().manual_seed(2)) * 2 - 1
    clip = clip.to("cuda", torch.bfloat16)
    with torch.inference_mode():
        theirs = vae.encode(clip).latent_dist.mode()
        encoder = Encoder(vae)
        ours = torch.cat([encoder(part) for part in clip.split((1, 4, 4), dim=2)], dim=2)
    assert error(ours, theirs) < 4e-2


def test_frames_arrive_whole_and_the_same_each_time(make: Callable[[torch.dtype], Any]) -> None:
    """They leave while the next chunk is computed, into memory that is used again."""
    vae, z = make(torch.bfloat16), latents(torch.float32, 6)
    with torch.inference_mode():
        first = [frames.copy() for frames in decode_frames(vae, z, _ignore)]
        second = list(decode_frames(vae, z, _ignore))
    assert [len(frames) for frames in first] == [1, 4, 4, 4, 4, 4]
    assert all((one == other).all() for one, other in zip(first, second, strict=True))
    assert len({frames.tobytes() for frames in first}) == len(first)


def test_an_image_is_encoded_the_same_each_time(make: Callable[[torch.dtype], Any]) -> None:
    vae = make(torch.bfloat16)
    image = torch.rand(3, 96, 160, generator=torch.Generator().manual_seed(3)) * 2 - 1
    with torch.inference_mode():
        first, second = (encode_first_frame(vae, image, 4, _ignore) for _ in range(2))
    assert torch.equal(first, second)
