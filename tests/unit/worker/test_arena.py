"""Arena: bytes really come and go, weights come back bit for bit, absent ones are refused."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch import Tensor, nn
from transformers import UMT5EncoderModel

from engine.errors import NotResident
from engine.models.layout import ALIGNMENT
from engine.worker.arena import Arena
from engine.worker.channel import ModelFiles
from engine.worker.components import Component, open_component, open_model
from engine.worker.cpu import CpuBackend
from engine.worker.nets.wan import WanNet

from .conftest import fill_arena, load

MIB = 2**20


def _large(backend: CpuBackend) -> Arena:
    """An arena of 64 MiB."""
    with torch.device("meta"):
        module = nn.Sequential(*(nn.Linear(2048, 2048, bias=False) for _ in range(4)))
    return Arena(module, backend, label="test/large", dtypes={})


def _write_ones(memory: Tensor) -> None:
    memory.fill_(1)


def _components(files: ModelFiles, backend: CpuBackend) -> dict[str, Component]:
    return open_model(files, backend).components


def _settled_bytes(backend: CpuBackend) -> int:
    """What the process holds once the heap's slack, whoever left it, has gone back."""
    gc.collect()
    backend.free_cache()
    return backend.held_bytes()


def test_an_unload_returns_the_component_s_bytes_to_the_system(backend: CpuBackend) -> None:
    arena = _large(backend)
    for _ in range(2):
        absent = _settled_bytes(backend)
        fill_arena(arena, backend, _write_ones)
        resident = _settled_bytes(backend)
        arena.unload()
        assert resident - absent == pytest.approx(arena.bytes, rel=0.05)
        assert resident - _settled_bytes(backend) == pytest.approx(arena.bytes, rel=0.05)


def test_a_view_that_leaked_holds_no_byte_back_and_does_not_crash(backend: CpuBackend) -> None:
    arena = _large(backend)
    leaked: list[Tensor] = []

    def write(memory: Tensor) -> None:
        _write_ones(memory)
        leaked.append(memory)

    fill_arena(arena, backend, write)
    resident = _settled_bytes(backend)
    arena.unload()
    assert resident - _settled_bytes(backend) == pytest.approx(arena.bytes, rel=0.05)
    assert leaked[0].sum().item() == 0.0


def test_what_was_filled_half_way_goes_back_whole_and_can_be_filled_again(backend: CpuBackend) -> None:
    arena = _large(backend)
    before = backend.held_bytes()
    memory, _ = arena.attach()
    memory[: arena.bytes // 2].fill_(1)
    assert backend.held_bytes() - before > arena.bytes // 4
    arena.detach()
    assert not arena.attached
    assert backend.held_bytes() - before < MIB
    fill_arena(arena, backend, _write_ones)
    assert arena.attached


@pytest.mark.parametrize("model", ["wan-demo-small", "wan-demo-i2v"])
def test_weights_come_back_bit_for_bit_with_their_ties_and_no_meta_tensor(
    files: Callable[[str], ModelFiles], backend: CpuBackend, model: str
) -> None:
    for component in _components(files(model), backend).values():
        load(component, backend)
        first = {name: tensor.clone() for name, tensor in component.module.state_dict().items()}
        component.unload()
        load(component, backend)
        again = component.module.state_dict()
        assert again.keys() == first.keys()
        assert all(torch.equal(again[name], tensor) for name, tensor in first.items())
        parts = [*component.module.parameters(), *component.module.buffers()]
        assert not any(part.is_meta for part in parts)
        if component.name == "text":
            module = component.module
            assert module.shared.weight is module.encoder.embed_tokens.weight
        component.unload()


def test_every_tensor_lies_on_its_boundary_and_none_overlap(
    files: Callable[[str], ModelFiles], backend: CpuBackend
) -> None:
    for component in _components(files("wan-demo-i2v"), backend).values():
        end = 0
        for slot in component.arena.layout.slots:
            assert slot.begin % ALIGNMENT == 0
            assert slot.begin >= end
            end = slot.begin + slot.bytes
        assert end <= component.arena.bytes
        load(component, backend)
        storages = {part.untyped_storage().data_ptr() for part in component.module.parameters()}
        assert len(storages) == 1
        component.unload()


def test_the_tied_embedding_has_one_place(files: Callable[[str], ModelFiles], backend: CpuBackend) -> None:
    text = _components(files("wan-demo-small"), backend)["text"]
    tied = [slot.names for slot in text.arena.layout.slots if len(slot.names) > 1]
    assert tied == [("shared.weight", "encoder.embed_tokens.weight")]


def test_an_absent_component_refuses_in_python(
    files: Callable[[str], ModelFiles], backend: CpuBackend
) -> None:
    components = _components(files("wan-demo-small"), backend)
    text, dit, vae = (components[name].module for name in ("text", "dit", "vae"))
    tokens = torch.zeros(1, 4, dtype=torch.int64)
    calls = [
        lambda: text(tokens, torch.ones_like(tokens)),
        lambda: text.encoder.embed_tokens(tokens),
        lambda: dit.blocks[0](None, None, None, None),
        lambda: vae.decode(torch.zeros(1, 16, 1, 4, 4)),
        lambda: vae.decoder(torch.zeros(1, 16, 1, 4, 4)),
        lambda: vae.post_quant_conv(torch.zeros(1, 16, 1, 4, 4)),
    ]
    for call in calls:
        with pytest.raises(NotResident, match="wan-demo-small/"):
            call()


def test_a_load_and_unload_within_inference_mode_work_like_any_other(
    files: Callable[[str], ModelFiles], backend: CpuBackend
) -> None:
    with torch.inference_mode():
        folder = Path(files("wan-demo-small").path) / "vae"
        vae = open_component("wan-demo-small", "vae", folder, backend)
        for _ in range(2):
            load(vae, backend)
            vae.unload()
    assert not vae.arena.attached


def test_a_buffer_that_nobody_computed_is_refused(backend: CpuBackend) -> None:
    module = nn.Linear(2, 2, device="meta")
    module.register_buffer("table", torch.empty(4, device="meta"), persistent=False)
    with pytest.raises(ValueError, match="table"):
        Arena(module, backend, label="test/table", dtypes={})


def test_persistent_buffers_live_in_the_arena(backend: CpuBackend) -> None:
    module = nn.BatchNorm1d(3, device="meta")
    arena = Arena(module, backend, label="test/norm", dtypes={})
    assert [slot.names[0] for slot in arena.layout.slots] == [
        "weight",
        "bias",
        "running_mean",
        "running_var",
        "num_batches_tracked",
    ]
    fill_arena(arena, backend, lambda memory: memory.view(torch.float32).fill_(1.0))
    assert module.running_mean.tolist() == [1.0, 1.0, 1.0]
    arena.unload()
    assert module.running_mean.numel() == 0


def test_loaded_nets_compute_what_the_libraries_own_loading_gives(
    files: Callable[[str], ModelFiles], backend: CpuBackend
) -> None:
    root = Path(files("wan-demo-small").path)
    components = _components(files("wan-demo-small"), backend)
    torch.manual_seed(0)
    with torch.inference_mode():
        dit = components["dit"]
        load(dit, backend)
        dtype = dit.module.patch_embedding.weight.dtype
        x, text = torch.randn(1, 16, 2, 4, 4), torch.randn(1, 8, dit.module.config.text_dim)
        inputs = (x.to(dtype), torch.tensor([932.0]), text.to(dtype))
        loaded = WanTransformer3DModel.from_pretrained(root / "transformer", torch_dtype=dtype).eval()
        theirs = WanNet.build(dict(loaded.config)).eval()
        theirs.load_state_dict(loaded.state_dict(), assign=True)
        ours = dit.module(*inputs)
        assert torch.equal(ours, theirs(*inputs))
        # They keep other steps in fp32, and are told nothing of ours.
        stock = loaded(*inputs).sample
        assert (ours - stock).norm() / stock.norm() < 2e-2

        vae = components["vae"]
        load(vae, backend)
        dtype = next(vae.module.parameters()).dtype
        latents = torch.randn(1, 16, 2, 4, 4, dtype=dtype)
        their_vae = AutoencoderKLWan.from_pretrained(root / "vae", torch_dtype=dtype).eval()
        assert torch.equal(vae.module.decode(latents).sample, their_vae.decode(latents).sample)

        text = components["text"]
        load(text, backend)
        dtype = text.module.shared.weight.dtype
        their_text = UMT5EncoderModel.from_pretrained(root / "text_encoder", dtype=dtype).eval()
        # It rounds elsewhere than the library (tests/specification/test_umt5.py), of the same weights.
        theirs = dict(their_text.state_dict())
        for name, weight in text.module.state_dict().items():
            assert torch.equal(weight, theirs[name]), name
