"""Components opened from files of torch's own format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from engine.models.folders import TEXT
from engine.models.index import check_unchanged
from engine.models.model import read_model
from engine.worker.channel import ModelFiles
from engine.worker.components import Component, open_component, open_model, reopen_changed
from engine.worker.cpu import CpuBackend

from .conftest import I2V, SMALL, load

CHECKPOINT = "pytorch_model.bin"


@pytest.fixture
def model(copy_of: Callable[[str], ModelFiles]) -> ModelFiles:
    """The small model with its text encoder as a checkpoint, which holds the tied tensor twice."""
    files = copy_of(SMALL)
    folder = Path(files.path) / "text_encoder"
    tensors = load_file(folder / "model.safetensors")
    tensors["encoder.embed_tokens.weight"] = tensors["shared.weight"]
    torch.save(tensors, folder / CHECKPOINT)
    (folder / "model.safetensors").unlink()
    return files


def _loaded(folder: Path, backend: CpuBackend) -> Component:
    component = open_component(SMALL, TEXT, folder, backend)
    load(component, backend)
    return component


def test_a_checkpoint_loads_bit_for_bit_like_the_safetensors_it_came_from(
    model: ModelFiles, demo_models: Path, backend: CpuBackend
) -> None:
    original = _loaded(demo_models / SMALL / "text_encoder", backend)
    component = _loaded(Path(model.path) / "text_encoder", backend)
    assert component.bytes == original.bytes
    assert component.index.bytes == original.index.bytes
    expected, found = original.module.state_dict(), component.module.state_dict()
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert torch.equal(found[name].view(torch.uint8), tensor.view(torch.uint8)), name
    check_unchanged(component.index.files[0])


def test_the_daemon_plans_a_checkpoint_with_the_bytes_that_it_takes(
    model: ModelFiles, backend: CpuBackend
) -> None:
    found = read_model(Path(model.path))
    assert found.problem is None
    opened = open_model(model, backend)
    assert {item.name: item.bytes for item in found.components} == {
        name: component.bytes for name, component in opened.components.items()
    }


@pytest.mark.parametrize("name", [CHECKPOINT, "pytorch_model.pth"])
def test_a_changed_checkpoint_is_opened_anew(model: ModelFiles, backend: CpuBackend, name: str) -> None:
    path = (Path(model.path) / "text_encoder" / CHECKPOINT).rename(Path(model.path) / "text_encoder" / name)
    opened = open_model(model, backend)
    assert reopen_changed(opened, backend) == {}
    tensors = torch.load(path)
    torch.save({key: tensor + 1 for key, tensor in tensors.items()}, path)
    assert list(reopen_changed(opened, backend)) == [TEXT]


@pytest.mark.parametrize("name", [SMALL, I2V])
def test_the_worker_and_the_catalog_have_the_same_components_in_the_same_order(
    files: Callable[[str], ModelFiles], backend: CpuBackend, name: str
) -> None:
    """So a plan is told in the order in which the worker carries it out."""
    found = files(name)
    opened = open_model(found, backend).components
    read = read_model(Path(found.path)).components
    assert [(item.name, item.folder, item.bytes) for item in read] == [
        (item.name, item.index.folder, item.bytes) for item in opened.values()
    ]
