"""Int8 blocks: the layer against plain arithmetic, and a DiT that is stored in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from engine.errors import ModelUnusable
from engine.models.model import read_model
from engine.wire import Manifest
from engine.worker import pipeline
from engine.worker.channel import ModelFiles, RunJob
from engine.worker.components import open_component
from engine.worker.cpu import CpuBackend
from engine.worker.nets.int8 import Int8BlockLinear, replace_linears
from engine.worker.pipeline import run_job
from engine.worker.store import ComponentStore
from tests.specification import int8

from .conftest import I2V, SMALL

Files = Callable[[str], ModelFiles]
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(
    ("rows", "columns"), [(256, 384), (128, 128), (130, 384), (256, 100), (1, 1), (300, 129)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
def test_the_layer_is_the_specification(rows: int, columns: int, dtype: torch.dtype, bias: bool) -> None:
    torch.manual_seed(rows + columns)
    stored, scale = int8.quantise(torch.randn(rows, columns))
    layer = Int8BlockLinear(columns, rows, bias=bias)
    assert layer.weight_scale.shape == scale.shape
    layer.weight.copy_(stored)
    layer.weight_scale.copy_(scale)
    if layer.bias is not None:
        layer.bias.copy_(torch.randn(rows))
    x = torch.randn(2, 3, columns).to(dtype)
    bias_N = None if layer.bias is None else layer.bias
    expected = int8.linear(x.bfloat16(), int8.Quantised(stored, scale), bias_N)
    answer = layer(x)
    assert answer.dtype == dtype
    if dtype == torch.bfloat16:
        assert torch.equal(answer, expected)
    else:
        assert (answer - expected.float()).norm() < 0.02 * expected.float().norm()


def test_the_ten_linear_layers_of_each_block_are_replaced_and_no_other() -> None:
    with torch.device("meta"):
        dit = WanTransformer3DModel(num_attention_heads=1, ffn_dim=256, num_layers=3, text_dim=64)
        dit.blocks[0].attn1.register_module("proj_l", nn.Linear(128, 128))
    names = [name for name, part in dit.named_modules() if isinstance(part, nn.Linear)]
    assert replace_linears(dit) == 30
    left = [name for name, part in dit.named_modules() if isinstance(part, nn.Linear)]
    replaced = {name.split(".", 2)[2] for name in set(names) - set(left)}
    assert replaced == {
        *(f"attn{n}.{part}" for n in (1, 2) for part in ("to_q", "to_k", "to_v", "to_out.0")),
        "ffn.net.0.proj",
        "ffn.net.2",
    }
    assert "blocks.0.attn1.proj_l" in left and "proj_out" in left
    assert all(tensor.is_meta for tensor in dit.blocks[0].state_dict().values())


@pytest.fixture
def int8_copy_of(copy_of: Files) -> Files:
    """A demo model of one's own whose experts are stored in int8 blocks."""

    def convert(name: str) -> ModelFiles:
        files = copy_of(name)
        for folder in Path(files.path).glob("transformer*"):
            tensors = load_file(folder / WEIGHTS)
            for tensor in [
                name for name in tensors if name.startswith("blocks.") and name.endswith(".weight")
            ]:
                if tensors[tensor].dim() == 2:
                    tensors[tensor], tensors[f"{tensor}_scale"] = int8.quantise(tensors[tensor].float())
            save_file(tensors, folder / WEIGHTS)
            edit(folder, quantization_config={"quant_method": "int8_block", "block_size": 128})
        return files

    return convert


def edit(folder: Path, **change: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | change), "utf-8")


@pytest.mark.parametrize("name", [SMALL, I2V])
def test_an_int8_model_is_listed_so_and_takes_the_bytes_that_were_planned(
    store: ComponentStore, int8_copy_of: Files, files: Files, name: str
) -> None:
    own = int8_copy_of(name)
    planned = read_model(Path(own.path))
    assert (planned.problem, planned.dtype) == (None, "int8")
    assert {component.dtype for component in planned.components} == {"bfloat16", "float32"}
    taken = store.open(own).components
    assert {part.name: part.bytes for part in planned.components} == {
        name: component.bytes for name, component in taken.items()
    }
    floating = read_model(Path(files(name).path))
    for part in planned.components:
        if part.name.startswith("dit"):
            assert part.bytes < 0.75 * floating.component(part.name).bytes
            kept = {name: slot.dtype for slot in taken[part.name].arena.layout.slots for name in slot.names}
            assert kept["blocks.0.ffn.net.2.weight"] == torch.int8
            assert kept["blocks.0.ffn.net.2.weight_scale"] == torch.float32
            assert kept["blocks.0.ffn.net.2.bias"] == kept["proj_out.weight"] == torch.bfloat16


def test_int8_blocks_make_nearly_the_video_of_the_weights_they_came_from(
    store: ComponentStore,
    backend: CpuBackend,
    job: Callable[..., RunJob],
    int8_copy_of: Files,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    latents: list[Tensor] = []

    def keep(vae: object, latents_BCTHW: Tensor, check: object) -> object:
        latents.append(latents_BCTHW.clone())
        return decode(vae, latents_BCTHW, check)

    decode = pipeline.decode_frames
    monkeypatch.setattr(pipeline, "decode_frames", keep)
    ended: list[Manifest] = []
    for model in (SMALL, int8_copy_of(SMALL)):
        work = job(model)
        manifest, _ = run_job(work, store, backend, report=lambda progress: None, cancelled=lambda: False)
        ended.append(manifest)
        store.unload(None, None)
    floating, int8 = latents
    assert 0 < float((int8 - floating).norm() / floating.norm()) < 0.1
    assert ended[0].weights["dit"] != ended[1].weights["dit"]


@pytest.mark.parametrize("name", ["blocks.0.attn1.to_q.weight", "blocks.0.attn1.to_q.weight_scale"])
def test_a_weight_that_is_not_stored_as_its_configuration_says_is_refused(
    backend: CpuBackend, int8_copy_of: Files, name: str
) -> None:
    folder = Path(int8_copy_of(SMALL).path) / "transformer"
    tensors = load_file(folder / WEIGHTS)
    tensors[name] = tensors[name].to(torch.bfloat16 if tensors[name].dtype == torch.int8 else torch.int8)
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(ModelUnusable, match=rf"{name}' as (BF16|I8) where its configuration wants"):
        open_component("m", "dit", folder, backend)


@pytest.mark.parametrize(
    ("quantization", "words"),
    [
        (
            {"quant_method": "bitsandbytes", "load_in_8bit": True},
            "quantised by 'bitsandbytes' in blocks of None",
        ),
        ({"quant_method": "int8_block", "block_size": 64}, "in blocks of 64, this build runs 'int8_block'"),
        ({"load_in_8bit": True}, "quantised by 'unnamed'"),
        ([1], "damaged or of another kind"),
        (None, "holds blocks.4.attn1.to_q.weight as I8, and its config.json says nothing of int8"),
    ],
)
def test_another_quantisation_is_refused_by_daemon_and_worker(
    backend: CpuBackend, int8_copy_of: Files, quantization: object, words: str
) -> None:
    root = Path(int8_copy_of(SMALL).path)
    edit(root / "transformer", quantization_config=quantization)
    assert words in str(read_model(root).problem)
    with pytest.raises(ModelUnusable):
        open_component("m", "dit", root / "transformer", backend)


def test_floating_weights_under_a_configuration_of_int8_are_refused(copy_of: Files) -> None:
    root = Path(copy_of(SMALL).path)
    edit(root / "transformer", quantization_config={"quant_method": "int8_block", "block_size": 128})
    assert "blocks.4.attn1.to_q.weight_scale is missing" in str(read_model(root).problem)
