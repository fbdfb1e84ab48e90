"""Components opened from files of torch's own format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from engine.models.folders import TEXT
from engine.models.index import check_unchanged
from engine.models.model import read_model
from engine.worker.channel import ModelFiles
from engine.worker.components import Component, Model, open_component, open_model, reopen_changed
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


def _turned_round(path: Path) -> None:
    """Write the tensors of a safetensors file in the opposite order."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    header.pop("__metadata__", None)
    turned: dict[str, object] = {}
    parts: list[bytes] = []
    end = 0
    for name, entry in sorted(header.items(), key=lambda item: -item[1]["data_offsets"][0]):
        begin, stop = entry["data_offsets"]
        turned[name] = {**entry, "data_offsets": [end, end + stop - begin]}
        end += stop - begin
        parts.append(data[begin:stop])
    text = json.dumps(turned).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))


def test_weights_lie_as_their_files_have_them_and_travel_in_few_copies(
    files: Callable[[str], ModelFiles], backend: CpuBackend
) -> None:
    components = open_model(files(SMALL), backend).components
    for name in ("text", "dit"):  # a toy VAE's tensors are too small to fill their boundaries
        component = components[name]
        assert len(component.transfers) * 4 < len(component.arena.layout.slots), name


def test_experts_lie_alike_whatever_the_order_in_their_files(
    copy_of: Callable[[str], ModelFiles], backend: CpuBackend
) -> None:
    files = copy_of(I2V)
    (path,) = (Path(files.path) / "transformer_2").glob("*.safetensors")
    expected = {name: tensor.clone() for name, tensor in load_file(path).items()}
    model = open_model(files, backend)
    few = len(model.components["dit.low"].transfers)
    _turned_round(path)
    changed = reopen_changed(model, backend)
    assert list(changed) == ["dit.low"]
    low = changed["dit.low"]
    assert low.arena.layout == model.components["dit.high"].arena.layout
    assert len(low.transfers) > few, "it travels in pieces, then"
    load(low, backend)
    for name, tensor in low.module.state_dict().items():
        assert torch.equal(tensor, expected[name].to(tensor.dtype)), name
    low.unload()
    model.components["dit.low"] = low

    # The other way round: it follows an expert that was replaced.
    _turned_round(Path(files.path) / "transformer" / path.name)
    changed = reopen_changed(model, backend)
    assert list(changed) == ["dit.high", "dit.low"]
    assert changed["dit.low"].arena.layout == changed["dit.high"].arena.layout
    assert reopen_changed(_with(model, changed), backend) == {}


def _with(model: Model, changed: dict[str, Component]) -> Model:
    model.components.update(changed)
    return model
