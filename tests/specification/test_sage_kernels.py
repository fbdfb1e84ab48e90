"""SageSLA's kernels and those of choosing blocks through Triton's interpreter; bf16 is left to tests/gpu."""

from __future__ import annotations

import importlib
import os
from types import ModuleType

import pytest
import torch

from engine.worker.nets import kernels, sage
from engine.worker.nets.sage import HOPPER_BLOCKS
from engine.worker.nets.sparse_linear import SLA_BLOCKS, Blocks

HALF = [torch.float32, torch.float16]


@pytest.fixture(scope="module")
def cases() -> ModuleType:
    pytest.importorskip("triton", reason="Triton is not installed")
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("on a host with a GPU the kernels are compiled: tests/gpu compares them there")
    return importlib.import_module("tests.specification.sage_cases")


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_means(cases: ModuleType, dtype: torch.dtype) -> None:
    cases.check_means("cpu", dtype, 2, 200, 64)
    cases.check_means("cpu", dtype, 1, 600, 128)


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_quantiser(cases: ModuleType, dtype: torch.dtype) -> None:
    cases.check_quantiser("cpu", dtype, 2, 200, 64)
    cases.check_quantiser("cpu", dtype, 1, 128, 128)


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_values(cases: ModuleType, dtype: torch.dtype) -> None:
    cases.check_values("cpu", dtype, 2, 200, 64)
    cases.check_values("cpu", dtype, 1, 128, 128)


@pytest.mark.parametrize("blocks", [SLA_BLOCKS, HOPPER_BLOCKS], ids=["128x64", "64x128"])
@pytest.mark.parametrize("fp8", [True, False], ids=["fp8", "fp16"])
def test_attention(cases: ModuleType, blocks: Blocks, fp8: bool) -> None:
    cases.check_attention("cpu", torch.float16, 2, 200, blocks, 2, fp8=fp8)


def test_ways_of_the_same(cases: ModuleType) -> None:
    for descriptors in (True, False):
        launch = cases.kernels.Launch(descriptors=descriptors)
        cases.check_attention("cpu", torch.float32, 1, 130, HOPPER_BLOCKS, 2, fp8=True, launch=launch)


def test_whole(cases: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "usable", lambda device: True)
    for fp8, dtype in ((True, torch.float32), (False, torch.float16)):
        monkeypatch.setattr(sage, "has_fp8", lambda device, has=fp8: has)
        cases.check_whole("cpu", dtype, 130, HOPPER_BLOCKS, fp8=fp8)


def test_chosen_blocks(cases: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "usable", lambda device: True)
    cases.check_chosen("cpu", torch.float32, 1300, SLA_BLOCKS)


def test_the_library_is_given_what_it_takes(cases: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "usable", lambda device: True)
    cases.check_library(torch.float32, 2, 600)
