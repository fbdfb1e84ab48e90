"""Models imported from files in each released format: what is loaded is what the files hold, bit by bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from engine.models.importing.make import make
from engine.models.importing.plan import Request, make_plan
from engine.models.index import check_unchanged, read_component_index
from engine.models.layout import ALIGNMENT, FP32, resident_dtype
from engine.models.model import Model, read_model
from engine.models.quantising import quantise_model
from engine.worker.channel import ModelFiles, RunJob
from engine.worker.components import Component, open_component
from engine.worker.cpu import CpuBackend
from engine.worker.pipeline import run_job
from engine.worker.store import ComponentStore
from tests.released import umt5, wan_vae
from tests.specification import dit
from tests.specification.checkpoints import quantised, turbo_wan
from tests.specification.test_statement import renamed
from tests.specification.test_wan_net import inputs

from .conftest import Seen, load

Tensors = dict[str, Tensor]


def imported(folder: Path, *paths: Path, **wanted: object) -> Model:
    """The model made of `paths` in `folder`."""
    models = folder / "models"
    models.mkdir(exist_ok=True)
    request = Request(paths=paths, **wanted)  # type: ignore[arg-type]
    root = make(models, make_plan(models, request), replace=False, progress=lambda _event: None)
    model = read_model(root)
    assert model.problem is None
    return model


def with_fp32_norms(tensors: Tensors) -> Tensors:
    """As the released files have them: bf16, the norms of the blocks in fp32."""
    return {name: tensor.float() if "norm" in name else tensor for name, tensor in tensors.items()}


def flat(tensors: Tensors, folder: Path) -> Path:
    torch.save(with_fp32_norms(tensors), path := folder / "TurboWan2.1-T2V-1.3B-480P.pth")
    return path


def wrapped(tensors: Tensors, folder: Path) -> Path:
    """As it comes out of the training: a layer around it, prefixes, the patches' weight of a convolution."""
    whole = {
        f"net.{name}".replace("head.head", "head._checkpoint_wrapped_module.head"): tensor
        for name, tensor in tensors.items()
    }
    whole = {
        name.replace(".self_attn", "._checkpoint_wrapped_module.self_attn"): t for name, t in whole.items()
    }
    weight = whole["net.patch_embedding.weight"]
    whole["net.patch_embedding.weight"] = weight.reshape(len(weight), -1, 1, 2, 2)
    torch.save({"state_dict": whole, "step": 7}, path := folder / "ema.pt")
    return path


def comfy(tensors: Tensors, folder: Path) -> Path:
    path = folder / "turbo.safetensors"
    save_file({f"model.diffusion_model.{name}": tensor for name, tensor in tensors.items()}, path)
    return path


def shards(tensors: Tensors, folder: Path) -> Path:
    """Three files in a folder, without their table."""
    target = folder / "turbo-sharded"
    target.mkdir()
    names = sorted(tensors)
    for number in range(3):
        part = {name: tensors[name] for name in names[number::3]}
        save_file(part, target / f"diffusion_pytorch_model-{number + 1:05d}-of-00003.safetensors")
    return target


def repository(tensors: Tensors, folder: Path) -> Path:
    """In diffusers layout: its own names, two shards and their table; `proj_l` where diffusers leaves it."""
    root = folder / "Turbo-Diffusers"
    target = root / "transformer"
    target.mkdir(parents=True)
    channels = tensors["patch_embedding.weight"].shape[1] // 4
    whole = renamed(tensors, channels)
    for name, tensor in tensors.items():
        if "proj_l" in name:
            whole[name.replace("self_attn", "attn1")] = tensor
    table: dict[str, str] = {}
    for number, names in enumerate((sorted(whole)[::2], sorted(whole)[1::2])):
        file = f"diffusion_pytorch_model-{number + 1:05d}-of-00002.safetensors"
        save_file({name: whole[name].contiguous() for name in names}, target / file)
        table |= dict.fromkeys(names, file)
    (target / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    (root / "model_index.json").write_text(json.dumps({"_class_name": "WanPipeline"}))
    return root


def expected(tensors: Tensors, channels: int = 16) -> Tensors:
    """The checkpoint by the module's names, renamed by the statement; and `proj_l` and int8."""
    found = renamed(tensors, channels)
    for name, tensor in tensors.items():
        if "proj_l" in name:
            found[name.replace("self_attn.attn_op.local_attn", "attn1")] = tensor
    endings = {".int8_weight": ".weight", ".scale": ".weight_scale"}
    return {
        next((name.removesuffix(a) + b for a, b in endings.items() if name.endswith(a)), name): tensor
        for name, tensor in found.items()
    }


def loaded(model: Model, name: str, backend: CpuBackend) -> Component:
    part = model.component(name)
    component = open_component(model.name, name, part.folder, backend)
    assert component.bytes == part.bytes and component.index.identity == part.identity
    load(component, backend)
    for file in component.index.files:
        check_unchanged(file)
    return component


def assert_holds(component: Component, tensors: Tensors) -> None:
    """Exactly these tensors, each as it is or widened to fp32."""
    state = {name: tensor for name, tensor in component.module.state_dict().items() if "rope" not in name}
    state.pop("encoder.embed_tokens.weight", None)
    assert sorted(state) == sorted(tensors)
    for name, tensor in tensors.items():
        kept = state[name]
        wide = kept.dtype == torch.float32 and tensor.dtype == torch.bfloat16
        narrow = kept.dtype == torch.bfloat16 and tensor.dtype == torch.float32
        assert wide or narrow or kept.dtype == tensor.dtype, name
        # What the file has in fp32 and the module in bf16 was bf16 before it was saved.
        assert torch.equal(kept, tensor.to(kept.dtype)), name


@pytest.mark.parametrize("copy", [False, True], ids=["in place", "copied"])
@pytest.mark.parametrize("released", [flat, wrapped, comfy, shards, repository])
def test_a_released_dit_is_loaded_bit_by_bit(
    released: Callable[[Tensors, Path], Path], copy: bool, parts: Path, tmp_path: Path, backend: CpuBackend
) -> None:
    tensors = turbo_wan(dtype=torch.bfloat16)
    model = imported(tmp_path, released(tensors, parts), parts / "google", *parts.glob("*5*.pth"),
                     *parts.glob("*VAE.pth"), copy=copy)  # fmt: skip
    assert model.kind == "t2v" and model.configs is not None and model.configs.dit.num_layers == 2
    component = loaded(model, "dit", backend)
    assert_holds(component, expected(tensors))
    in_models = {file.path.is_relative_to(tmp_path / "models") for file in component.index.files}
    assert in_models == {copy}


@pytest.mark.parametrize("copy", [False, True], ids=["in place", "copied"])
def test_a_quantised_checkpoint_keeps_its_integers_and_scales(
    copy: bool, parts: Path, tmp_path: Path, backend: CpuBackend
) -> None:
    tensors = quantised(turbo_wan(dtype=torch.bfloat16))
    torch.save(tensors, path := parts / "TurboWan2.1-T2V-1.3B-480P-quant.pth")
    model = imported(tmp_path, path, copy=copy)
    assert (model.name, model.dtype) == ("TurboWan2.1-T2V-1.3B-480P-quant", "int8")
    component = loaded(model, "dit", backend)
    assert_holds(component, expected(tensors))
    x, text, _ = inputs(16, torch.bfloat16)
    with torch.inference_mode():
        found = component.module(x.clone(), torch.tensor([932.0]), text)
    statement = dit.Transformer(tensors)(x, torch.tensor([932.0]), text)
    assert (found - statement).norm() / statement.norm() < 2e-2


def test_fp32_weights_stay_what_they_are_where_that_is_asked_for_and_compute_the_statement(
    parts: Path, tmp_path: Path, backend: CpuBackend
) -> None:
    tensors = turbo_wan(seed=5)
    torch.save(tensors, path := parts / "turbo.pth")
    component = loaded(imported(tmp_path, path, kept="stored"), "dit", backend)
    assert_holds(component, expected(tensors))
    x, text, _ = inputs(16, torch.float32)
    with torch.inference_mode():
        found = component.module(x.clone(), torch.tensor([932.0]), text)
    statement = dit.Transformer(tensors)(x, torch.tensor([932.0]), text)
    assert (found - statement).norm() / statement.norm() <= 1e-6


@pytest.mark.parametrize("copy", [False, True], ids=["in place", "copied"])
def test_fp32_weights_are_rounded_to_bf16_as_torch_rounds_them(
    copy: bool, parts: Path, tmp_path: Path, backend: CpuBackend
) -> None:
    tensors = turbo_wan(seed=6)
    odd = torch.tensor([float("nan"), float("inf"), -0.0, 1 + 2**-8, 1 + 3 * 2**-8, 3.4e38, 1e-45])
    tensors["blocks.0.ffn.0.bias"][: len(odd)] = odd
    torch.save(tensors, path := parts / "turbo.pth")
    component = loaded(imported(tmp_path, path, copy=copy), "dit", backend)
    state = component.module.state_dict()
    assert state["proj_out.weight"].dtype == torch.bfloat16
    for name, tensor in expected(tensors).items():
        kept = FP32 if resident_dtype("dit", name, "BF16") == FP32 else "BF16"
        wanted = tensor if kept == FP32 else tensor.bfloat16()
        assert torch.equal(torch.nan_to_num(state[name], nan=7.0), torch.nan_to_num(wanted, nan=7.0)), name


def test_a_vae_and_a_text_encoder_are_loaded_bit_by_bit(
    parts: Path, tmp_path: Path, backend: CpuBackend
) -> None:
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    torch.save(turbo_wan(dtype=torch.bfloat16), path := parts / "turbo.pth")
    model = imported(tmp_path, path, kept="stored")
    assert_holds(loaded(model, "vae", backend), convert_wan_vae_to_diffusers(wan_vae()))
    text = loaded(model, "text", backend)
    released = umt5()
    state = text.module.state_dict()
    assert torch.equal(state["shared.weight"], released["token_embedding.weight"])
    assert torch.equal(state["encoder.embed_tokens.weight"], released["token_embedding.weight"])
    whole = "encoder.block.1.layer.{}.weight"
    for ours, name in (
        ("0.SelfAttention.o", "attn.o"),
        ("0.SelfAttention.relative_attention_bias", "pos_embedding.embedding"),
        ("0.layer_norm", "norm1"), ("1.layer_norm", "norm2"), ("1.DenseReluDense.wi_0", "ffn.gate.0"),
        ("1.DenseReluDense.wi_1", "ffn.fc1"), ("1.DenseReluDense.wo", "ffn.fc2"),
    ):  # fmt: skip
        assert torch.equal(state[whole.format(ours)], released[f"blocks.1.{name}.weight"]), ours


def test_each_copied_tensor_begins_on_a_boundary_unless_one_before_it_is_no_multiple(
    parts: Path, tmp_path: Path
) -> None:
    torch.save(quantised(turbo_wan(dtype=torch.bfloat16)), path := parts / "turbo.pth")
    model = imported(tmp_path, path, copy=True)
    for component in model.components:
        index = read_component_index(component.folder)
        entries = sorted(index.tensors.values(), key=lambda entry: entry.begin)
        whole = [entry for entry in entries if entry.bytes % ALIGNMENT == 0]
        assert all(entry.begin % ALIGNMENT == 0 for entry in whole) and whole


def test_a_job_runs_on_an_imported_model(
    parts: Path,
    tmp_path: Path,
    backend: CpuBackend,
    store: ComponentStore,
    job: Callable[..., RunJob],
    seen: Seen,
) -> None:
    torch.save(turbo_wan(dtype=torch.bfloat16), path := parts / "TurboWan2.1-T2V-1.3B-480P.pth")
    model = imported(tmp_path, path)
    files = ModelFiles(name=model.name, kind=model.kind, path=str(model.path))
    manifest, video = run_job(
        job(files), store, backend, report=seen.progress.append, cancelled=lambda: False
    )
    assert video.stat().st_size > 0 and manifest.spec.frames == 5


def test_the_int8_sibling_of_imported_fp32_weights_keeps_the_rest_as_its_model_does(
    parts: Path, tmp_path: Path
) -> None:
    wide = {name: tensor.float() for name, tensor in turbo_wan().items()}
    torch.save(wide, path := tmp_path / "TurboWan2.1-T2V-1.3B-480P.pth")
    model = imported(tmp_path, path, parts)
    quantise_model(tmp_path / "models", model.name)
    sibling = read_model(tmp_path / "models" / f"{model.name}-int8")
    assert (sibling.problem, sibling.dtype) == (None, "int8")
    index = read_component_index(sibling.component("dit").folder)
    backend, found = CpuBackend(), {}
    for which in (model, sibling):
        part = open_component(which.name, "dit", which.component("dit").folder, backend)
        load(part, backend)
        found[which.name] = dict(part.module.state_dict())
    before, loaded = found.values()
    assert index.tensors["proj_out.weight"].dtype == "BF16"
    assert index.tensors["blocks.0.norm2.weight"].dtype == FP32
    for name, tensor in loaded.items():
        if name in before and tensor.dtype != torch.int8:
            assert torch.equal(tensor, before[name]), name
