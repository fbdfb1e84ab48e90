"""When the 8-bit linear's own kernel for Hopper is used, and what is said where it is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not installed")

from engine.worker.nets.int8 import Quantised, block_linear
from engine.worker.nets.kernels import int8, int8_hopper

CPU = torch.device("cpu")


def reference(
    values: Tensor, x_scale: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None, out: Tensor
) -> None:
    given = Quantised(values=values, scale=x_scale, shape=values.shape, dtype=out.dtype)
    out.copy_(block_linear(given, weight, scale, bias))


def test_where_there_is_no_hopper_the_kernel_by_triton_computes_and_it_is_said_why() -> None:
    assert int8_hopper.product(CPU, torch.bfloat16, int8.tiled_linear) is None
    assert int8.why_tiled(CPU, torch.bfloat16) == "it is written for GPUs of NVIDIA"


@pytest.mark.parametrize(
    ("capability", "dtype", "said"),
    [
        ((8, 6), torch.bfloat16, "it is written for compute capability 9.0, and this GPU has 8.6"),
        ((12, 0), torch.bfloat16, "it is written for compute capability 9.0, and this GPU has 12.0"),
        ((9, 0), torch.float32, "it computes bf16 and fp16, not torch.float32"),
    ],
    ids=str,
)
def test_a_gpu_or_dtype_that_it_is_not_for_is_named(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: torch.dtype, said: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    int8_hopper._tried.cache_clear()
    assert int8_hopper.why_not(torch.device("cuda", 0), dtype, reference) == said


def test_a_triton_that_cannot_compile_it_is_a_reason_and_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def linear(*given: Any) -> None:
        raise RuntimeError("at 10:4:\nasync_store is not known")

    stand_in = ModuleType("int8_gluon")
    stand_in.linear = linear  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "engine.worker.nets.kernels.int8_gluon", stand_in)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(int8_hopper, "_agreement", lambda found, *rest: found())
    int8_hopper._tried.cache_clear()
    said = int8_hopper.why_not(torch.device("cuda", 0), torch.bfloat16, reference)
    assert said == "it cannot be compiled by this Triton (RuntimeError: async_store is not known)"


def test_memory_that_is_short_while_it_is_tried_does_not_switch_it_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[int] = []

    def agreement(*given: Any) -> float:
        tried.append(1)
        if len(tried) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 1.0

    stand_in = ModuleType("int8_gluon")
    stand_in.linear = reference  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "engine.worker.nets.kernels.int8_gluon", stand_in)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(int8_hopper, "_agreement", agreement)
    int8_hopper._tried.cache_clear()
    device = torch.device("cuda", 0)
    with pytest.raises(torch.OutOfMemoryError):
        int8_hopper.product(device, torch.bfloat16, reference)
    assert int8_hopper.product(device, torch.bfloat16, reference) is reference
    int8_hopper._tried.cache_clear()


def test_a_kernel_is_refused_whose_answers_are_others() -> None:
    def agreement(found: int8_hopper.Linear) -> float:
        return int8_hopper._agreement(found, reference, CPU, torch.bfloat16)

    def scales_of_the_first_block(*given: Any) -> None:
        *others, scale, bias, out = given
        reference(*others, scale[:, :1].expand_as(scale), bias, out)

    def last_rows_missing(*given: Any) -> None:
        reference(*given)
        given[-1][-72:] = 0

    def bias_before_rounding(*given: Any) -> None:
        *others, bias, out = given
        wide = torch.empty_like(out, dtype=torch.float32)
        reference(*others, None, wide)
        out.copy_(wide + bias.float())

    assert agreement(reference) == 1.0
    for broken in (scales_of_the_first_block, last_rows_missing, bias_before_rounding):
        assert agreement(broken) < int8_hopper.ENOUGH[torch.bfloat16]


COMPILE = """
import torch
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.experimental.gluon._runtime import GluonASTSource
from engine.worker.nets.kernels import int8_gluon as kernel

def tiles(name, dtype, rows):
    layout = kernel.gl.NVMMASharedLayout.get_default_for([rows, 128], kernel.DTYPES[dtype])
    return f"tensordesc<{name}[{rows}, 128],{layout!r}>"

for name, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16)):
    source = GluonASTSource(
        kernel._linear,
        {
            "values": tiles("i8", torch.int8, 128), "weights": tiles("i8", torch.int8, 128),
            "out_tiles": tiles(name, dtype, 64), "x_scale_ptr": "*fp32", "scale_ptr": "*fp32",
            "bias_ptr": "*" + name, "length": "i32", "outputs": "i32", "inputs": "i32",
            "HAS_BIAS": "constexpr", "GROUP": "constexpr", "STAGES": "constexpr",
        },
        {"HAS_BIAS": True, "GROUP": kernel.GROUP, "STAGES": kernel.STAGES},
    )
    made = compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4, "maxnreg": 168})
    print(name, made.metadata.shared, made.asm["ptx"].count("wgmma.mma_async"))
"""


def test_it_compiles_for_hopper_by_the_triton_that_is_installed(tmp_path: Path) -> None:
    """In a process of its own, whose kernels are not interpreted; on a host without a GPU as well."""
    environ = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path), "TRITON_INTERPRET": "0"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == ["bf16", "fp16"]
    for _, shared, products in lines:
        assert int(shared) <= 227 * 1024, "what a block may have"
        # Two groups, four products of 64 x 64 each, four instructions of 32 of a block's 128 inputs.
        assert int(products) == 32
