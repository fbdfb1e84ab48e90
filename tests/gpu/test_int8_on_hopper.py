"""The 8-bit linear's own kernel for Hopper beside exact integers, for every kind of edge."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not installed")

from engine.worker.nets.int8 import Quantised, block_linear
from engine.worker.nets.kernels import int8, int8_hopper

BLOCK = 128


@pytest.fixture(autouse=True)
def on_hopper() -> None:
    if torch.cuda.get_device_capability() != int8_hopper.CAPABILITY:
        pytest.skip("this GPU has other instructions; Triton's kernel computes there")


def given(length: int, outputs: int, inputs: int, dtype: torch.dtype, biased: bool) -> list[Tensor | None]:
    source = torch.Generator("cuda").manual_seed(length + outputs + inputs)

    def whole(rows: int) -> Tensor:
        return torch.randint(-128, 128, (rows, inputs), generator=source, device="cuda", dtype=torch.int8)

    def scales(rows: int) -> Tensor:
        size = (-(-rows // BLOCK), inputs // BLOCK)
        return (0.5 + torch.rand(size, generator=source, device="cuda")) / BLOCK

    bias = torch.randn(outputs, generator=source, device="cuda").to(dtype) if biased else None
    return [whole(length), scales(length), whole(outputs), scales(outputs), bias]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("length", "outputs", "inputs", "biased"),
    [
        (1, 128, 128, True),
        (128, 256, 256, False),
        (130, 384, 384, True),
        (1000, 1536, 1536, True),
        (3000, 1536, 8960, True),
        (32760, 1536, 1536, True),
    ],
)
def test_numbers(length: int, outputs: int, inputs: int, biased: bool, dtype: torch.dtype) -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    assert int8.why_tiled(device, dtype) is None
    values, x_scale, weight, scale, bias = given(length, outputs, inputs, dtype, biased)
    assert values is not None and x_scale is not None and weight is not None and scale is not None
    poison = torch.full((length, outputs), float("nan"), dtype=dtype, device="cuda")
    del poison  # what is not written stays that
    found = int8.linear(values, x_scale, weight, scale, bias, dtype)
    activations = Quantised(values=values, scale=x_scale, shape=values.shape, dtype=dtype)
    expected = block_linear(activations, weight, scale, bias)
    assert torch.isfinite(found).all()
    assert (found == expected).float().mean() >= int8_hopper.ENOUGH[dtype]
    # Before the bias one step is 2^-8 of a number in bf16, 2^-11 in fp16.
    step = 2.0 ** (-8 if dtype == torch.bfloat16 else -11)
    plain = block_linear(activations, weight, scale, None).float().abs()
    # And fp32 sums in another order: as far as numbers as large as the largest may lie apart.
    most = 2 * step * (plain + expected.float().abs()) + 2.0**-20 * plain.max()
    assert ((found.float() - expected.float()).abs() <= most).all()
    again = torch.full((length + 2, outputs), -7.0, dtype=dtype, device="cuda")
    int8.linear(values, x_scale, weight, scale, bias, dtype, again[1:-1])
    assert (again[[0, -1]] == -7.0).all(), "written beside its place"
    assert torch.equal(found, again[1:-1]), "two runs differ: something is read before it is written"
