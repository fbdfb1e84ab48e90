"""The kernels of SageSLA and of choosing blocks on a GPU, in bf16 too."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

from engine.worker.nets.sage import HOPPER_BLOCKS, has_fp8
from engine.worker.nets.sparse_linear import SLA_BLOCKS, Blocks
from tests.specification import sage_cases as cases  # it defines kernels by Triton

DTYPES = [torch.bfloat16, torch.float16, torch.float32]
BOTH = pytest.mark.parametrize("blocks", [SLA_BLOCKS, HOPPER_BLOCKS], ids=["128x64", "64x128"])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rows", [64, 128])
def test_means(dtype: torch.dtype, rows: int) -> None:
    cases.check_means("cuda", dtype, 2, 3000, rows)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@BOTH
def test_chosen_blocks(dtype: torch.dtype, blocks: Blocks) -> None:
    cases.check_chosen("cuda", dtype, 9000, blocks)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rows", [64, 128])
def test_quantiser(dtype: torch.dtype, rows: int) -> None:
    cases.check_quantiser("cuda", dtype, 2, 3000, rows)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rows", [64, 128])
def test_values(dtype: torch.dtype, rows: int) -> None:
    if not has_fp8(torch.device("cuda")):
        pytest.skip("this GPU has no fp8")
    cases.check_values("cuda", dtype, 2, 3000, rows)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("fp8", [True, False], ids=["fp8", "fp16"])
@BOTH
def test_attention(dtype: torch.dtype, fp8: bool, blocks: Blocks) -> None:
    if fp8 and not has_fp8(torch.device("cuda")):
        pytest.skip("this GPU has no fp8")
    cases.check_attention("cuda", dtype, 2, 2000, blocks, 5, fp8=fp8)
    cases.check_attention("cuda", dtype, 1, 1024, blocks, 4, fp8=fp8)


@pytest.mark.parametrize("descriptors", [True, False])
def test_ways_of_the_same(descriptors: bool) -> None:
    launch = cases.kernels.Launch(descriptors=descriptors)
    fp8 = has_fp8(torch.device("cuda"))
    cases.check_attention("cuda", torch.bfloat16, 1, 2000, HOPPER_BLOCKS, 5, fp8=fp8, launch=launch)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@BOTH
def test_whole(dtype: torch.dtype, blocks: Blocks) -> None:
    cases.check_whole("cuda", dtype, 2000, blocks, fp8=has_fp8(torch.device("cuda")))
