"""What computes a job's self-attention on this device: the kind that it asked for, by the fastest means.

A kind that the device or this build cannot run becomes the next one that it can, and the job's log and
manifest say so. For dense attention the libraries that are installed are measured against torch, once in a
worker's life.
"""

# Shapes: B videos, L tokens, H heads, d the head's dimension.

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engine.planning.attention import DEFAULT_TOPK
from engine.wire import AttentionRun, JobSpec
from engine.worker.backend import Backend
from engine.worker.nets import kernels
from engine.worker.nets.attention import SelfAttention, SparseLinearAttention, dense_attention
from engine.worker.nets.sage import SageSparseLinearAttention, has_fp8
from engine.worker.nets.wan import WanNet

SAMPLE_TOKENS = 8192
SAMPLE_HEADS = 8
"""Of what is measured: enough work to fill any device, 1 TFLOP in all, 0.2 GB."""
HEAD_DIM = 128
RUNS = 3
"""The best of so many counts, after one that loads what there is to load."""
FASTER = 0.97
"""A library takes at most this share of torch's time, or torch stays."""
AGREES = 0.02
"""The most that a library's output may differ from torch's, relative L2; bf16 alone gives 0.003."""
DEVICES = ("cuda",)
"""Where the libraries run."""
LIBRARIES = ("flash_attn_interface", "flash_attn")
"""Both have `flash_attn_func` of q, k, v [B, L, H, d]; the first is for Hopper."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """A job's self-attention: what a net is given, and what its manifest says of it."""

    call: SelfAttention
    run: AttentionRun


class Attention:
    """One worker's choices. Used by the thread that computes."""

    def __init__(self, backend: Backend, *, log: Callable[[str], None] = lambda text: None) -> None:
        """`log` hears what was measured."""
        self._backend = backend
        self._log = log
        self._dense: tuple[SelfAttention, str] | None = None

    def choose(self, spec: JobSpec, *, has_proj_l: bool) -> Chosen:
        """What computes the self-attention of a job; `has_proj_l` says what its net was trained for."""
        kind = spec.attention
        if kind == "auto":
            kind = "sla" if has_proj_l else "dense"
        if kind == "dense":
            call, by = self._fastest_dense()
            return Chosen(call=call, run=AttentionRun(kind="dense", by=by))
        topk = DEFAULT_TOPK if spec.sla_topk is None else spec.sla_topk
        notes: list[str] = []
        sparse: SelfAttention = SparseLinearAttention(topk=topk)
        if kind == "sagesla":
            sparse = SageSparseLinearAttention(topk=topk)
            if not has_fp8(self._backend.device):
                notes.append("this GPU has no fp8: sagesla multiplies weights and values in fp16")
        fast = kernels.usable(self._backend.device)
        if not fast and self._backend.kind == "cuda":
            notes.append(f"{kind} runs in PyTorch, which is slower: {_why_no_kernels(self._backend.device)}")
        by = "triton" if fast else "torch"
        return Chosen(
            call=sparse, run=AttentionRun(kind=kind, topk=topk, by=by, note="; ".join(notes) or None)
        )

    def _fastest_dense(self) -> tuple[SelfAttention, str]:
        if self._dense is None:
            self._dense = (dense_attention, "torch")
            if self._backend.kind in DEVICES:
                self._dense = self._measured(list(_libraries()))
        return self._dense

    def _measured(self, libraries: list[tuple[SelfAttention, str]]) -> tuple[SelfAttention, str]:
        """The fastest of torch and `libraries` on a sample; one that fails or differs is passed over."""
        best: tuple[SelfAttention, str] = (dense_attention, "torch")
        if not libraries:
            return best
        sample = self._sample()
        with torch.inference_mode():
            expected = dense_attention(*sample)
            torch_s = least = self._time(dense_attention, sample)
            told = [f"torch {1000 * torch_s:.2f} ms"]
            for call, name in libraries:
                try:
                    differs = _relative(call(*sample, None), expected)
                    took = self._time(call, sample)
                except Exception as error:  # a library built for another torch or GPU: torch does it
                    if self._backend.is_fatal(error):
                        raise
                    told.append(f"{name} failed ({type(error).__name__}: {error})")
                    continue
                if not differs <= AGREES:
                    told.append(f"{name} {1000 * took:.2f} ms, {differs:.3f} off: not used")
                    continue
                told.append(f"{name} {1000 * took:.2f} ms")
                if took < FASTER * torch_s and took < least:
                    best, least = (call, name), took
        del sample, expected
        self._backend.free_cache()
        self._log(f"dense attention by {best[1]}: {', '.join(told)} for {SAMPLE_TOKENS} tokens")
        return best

    def _sample(self) -> tuple[Tensor, Tensor, Tensor]:
        # Its own generator: a job's numbers must not depend on what was measured before.
        generator = self._backend.generator(0)
        shape = (1, SAMPLE_TOKENS, SAMPLE_HEADS, HEAD_DIM)
        q, k, v = (
            torch.randn(shape, generator=generator, device=self._backend.device).to(torch.bfloat16)
            for _ in range(3)
        )
        return q, k, v

    def _time(self, call: SelfAttention, sample: tuple[Tensor, Tensor, Tensor]) -> float:
        took = []
        for _ in range(RUNS + 1):
            self._backend.mark_compute().wait()
            began = time.perf_counter()
            call(*sample, None)
            self._backend.mark_compute().wait()
            took.append(time.perf_counter() - began)
        return min(took[1:])


class Attending:
    """One job's self-attention: chosen at its first step, and given to the net of each."""

    def __init__(self, attention: Attention, spec: JobSpec, *, warn: Callable[[str], None]) -> None:
        self._attention = attention
        self._spec = spec
        self._warn = warn
        self._chosen: Chosen | None = None

    @property
    def run(self) -> AttentionRun | None:
        """What ran; None before the first step."""
        return None if self._chosen is None else self._chosen.run

    def give(self, net: WanNet) -> None:
        """Let `net` attend as this job asks; it is shared with other jobs, and its weights stay."""
        if self._chosen is None:
            self._chosen = self._attention.choose(self._spec, has_proj_l=net.has_proj_l)
            if note := self._chosen.run.note:
                self._warn(note)
        net.set_attention(self._chosen.call)


def _libraries() -> Iterator[tuple[SelfAttention, str]]:
    """Those that are installed, each with its name and version."""
    for module in LIBRARIES:
        try:
            attend: Any = importlib.import_module(module).flash_attn_func
        except (ImportError, OSError, AttributeError, RuntimeError):
            continue  # none, or one built for another torch

        def call(
            q_BLHd: Tensor, k_BLHd: Tensor, v_BLHd: Tensor, proj_l: nn.Linear | None, attend: Any = attend
        ) -> Tensor:
            found = attend(q_BLHd, k_BLHd, v_BLHd)
            out: Tensor = found[0] if isinstance(found, tuple) else found  # some tell the sums as well
            return out

        yield call, f"{module} {_version(module)}".strip()


def _version(module: str) -> str:
    try:
        names = importlib.metadata.packages_distributions().get(module, [module])
        return importlib.metadata.version(names[0])
    except importlib.metadata.PackageNotFoundError:
        return ""


def _why_no_kernels(device: torch.device) -> str:
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    major, minor = torch.cuda.get_device_capability(device)
    return f"this GPU has compute capability {major}.{minor} and the kernels need 8.0"


def _relative(found: Tensor, expected: Tensor) -> float:
    """Relative L2; NaN where something is not finite."""
    expected = expected.float()
    return float((found.float() - expected).norm() / expected.norm())
