"""Kernels made ready ahead are those that a block calls, for the dtypes that it calls them with."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engine.worker import kernel_warming
from engine.worker.channel import ModelFiles
from engine.worker.cpu import CpuBackend
from engine.worker.kernel_warming import (
    KernelWarmer,
    NetShape,
    call_kernels,
    prune_cache,
    shape_of,
    use_cache,
)
from engine.worker.nets import kernels
from engine.worker.nets.attention import SparseLinearAttention
from engine.worker.nets.int8 import replace_linears
from engine.worker.nets.sage import SageSparseLinearAttention
from engine.worker.nets.wan import WanNet, add_proj_l
from engine.worker.store import ComponentStore

from .conftest import SMALL

CONFIG = {
    "num_attention_heads": 1,
    "attention_head_dim": 128,
    "ffn_dim": 256,
    "num_layers": 1,
    "text_dim": 32,
}


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> set[Any]:
    """Which kernels are called with which dtypes and widths, each of them run by Triton's interpreter."""
    found: set[Any] = set()

    def recording(module: Any) -> Any:
        def record(name: str) -> Callable[..., Any]:
            def call(*given: Any, **named: Any) -> Any:
                tensors = [item for item in given if isinstance(item, torch.Tensor)]
                found.add((module.__name__, name, tuple(item.dtype for item in tensors)))
                return getattr(module, name)(*given, **named)

            return call

        names = [name for name, item in vars(module).items() if callable(item) and not name.startswith("_")]
        return SimpleNamespace(**{name: record(name) for name in names if name.islower()})

    for name in [name for name in vars(kernels) if name.endswith("_kernels")]:
        real = getattr(kernels, name)
        monkeypatch.setattr(kernels, name, lambda real=real: recording(real()))
    monkeypatch.setattr(kernels, "usable", lambda device: True)
    monkeypatch.setattr(kernel_warming, "LENGTHS", (5,))  # each row is interpreted
    return found


@pytest.mark.parametrize("int8", [False, True])
def test_what_a_block_calls_was_called_before(called: set[Any], int8: bool) -> None:
    net = WanNet.build(CONFIG).requires_grad_(False).eval()
    if int8:
        replace_linears(net)
        for name, tensor in [*net.named_buffers()]:
            if tensor.dtype == torch.int8 or name.endswith("scale"):
                tensor.zero_()
    add_proj_l(net)
    net.requires_grad_(False)
    for call in (SparseLinearAttention(topk=0.5), SageSparseLinearAttention(topk=0.5)):
        net.set_attention(call)
        with torch.inference_mode():
            net(torch.zeros(1, 16, 1, 4, 4), torch.tensor([932.0]), torch.zeros(1, 4, 32))
    needed = set(called)
    assert {name for _module, name, _dtypes in needed} > {"modulated_norm", "sparse_attention", "add_linear"}
    called.clear()
    dtype = torch.float32
    shape = NetShape(heads=1, head_dim=128, dtype=dtype, norm_dtype=dtype, int8=int8, proj_l=True)
    call_kernels(shape, torch.device("cpu"))
    assert called == needed


def test_a_model_is_warmed_once_by_the_shape_of_its_net(
    store: ComponentStore, files: Callable[[str], ModelFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[NetShape] = []
    monkeypatch.setattr(kernel_warming, "call_kernels", lambda shape, device: shapes.append(shape))
    told: list[str] = []
    warmer = KernelWarmer(store, CpuBackend(), log=told.append)
    warmer.warm(files(SMALL))
    assert shapes == [], "on cpu nothing"
    monkeypatch.setattr(kernels, "usable", lambda device: True)
    warmer.warm(files(SMALL))
    warmer.warm(files(SMALL))
    assert shapes == [shape_of(store.component(files(SMALL), "dit"))]
    assert (shapes[0].width, shapes[0].dtype, shapes[0].norm_dtype) == (256, torch.bfloat16, torch.float32)
    assert len(told) == 1 and told[0].startswith(f"kernels of {SMALL} ready after ")


def test_compiled_kernels_lie_in_a_cache_of_ours_that_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(kernel_warming.CACHE_VARIABLE, raising=False)
    use_cache(tmp_path / "triton")
    assert os.environ[kernel_warming.CACHE_VARIABLE] == str(tmp_path / "triton")
    use_cache(tmp_path / "other")
    assert os.environ[kernel_warming.CACHE_VARIABLE] == str(tmp_path / "triton"), "the person's own stays"
    for number in range(4):
        entry = tmp_path / "triton" / f"kernel{number}"
        entry.mkdir(parents=True)
        (entry / "code.cubin").write_bytes(bytes(100))
        os.utime(entry, (number, number))
    prune_cache(tmp_path / "triton", 250)
    assert sorted(path.name for path in (tmp_path / "triton").iterdir()) == ["kernel2", "kernel3"]
