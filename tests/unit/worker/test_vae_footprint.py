"""What the walk through the VAE holds at once is what the planner counts, tensor by tensor."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engine.models.configs import VaeConfig
from engine.planning.vae_footprint import decode_bytes, encode_bytes
from engine.worker.nets import kernels
from engine.worker.nets import vae as net

DIM, WIDTH, HEIGHT = 96, 832, 480


class LiveBytes(TorchDispatchMode):
    """Counts the storages that were made under it and are still there."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = call(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and (storage := tensor.untyped_storage())._cdata not in self._known:
                self._known.add(storage._cdata)
                self.live += storage.nbytes()
                self.peak = max(self.peak, self.live)
                weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        return out

    def _gone(self, storage: int, num_bytes: int) -> None:
        self._known.discard(storage)
        self.live -= num_bytes


class Silent:
    """Kernels that take no memory, as the real ones beside their output."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args: False


@pytest.fixture
def vae(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    def conv3d(whole: Tensor, weight: Tensor, bias: object, stride: tuple[int, ...] = (1, 1, 1)) -> Tensor:
        frames = (len(whole) - weight.shape[2]) // stride[0] + 1
        return whole.new_empty((frames, *whole.shape[1:3], len(weight)))

    def plane(self: Any, conv: Any, x: Tensor, padding: int = 0, stride: int = 1) -> Tensor:
        rows, columns = x.shape[1] // stride, x.shape[2] // stride
        return x.new_empty((len(x), rows, columns, len(self._layer(conv).weight)))

    monkeypatch.setattr(kernels, "usable", lambda device: True)
    monkeypatch.setattr(kernels, "frame_kernels", Silent)
    monkeypatch.setattr(kernels, "conv_kernels", Silent)
    monkeypatch.setattr(net, "_conv3d", conv3d)
    monkeypatch.setattr(net._Walk, "_plane", plane)
    with torch.device("meta"), torch.inference_mode():
        yield AutoencoderKLWan(base_dim=DIM).to(torch.bfloat16).eval()


def test_decoding(vae: Any) -> None:
    z = torch.empty(1, 16, 1, HEIGHT // 8, WIDTH // 8, dtype=torch.bfloat16)
    with LiveBytes() as tracked:
        decoder = net.Decoder(vae)
        for _ in range(3):
            decoder(z)
    counted = decode_bytes(VaeConfig(class_name="", base_dim=DIM), WIDTH, HEIGHT, 2)
    assert 0.99 * counted < tracked.peak < 1.01 * counted


def test_encoding(vae: Any) -> None:
    frames = torch.empty(1, 3, 4, HEIGHT, WIDTH, dtype=torch.bfloat16)
    with LiveBytes() as tracked:
        encoder = net.Encoder(vae)
        encoder(frames[:, :, :1])
        for number in range(20):
            encoder(frames, again=number > 0)
    counted = encode_bytes(VaeConfig(class_name="", base_dim=DIM), WIDTH, HEIGHT, 2)
    assert 0.99 * counted < tracked.peak < 1.01 * counted
