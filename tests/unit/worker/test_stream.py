"""The stream: every byte to its place, and one sentence for files that do not hold what they should."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.errors import JobCancelled, ModelUnusable
from engine.models.index import ComponentIndex, read_component_index
from engine.worker import cpu
from engine.worker.arena import Arena
from engine.worker.cpu import CpuBackend
from engine.worker.stream import plan_transfers

from .conftest import load_arena

NAME = "model.safetensors"


def _tensors() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {"0.weight": torch.randn(40, 30), "0.bias": torch.randn(40), "1.weight": torch.randn(7, 40)}


def _arena(backend: CpuBackend, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, Arena]:
    with torch.device("meta"):
        module = nn.Sequential(nn.Linear(30, 40), nn.Linear(40, 7, bias=False))
    dtypes = dict.fromkeys(_tensors(), dtype)
    return module, Arena(module, backend, label="test/mlp", dtypes=dtypes)


def _load(arena: Arena, index: ComponentIndex, backend: CpuBackend) -> list[int]:
    moved: list[int] = []
    loading = load_arena(arena, index, backend, moved.append)
    if loading.failure is not None:
        raise loading.failure
    return moved


@pytest.mark.parametrize("chunk", [16 * 2**20, 1000, 4])
def test_every_tensor_arrives_whole_whatever_the_size_of_a_chunk(
    tmp_path: Path, backend: CpuBackend, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(cpu, "CHUNK_BYTES", chunk)
    save_file(_tensors(), tmp_path / NAME)
    module, arena = _arena(backend)
    index = read_component_index(tmp_path)
    moved = _load(arena, index, backend)
    assert max(moved) <= max(chunk, 4)
    assert sum(moved) == index.bytes
    assert all(torch.equal(module.state_dict()[name], tensor) for name, tensor in _tensors().items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_another_dtype_in_the_file_is_cast(
    tmp_path: Path, backend: CpuBackend, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(cpu, "CHUNK_BYTES", 1000)
    stored = {name: tensor.to(dtype) for name, tensor in _tensors().items()}
    save_file(stored, tmp_path / NAME)
    module, arena = _arena(backend)
    _load(arena, read_component_index(tmp_path), backend)
    for name, tensor in module.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, stored[name].to(torch.float32))


def test_shards_load_like_one_file(tmp_path: Path, backend: CpuBackend) -> None:
    tensors = _tensors()
    shards = {"a.safetensors": ["0.weight"], "b.safetensors": ["0.bias", "1.weight"]}
    for file, names in shards.items():
        save_file({name: tensors[name] for name in names}, tmp_path / file)
    weight_map = {name: file for file, names in shards.items() for name in names}
    table = tmp_path / "model.safetensors.index.json"
    table.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}), "utf-8")
    module, arena = _arena(backend)
    _load(arena, read_component_index(tmp_path), backend)
    assert all(torch.equal(module.state_dict()[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensors: tensors.pop("0.bias"), "lacks the tensor '0.bias'"),
        (lambda tensors: tensors.update({"1.weight": torch.zeros(40, 7)}), r"\(40, 7\).*wants \(7, 40\)"),
        (lambda tensors: tensors.update({"proj_l.weight": torch.zeros(2)}), "'proj_l.weight'.*no place"),
    ],
)
def test_a_file_that_does_not_match_its_module_is_refused(
    tmp_path: Path, backend: CpuBackend, change: object, said: str
) -> None:
    tensors = _tensors()
    change(tensors)  # type: ignore[operator]
    save_file(tensors, tmp_path / NAME)
    _, arena = _arena(backend)
    with pytest.raises(ModelUnusable, match=said):
        plan_transfers(arena.layout, read_component_index(tmp_path))


def test_a_file_cut_since_it_was_indexed_is_refused_and_nothing_stays(
    tmp_path: Path, backend: CpuBackend
) -> None:
    save_file(_tensors(), tmp_path / NAME)
    _, arena = _arena(backend)
    index = read_component_index(tmp_path)
    os.truncate(tmp_path / NAME, index.files[0].bytes - 8)
    with pytest.raises(ModelUnusable, match=r"has \d+ bytes and had \d+"):
        _load(arena, index, backend)
    assert not arena.attached


def test_a_file_cut_while_it_is_read_ends_in_a_sentence_not_a_signal(
    tmp_path: Path, backend: CpuBackend
) -> None:
    save_file(_tensors(), tmp_path / NAME)
    _, arena = _arena(backend)
    index = read_component_index(tmp_path)

    def cut(num_bytes: int) -> None:
        os.truncate(tmp_path / NAME, index.files[0].data_begin + 16)

    loading = load_arena(arena, index, backend, cut)
    with pytest.raises(ModelUnusable, match="is truncated: it ends at byte"):
        raise loading.failure or AssertionError("it ended well")
    assert not arena.attached


def test_a_cancel_seen_between_chunks_ends_the_load(tmp_path: Path, backend: CpuBackend) -> None:
    save_file(_tensors(), tmp_path / NAME)
    _, arena = _arena(backend)
    index = read_component_index(tmp_path)
    moved: list[int] = []

    def cancel(num_bytes: int) -> None:
        moved.append(num_bytes)
        if len(moved) == 2:
            raise JobCancelled("cancelled")

    loading = load_arena(arena, index, backend, cancel)
    with pytest.raises(JobCancelled):
        raise loading.failure or AssertionError("it ended well")
    assert len(moved) == 2
    assert not arena.attached


def test_every_open_file_is_closed_again(tmp_path: Path, backend: CpuBackend) -> None:
    save_file(_tensors(), tmp_path / NAME)
    _, arena = _arena(backend)
    before = len(os.listdir("/proc/self/fd"))
    _load(arena, read_component_index(tmp_path), backend)
    assert len(os.listdir("/proc/self/fd")) == before
