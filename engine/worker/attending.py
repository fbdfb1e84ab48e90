"""What computes a job's self-attention on this device: the kind that it asked for, by the fastest means.

A kind that the device or this build cannot run becomes the next one that it can, and the job's log and
manifest say so. Libraries that are installed are measured once in a worker's life: for dense attention
against torch, for SageSLA against our own kernel.
"""

# Shapes: B videos, L tokens, H heads, d the head's dimension.

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from engine.planning.attention import DEFAULT_TOPK
from engine.wire import AttentionRun, JobSpec
from engine.worker.backend import Backend
from engine.worker.nets import kernels, sparge
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
"""A library takes at most this share of the time without it, or that stays."""
AGREES = 0.02
"""The most that a library's output may differ, relative L2; bf16 alone gives 0.003."""
DEVICES = ("cuda",)
"""Where the libraries run."""
LIBRARIES = ("flash_attn_interface", "flash_attn")
"""Both have `flash_attn_func` of q, k, v [B, L, H, d]; the first is for Hopper."""


Means: TypeAlias = tuple[SelfAttention, str]
"""What attends, and the name and version of what that is of."""


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
        self._dense: Means | None = None
        self._sage: Means | None = None

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
        fast = kernels.usable(self._backend.device)
        by = "triton" if fast else "torch"
        sparse: SelfAttention = SparseLinearAttention(topk=topk)
        if kind == "sagesla":
            product, by = self._fastest_sage(by)
            sparse = SageSparseLinearAttention(topk=topk, product=product)
            if not has_fp8(self._backend.device):
                notes.append("this GPU has no fp8: sagesla multiplies weights and values in fp16")
        if not fast and self._backend.kind == "cuda":
            notes.append(f"{kind} runs in PyTorch, which is slower: {_why_no_kernels(self._backend.device)}")
        return Chosen(
            call=sparse, run=AttentionRun(kind=kind, topk=topk, by=by, note="; ".join(notes) or None)
        )

    def _fastest_dense(self) -> Means:
        if self._dense is None:
            self._dense = (dense_attention, "torch")
            if self._backend.kind in DEVICES:
                self._dense = self._measured("dense", self._dense, list(_libraries()))
        return self._dense

    def _fastest_sage(self, own: str) -> tuple[Any | None, str]:
        """SpargeAttn's product where it is faster than our kernel, and the name of what computes."""
        if self._sage is None:
            self._sage = (SageSparseLinearAttention(), own)
            product = sparge.entry(self._backend.device)
            if product is not None:
                theirs = SageSparseLinearAttention(product=product), _named(sparge.MODULE)
                self._sage = self._measured("sagesla", self._sage, [theirs])
        call, by = self._sage
        return getattr(call, "product", None), by

    def _measured(self, kind: str, without: Means, libraries: list[Means]) -> Means:
        """The fastest of `without` and `libraries` on a sample; one that fails or differs is passed over."""
        best = without
        if not libraries:
            return best
        sample = self._sample()
        with torch.inference_mode():
            expected = without[0](*_given_up(sample), None)
            known_s = least = self._time(without[0], sample)
            told = [f"{without[1]} {1000 * known_s:.2f} ms"]
            for call, name in libraries:
                try:
                    differs = _relative(call(*_given_up(sample), None), expected)
                    took = self._time(call, sample)
                except Exception as error:  # a library built for another torch or GPU
                    if self._backend.is_fatal(error):
                        raise
                    told.append(f"{name} failed ({type(error).__name__}: {error})")
                    continue
                if not differs <= AGREES:
                    told.append(f"{name} {1000 * took:.2f} ms, {differs:.3f} off: not used")
                    continue
                told.append(f"{name} {1000 * took:.2f} ms")
                if took < FASTER * known_s and took < least:
                    best, least = (call, name), took
        del sample, expected
        self._backend.free_cache()
        self._log(f"{kind} attention by {best[1]}: {', '.join(told)} for {SAMPLE_TOKENS} tokens")
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
            given = _given_up(sample)
            self._backend.mark_compute().wait()
            began = time.perf_counter()
            call(*given, None)
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


def _given_up(sample: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Copies of queries and keys, in whose place a call may write."""
    q, k, v = sample
    return q.clone(), k.clone(), v


def _libraries() -> Iterator[Means]:
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

        yield call, _named(module)


def _named(module: str) -> str:
    """The library's name and version."""
    try:
        names = importlib.metadata.packages_distributions().get(module, [module])
        return f"{module} {importlib.metadata.version(names[0])}"
    except importlib.metadata.PackageNotFoundError:
        return module


def _why_no_kernels(device: torch.device) -> str:
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    major, minor = torch.cuda.get_device_capability(device)
    return f"this GPU has compute capability {major}.{minor} and the kernels need 8.0"


def _relative(found: Tensor, expected: Tensor) -> float:
    """Relative L2; NaN where something is not finite."""
    expected = expected.float()
    return float((found.float() - expected).norm() / expected.norm())
