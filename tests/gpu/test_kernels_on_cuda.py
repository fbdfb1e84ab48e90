"""The nets' kernels on a GPU, in bf16 too, beside the statement of the specification on the CPU."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

from tests.specification import kernel_cases as cases  # it defines kernels by Triton

DTYPES = [torch.bfloat16, torch.float16, torch.float32]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("width", [1536, 5120, 300])
def test_norms(dtype: torch.dtype, width: int) -> None:
    cases.check_norms("cuda", dtype, 257, width)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rotation(dtype: torch.dtype) -> None:
    cases.check_rotation("cuda", dtype, (5, 6, 7), 12)
    cases.check_rotation("cuda", dtype, (2, 6, 7), 40)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gate(dtype: torch.dtype) -> None:
    cases.check_gate("cuda", dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_quantiser(dtype: torch.dtype) -> None:
    cases.check_quantiser("cuda", dtype, 1000, 1536)
    cases.check_gelu_quantiser("cuda", dtype, 1000, 1536)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_linear(dtype: torch.dtype) -> None:
    cases.check_linear("cuda", dtype, 1000, 1536, 8960)
    cases.check_linear("cuda", dtype, 130, 8960, 1536)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("blocks", [(128, 64), (64, 128)], ids=str)
def test_sparse(dtype: torch.dtype, blocks: tuple[int, int]) -> None:
    cases.check_sparse("cuda", dtype, 2000, blocks, 0.15)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_linear_attention(dtype: torch.dtype) -> None:
    cases.check_linear_attention("cuda", dtype, 3000)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("frames", "channels"), [(1, 96), (4, 96), (2, 384), (8, 192)], ids=str)
def test_frames(dtype: torch.dtype, frames: int, channels: int) -> None:
    cases.check_frames("cuda", dtype, frames, channels, (30, 52))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("channels", [(96, 96), (64, 48)], ids=str)
def test_causal_conv(dtype: torch.dtype, channels: tuple[int, int]) -> None:
    if torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("this GPU has no copy engine for tiles; cuDNN computes there")
    cases.check_causal_conv("cuda", dtype, channels, (3, 37, 70), cases.causal_conv.Launch())
    cases.check_causal_conv("cuda", dtype, channels, (1, 16, 32), cases.causal_conv.Launch())
