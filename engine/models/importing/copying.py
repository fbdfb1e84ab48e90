"""Which safetensors files a component is copied into, and the bytes of its tensors in the wanted format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.errors import ModelUnusable
from engine.models.dtypes import DTYPES
from engine.models.importing.mapping import Placed
from engine.models.importing.plan import Component, Kept
from engine.models.layout import ALIGNMENT, FP32, resident_dtype
from engine.models.weight_file import FETCH_AGAIN
from engine.models.weight_writer import FilePlan, TensorPlan, plan_file

SHARD_BYTES = 10 * 10**9
BF16 = "BF16"
STEMS = {"text": "model"}
"""Of the files' names; the others have diffusers' own."""
WIDE = {"F64": np.float64, "F32": np.float32, "F16": np.float16}
"""The formats that are turned into bfloat16, and what numpy calls them."""


@dataclass(frozen=True, slots=True)
class Copied:
    """The numbers of one tensor, read from its file when they are asked for."""

    placed: Placed
    dtype: str
    """As they are written."""

    def parts(self, first: int, count: int) -> Sequence[memoryview]:
        entry = self.placed.entry
        width = DTYPES[entry.dtype].bytes
        data = _read(self.placed.source.path, entry.begin + first * width, count * width)
        if entry.dtype == self.dtype:
            return (data,)
        numbers = np.frombuffer(data, dtype=WIDE[entry.dtype]) if entry.dtype != BF16 else _widened(data)
        numbers = numbers.astype(np.float32, copy=False)
        written = numbers if self.dtype == FP32 else _rounded(numbers)
        return (written.data.cast("B"),)


def copy_plan(component: Component, kept: Kept) -> tuple[FilePlan, ...]:
    """The files that `component` is copied into, each tensor on a boundary where the format allows it.

    Tensors lie one behind another in safetensors, so those of a whole number of boundaries come first.
    """
    tensors = []
    for name, placed in component.mapped.tensors.items():
        dtype = placed.entry.dtype
        if kept == "bf16" and dtype in WIDE:
            dtype = resident_dtype(component.name, name, BF16)
        tensors.append(TensorPlan(name=name, dtype=dtype, shape=placed.shape, content=Copied(placed, dtype)))
    shards: list[list[TensorPlan]] = [[]]
    size = 0
    for tensor in tensors:
        if shards[-1] and size + tensor.bytes > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.bytes
    stem = STEMS.get(component.name, "diffusion_pytorch_model")
    names = (
        [f"{stem}.safetensors"]
        if len(shards) == 1
        else [f"{stem}-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    )
    return tuple(
        plan_file(name, sorted(shard, key=lambda tensor: tensor.bytes % ALIGNMENT != 0), boundary=ALIGNMENT)
        for name, shard in zip(names, shards, strict=True)
    )


def missing_files(folder: Path, files: Sequence[FilePlan]) -> list[FilePlan]:
    """Those of `files` that do not lie whole in `folder`; a file has its name only once it is whole."""
    return [file for file in files if not _is_whole(folder / file.name, file.bytes)]


def _is_whole(path: Path, num_bytes: int) -> bool:
    try:
        return path.stat().st_size == num_bytes
    except OSError:
        return False


def _read(path: Path, begin: int, length: int) -> memoryview:
    with open(path, "rb", buffering=0) as file:
        file.seek(begin)
        data = bytearray(length)
        view = memoryview(data)
        while view:
            count = file.readinto(view)
            if not count:
                raise ModelUnusable(f"{path} is truncated while it is copied; {FETCH_AGAIN}")
            view = view[count:]
    return memoryview(data)


def _widened(data: memoryview) -> np.ndarray:
    """bfloat16 to float32: the upper half of each number."""
    return (np.frombuffer(data, dtype=np.uint16).astype(np.uint32) << 16).view(np.float32)


def _rounded(numbers: np.ndarray) -> np.ndarray:
    """float32 to bfloat16, to the nearest and to even between two, as torch does it; NaN stays NaN."""
    bits = numbers.view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(numbers), np.uint16(0x7FC0), rounded)
