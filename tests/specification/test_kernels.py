"""The Triton kernels through Triton's interpreter; its bf16 is wrong, so that is left to tests/gpu."""

from __future__ import annotations

import importlib
import os
from types import ModuleType

import pytest
import torch

HALF = [torch.float32, torch.float16]


@pytest.fixture(scope="module")
def cases() -> ModuleType:
    pytest.importorskip("triton", reason="Triton is not installed")
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("on a host with a GPU the kernels are compiled: tests/gpu compares them there")
    return importlib.import_module("tests.specification.kernel_cases")


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_norms(cases: ModuleType, dtype: torch.dtype) -> None:
    cases.check_norms("cpu", dtype, 5, 300)
    cases.check_norms("cpu", dtype, 3, 256)


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_rotation(cases: ModuleType, dtype: torch.dtype) -> None:
    cases.check_rotation("cpu", dtype, (2, 3, 2), 3)


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_gate(cases: ModuleType, dtype: torch.dtype) -> None:
    cases.check_gate("cpu", dtype)


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_quantiser(cases: ModuleType, dtype: torch.dtype) -> None:
    cases.check_quantiser("cpu", dtype, 130, 200)
    cases.check_gelu_quantiser("cpu", dtype, 130, 200)


def test_linear(cases: ModuleType) -> None:
    cases.check_linear("cpu", torch.float16, 150, 256, 128)
    cases.check_linear("cpu", torch.float16, 40, 128, 256)


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("blocks", [(128, 64), (64, 128)], ids=str)
def test_sparse(cases: ModuleType, dtype: torch.dtype, blocks: tuple[int, int]) -> None:
    cases.check_sparse("cpu", dtype, 300, blocks, 0.4)
    cases.check_sparse("cpu", dtype, 300, blocks, 1.0)


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_linear_attention(cases: ModuleType, dtype: torch.dtype) -> None:
    cases.check_linear_attention("cpu", dtype, 150)
    cases.check_linear_attention("cpu", dtype, 1100)


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize(("frames", "channels"), [(1, 96), (2, 20), (4, 192)], ids=str)
def test_frames(cases: ModuleType, dtype: torch.dtype, frames: int, channels: int) -> None:
    cases.check_frames("cpu", dtype, frames, channels, (5, 7))


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("channels", [(32, 48), (64, 3)], ids=str)
def test_causal_conv(cases: ModuleType, dtype: torch.dtype, channels: tuple[int, int]) -> None:
    launch = cases.causal_conv.Launch(places=32)
    cases.check_causal_conv("cpu", dtype, channels, (2, 5, 19), launch)
