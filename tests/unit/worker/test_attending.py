"""Which means compute a job's self-attention, and what its manifest says of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.errors import WorkFailed
from engine.models.model import read_model
from engine.wire import JobSpec, Manifest
from engine.worker import attending
from engine.worker.attending import Attention
from engine.worker.backend import Backend
from engine.worker.channel import ModelFiles, RunJob
from engine.worker.cpu import CpuBackend
from engine.worker.nets.attention import SparseLinearAttention, dense_attention
from engine.worker.nets.sage import SageSparseLinearAttention
from engine.worker.nets.wan import WanNet
from engine.worker.pipeline import run_job
from engine.worker.store import ComponentStore

from .conftest import SMALL

WEIGHTS = "diffusion_pytorch_model.safetensors"


def choose(backend: Backend, **fields: Any) -> attending.Chosen:
    spec = JobSpec(model="m", prompt="p", **fields)
    return Attention(backend).choose(spec, has_proj_l=True)


def change(files: ModelFiles, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    path = Path(files.path) / "transformer" / WEIGHTS
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


@pytest.fixture
def sla(copy_of: Callable[[str], ModelFiles]) -> ModelFiles:
    """A demo model with `proj_l`, as one that was trained for sparse-linear attention."""

    def add(tensors: dict[str, torch.Tensor]) -> None:
        generator = torch.Generator().manual_seed(5)
        for number in range(sum(name.endswith("attn1.to_q.weight") for name in tensors)):
            name = f"blocks.{number}.attn1.proj_l"
            tensors[f"{name}.weight"] = torch.randn(128, 128, generator=generator).bfloat16() / 11
            tensors[f"{name}.bias"] = torch.randn(128, generator=generator).bfloat16() / 10

    files = copy_of(SMALL)
    change(files, add)
    return files


def test_auto_is_what_the_net_was_trained_for(backend: CpuBackend) -> None:
    attention = Attention(backend)
    spec = JobSpec(model="m", prompt="p")
    assert attention.choose(spec, has_proj_l=False).call is dense_attention
    chosen = attention.choose(spec, has_proj_l=True)
    assert chosen.call == SparseLinearAttention(topk=0.1)
    assert (chosen.run.kind, chosen.run.topk, chosen.run.by, chosen.run.note) == ("sla", 0.1, "torch", None)
    assert choose(backend, attention="sla", sla_topk=0.4).call == SparseLinearAttention(topk=0.4)
    assert choose(backend, attention="dense").run.topk is None


def test_eight_bit_attention_runs_and_says_where_there_is_no_fp8(
    backend: CpuBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = choose(backend, attention="sagesla", sla_topk=0.2)
    assert chosen.call == SageSparseLinearAttention(topk=0.2)
    assert (chosen.run.kind, chosen.run.note) == ("sagesla", None)
    monkeypatch.setattr(attending, "has_fp8", lambda device: False)
    note = choose(backend, attention="sagesla").run.note
    assert note == "this GPU has no fp8: sagesla multiplies weights and values in fp16"


def test_a_gpu_too_old_for_the_kernels_runs_pytorch_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class OldGpu(CpuBackend):
        kind = "cuda"  # type: ignore[assignment]

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    chosen = choose(OldGpu(), attention="sla")
    assert (chosen.run.kind, chosen.run.by) == ("sla", "torch")
    assert "compute capability 7.5 and the kernels need 8.0" in (chosen.run.note or "")


@pytest.mark.parametrize(
    ("slow", "off", "used"), [(False, 0.0, True), (True, 0.0, False), (False, 0.5, False)]
)
def test_a_library_is_used_where_it_is_right_and_measured_to_be_faster(
    backend: CpuBackend, monkeypatch: pytest.MonkeyPatch, slow: bool, off: float, used: bool
) -> None:
    """With a stand-in that knows the answer of the sample, or computes it twice."""
    monkeypatch.setattr(attending, "DEVICES", ("cpu",))
    monkeypatch.setattr(attending, "SAMPLE_TOKENS", 384)
    known: list[torch.Tensor] = []
    calls: list[int] = []

    def flash_attn_func(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        calls.append(len(calls))
        if slow:
            dense_attention(q, k, v)
            return dense_attention(q, k, v)
        if not known:
            known.append(dense_attention(q, k, v) * (1 + off))
        return known[0]

    stand_in = ModuleType("flash_attn")
    stand_in.flash_attn_func = flash_attn_func  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_attn", stand_in)
    told: list[str] = []
    attention = Attention(backend, log=told.append)
    spec = JobSpec(model="m", prompt="p", attention="dense")
    chosen = attention.choose(spec, has_proj_l=False)
    assert chosen.run.by == ("flash_attn" if used else "torch")
    assert (chosen.call is dense_attention) == (not used)
    before = len(calls)
    assert attention.choose(spec, has_proj_l=False) == chosen and len(calls) == before
    assert len(told) == 1 and told[0].startswith(f"dense attention by {chosen.run.by}: torch ")
    assert ("not used" in told[0]) == bool(off)


@pytest.mark.parametrize(("off", "used"), [(0.0, True), (0.5, False)])
def test_spargeattn_is_used_where_it_is_right_and_measured_to_be_faster(
    backend: CpuBackend, monkeypatch: pytest.MonkeyPatch, off: float, used: bool
) -> None:
    """Against a stand-in for our own way that takes its time."""
    monkeypatch.setattr(attending, "SAMPLE_TOKENS", 64)

    def product() -> None: ...

    def attend(self: SageSparseLinearAttention, q: Any, k: Any, v: Any, proj_l: Any) -> torch.Tensor:
        if self.product is None:
            time.sleep(0.02)
            return dense_attention(q, k, v)
        return dense_attention(q, k, v) * (1 + off)

    monkeypatch.setattr(SageSparseLinearAttention, "__call__", attend)
    monkeypatch.setattr(attending.sparge, "entry", lambda device: product)
    told: list[str] = []
    attention = Attention(backend, log=told.append)
    for topk in (0.1, 0.2):
        spec = JobSpec(model="m", prompt="p", attention="sagesla", sla_topk=topk)
        chosen = attention.choose(spec, has_proj_l=True)
        assert chosen.call == SageSparseLinearAttention(topk=topk, product=product if used else None)
        assert chosen.run.by == ("spas_sage_attn" if used else "torch")
    assert len(told) == 1 and ("not used" in told[0]) == bool(off)


def test_a_library_that_fails_is_passed_over(backend: CpuBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attending, "DEVICES", ("cpu",))
    monkeypatch.setattr(attending, "SAMPLE_TOKENS", 64)
    stand_in = ModuleType("flash_attn")
    stand_in.flash_attn_func = lambda q, k, v: 1 / 0  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_attn", stand_in)
    told: list[str] = []
    chosen = Attention(backend, log=told.append).choose(
        JobSpec(model="m", prompt="p", attention="dense"), has_proj_l=False
    )
    assert chosen.call is dense_attention and "flash_attn failed (ZeroDivisionError" in told[0]


def test_a_job_says_how_it_attended_and_the_net_stays_loaded_for_the_next_kind(
    sla: ModelFiles, job: Callable[..., RunJob], store: ComponentStore, backend: CpuBackend, seen: Any
) -> None:
    assert read_model(Path(sla.path)).attention == "sla"

    def run(**fields: Any) -> Manifest:
        return run_job(
            job(sla, frames=17, **fields),
            store,
            backend,
            report=seen.progress.append,
            cancelled=lambda: False,
        )[0]

    first, dense, again = run(), run(attention="dense"), run(attention="sla", sla_topk=0.1)
    eight = run(attention="sagesla")
    assert eight.attention and eight.attention.kind == "sagesla"
    assert eight.frames_sha256 not in (first.frames_sha256, dense.frames_sha256)
    assert [manifest.attention and manifest.attention.kind for manifest in (first, dense, again)] == [
        "sla", "dense", "sla",
    ]  # fmt: skip
    assert first.frames_sha256 == again.frames_sha256 != dense.frames_sha256
    loads = [item for item in seen.components if item.component == "dit" and item.state == "loading"]
    assert len(loads) == 1


def test_a_part_without_proj_l_is_no_model(sla: ModelFiles, backend: CpuBackend) -> None:
    def drop(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["blocks.4.attn1.proj_l.weight"]

    change(sla, drop)
    assert "blocks.4.attn1.proj_l.weight is missing" in (read_model(Path(sla.path)).problem or "")


def test_a_nan_in_a_weight_ends_the_job_before_its_decode_unless_nobody_guards(
    copy_of: Callable[[str], ModelFiles],
    job: Callable[..., RunJob],
    store: ComponentStore,
    backend: CpuBackend,
    seen: Any,
) -> None:
    def plant(tensors: dict[str, torch.Tensor]) -> None:
        tensors["blocks.2.ffn.net.2.weight"][3, 5] = torch.nan

    files = copy_of(SMALL)
    change(files, plant)

    def run(nan_guard: bool) -> Manifest:
        return run_job(
            job(files, steps=3),
            store,
            backend,
            report=seen.progress.append,
            cancelled=lambda: False,
            nan_guard=nan_guard,
        )[0]

    with pytest.raises(WorkFailed, match="dit returned values that are not finite in step 1 of 3"):
        run(nan_guard=True)
    assert "decode" not in {item.stage for item in seen.progress}
    with pytest.raises(WorkFailed, match="vae returned values that are not finite"):
        run(nan_guard=False)
    assert "decode" in {item.stage for item in seen.progress}


def test_every_block_of_a_net_attends_as_it_is_told() -> None:
    config = {"num_layers": 1, "num_attention_heads": 1, "ffn_dim": 128, "text_dim": 16, "freq_dim": 256}
    with torch.device("meta"):
        net = WanNet.build(config)
    assert not net.has_proj_l
    call = SparseLinearAttention(topk=0.3)
    net.set_attention(call)
    assert [block.self_attention for block in net.blocks] == [call]
