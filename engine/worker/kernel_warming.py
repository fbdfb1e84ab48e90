"""Triton kernels made ready before a job's first step needs them, on a thread of its own.

Triton compiles a kernel when it is first called with a new width, dtype or divisibility of its arguments.
Here each is called once on a few rows as wide as the net's, with rows that divide by 16 and rows that do not:
as soon as the worker hears of a model, while its weights travel or its prompt is encoded. What is compiled
lies in the cache on disk, where the next worker finds it.
"""

from __future__ import annotations

import os
import queue
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.errors import EngineError
from engine.models.folders import DIT
from engine.worker.backend import Backend
from engine.worker.channel import ModelFiles
from engine.worker.components import Component
from engine.worker.nets import elementwise, kernels
from engine.worker.nets.attention import SelfAttention, SparseLinearAttention
from engine.worker.nets.sage import SageSparseLinearAttention
from engine.worker.store import ComponentStore

LENGTHS = (256, 264)
"""Rows: divisible by 16 as whole parts are, and not, as the last part of most videos is."""
CACHE_VARIABLE = "TRITON_CACHE_DIR"
CACHE_BYTES = 256 * 2**20
"""What compiled kernels may take on disk."""
EPS = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class NetShape:
    """What kernels are compiled for: nets of equal shapes share them."""

    heads: int
    head_dim: int
    dtype: torch.dtype
    """Of x and of most weights."""
    norm_dtype: torch.dtype
    """Of the weights of the norm before cross-attention."""
    int8: bool
    proj_l: bool

    @property
    def width(self) -> int:
        return self.heads * self.head_dim


def shape_of(component: Component) -> NetShape:
    """Of a DiT that was opened; its weights need not be there."""
    net: Any = component.module
    dtypes = {name: slot.dtype for slot in component.arena.layout.slots for name in slot.names}
    return NetShape(
        heads=net.config.num_attention_heads,
        head_dim=net.config.attention_head_dim,
        dtype=dtypes["patch_embedding.weight"],
        norm_dtype=dtypes["blocks.0.norm2.weight"],
        int8=dtypes["blocks.0.attn1.to_q.weight"] == torch.int8,
        proj_l=net.has_proj_l,
    )


@torch.inference_mode()
def call_kernels(shape: NetShape, device: torch.device) -> None:
    """Call everything that a block of `shape` calls by a kernel, on a few rows of zeros."""

    def zeros(*size: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(size, dtype=dtype, device=device)

    width, dtype = shape.width, shape.dtype
    wide, narrow = zeros(width), zeros(width, dtype=dtype)
    affine = zeros(width, dtype=shape.norm_dtype)
    proj_l = None
    if shape.proj_l:
        proj_l = nn.Linear(shape.head_dim, shape.head_dim, device=device, dtype=dtype)
    for length in LENGTHS:
        x, y = zeros(length, width, dtype=dtype), zeros(length, width, dtype=dtype)
        turn = zeros(length, shape.head_dim // 2)
        elementwise.modulated_norm(x, wide, wide, EPS)
        elementwise.affine_norm(x, affine, affine, EPS)
        elementwise.rms_norm(x, narrow, EPS)
        elementwise.rotated_rms_norm(x, narrow, EPS, turn, turn, y)
        elementwise.add_gated(x, y, wide)
        if shape.int8:
            block = kernels.int8_kernels()
            scale = zeros(1, width // 128)
            weight, bias = zeros(128, width, dtype=torch.int8), zeros(128, dtype=dtype)
            block.linear(*block.quantise(x), weight, scale, bias, dtype)
            block.gelu_quantise(x)
        heads = x.view(1, length, shape.heads, shape.head_dim)
        for attend in _sparse_kinds() if proj_l is not None else ():
            attend(heads, heads, heads, proj_l)


def _sparse_kinds() -> tuple[SelfAttention, ...]:
    return SparseLinearAttention(), SageSparseLinearAttention()


class KernelWarmer:
    """One worker's. `want` may be called by any thread; the work is done by one of its own."""

    def __init__(self, store: ComponentStore, backend: Backend, *, log: Callable[[str], None]) -> None:
        self._store = store
        self._backend = backend
        self._log = log
        self._done: set[NetShape] = set()
        self._wanted: queue.SimpleQueue[ModelFiles] = queue.SimpleQueue()
        self._connected = threading.Event()
        if backend.kind == "cuda":
            threading.Thread(target=self._run, name="kernels", daemon=True).start()

    def connected(self) -> None:
        """The device can be used from now on."""
        self._connected.set()

    def want(self, model: ModelFiles) -> None:
        """Make the kernels of `model` ready, unless they are; returns at once."""
        self._wanted.put(model)

    def _run(self) -> None:
        self._connected.wait()
        while True:
            model = self._wanted.get()
            try:
                self.warm(model)
            except EngineError:
                continue  # said when it is loaded
            except Exception as error:  # a job compiles what could not be ahead, and says what is wrong
                self._log(f"kernels of {model.name} not ready ahead: {type(error).__name__}: {error}")

    def warm(self, model: ModelFiles) -> None:
        """Make the kernels of `model` ready; they are left out where the device runs none."""
        if not kernels.usable(self._backend.device):
            return
        for name, component in self._store.open(model).components.items():
            if not name.startswith(DIT) or (shape := shape_of(component)) in self._done:
                continue
            began = time.monotonic()
            with self._own_stream():
                call_kernels(shape, self._backend.device)
                self._backend.mark_compute().wait()
            self._done.add(shape)
            took = time.monotonic() - began
            self._log(f"kernels of {model.name} ready after {took:.2f} s")
            if shape.int8 and (why := kernels.int8_kernels().why_tiled(self._backend.device, shape.dtype)):
                self._log(f"int8 products of {model.name} by Triton's kernel, not Hopper's own: {why}")

    def _own_stream(self) -> AbstractContextManager[Any]:
        """Beside the work of a job, which it neither waits for nor holds up."""
        if self._backend.kind != "cuda":
            return nullcontext()
        return torch.cuda.stream(torch.cuda.Stream(self._backend.device))  # type: ignore[no-untyped-call]


def use_cache(folder: Path) -> None:
    """Let compiled kernels lie in `folder`, unless the person says otherwise; before Triton's first call."""
    if CACHE_VARIABLE in os.environ:
        return
    os.environ[CACHE_VARIABLE] = str(folder)
    prune_cache(folder, CACHE_BYTES)


def prune_cache(folder: Path, most_bytes: int) -> None:
    """Take away the entries that were made first until the rest fits; what cannot be read stays."""
    entries = []
    try:
        for entry in os.scandir(folder):
            files = [file.stat() for file in os.scandir(entry.path) if file.is_file()]
            entries.append((entry.stat().st_mtime, sum(info.st_size for info in files), entry.path))
    except OSError:
        return
    total = sum(size for _at, size, _path in entries)
    for _at, size, path in sorted(entries):
        if total <= most_bytes:
            return
        shutil.rmtree(path, ignore_errors=True)
        total -= size
