"""What is planned from file headers is what a load takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file, save_file

from engine.models.dtypes import BYTES_BY_NAME, DTYPES
from engine.models.layout import FP32_PARTS
from engine.models.model import read_model
from engine.worker.channel import ModelFiles
from engine.worker.components import Model
from engine.worker.store import ComponentStore

from .conftest import I2V, LARGE, SMALL

Files = Callable[[str], ModelFiles]


def _planned(files: ModelFiles) -> dict[str, int]:
    model = read_model(Path(files.path))
    assert model.problem is None
    return {component.name: component.bytes for component in model.components}


def _taken(model: Model) -> dict[str, int]:
    return {name: component.bytes for name, component in model.components.items()}


@pytest.mark.parametrize("name", [SMALL, LARGE, I2V])
def test_a_model_takes_the_bytes_that_were_planned(store: ComponentStore, files: Files, name: str) -> None:
    assert _planned(files(name)) == _taken(store.open(files(name)))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float16, torch.float32, torch.float64])
def test_mixed_dtypes_take_the_bytes_that_were_planned(
    store: ComponentStore, copy_of: Files, dtype: torch.dtype
) -> None:
    own = copy_of(SMALL)
    weights = Path(own.path) / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    for name in ("blocks.0.attn1.to_q.weight", "blocks.1.norm2.weight", "blocks.2.scale_shift_table"):
        tensors[name] = tensors[name].to(dtype)
    save_file(tensors, weights)
    assert _planned(own) == _taken(store.open(own))


def test_the_parts_kept_in_fp32_are_those_of_the_net_s_class() -> None:
    assert set(WanTransformer3DModel._keep_in_fp32_modules) == FP32_PARTS


@pytest.mark.parametrize("spelling", DTYPES)
def test_each_dtype_is_what_torch_has_under_its_name(spelling: str) -> None:
    dtype = DTYPES[spelling]
    known = getattr(torch, dtype.name)
    assert (known.itemsize, known.is_floating_point) == (dtype.bytes, dtype.floating)
    assert BYTES_BY_NAME[dtype.name] == dtype.bytes
