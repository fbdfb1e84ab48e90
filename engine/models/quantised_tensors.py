"""The tensors of an int8 sibling, made band by band as they are written, and compared once they lie there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.errors import ModelUnusable, WorkFailed
from engine.models.dtypes import DTYPES
from engine.models.layout import INT8_BLOCK_SIZE, SCALE, int8_scale_shape
from engine.models.quantised_files import Sums
from engine.models.random_noise import bytes_of
from engine.models.weight_file import TensorEntry, WeightFile
from engine.models.weight_writer import FilePlan
from engine.worker.nets.int8 import quantise

BAND_ELEMENTS = 2**21
"""Of a weight that is quantised at once, where 128 rows are not more."""
COPY_BYTES = 8 * 2**20
ROUNDING = 0.5 + 2**-10
"""Steps by which a number may be off: half of one, and fp32's own rounding of the quotient."""
USUAL_ERROR = 0.02
"""Relative L2 of a layer; normal weights have 0.009, since the largest of 16,384 of them is 4 deviations."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Weight:
    """One weight of the source [rows, columns], read from its open file."""

    name: str
    file: WeightFile
    entry: TensorEntry

    @property
    def rows(self) -> int:
        return self.entry.shape[0]

    @property
    def columns(self) -> int:
        return self.entry.shape[1]

    def read(self, first: int, end: int) -> Tensor:
        """Rows `first` to `end` in the format in which they lie."""
        dtype = DTYPES[self.entry.dtype]
        row_bytes = self.columns * dtype.bytes
        raw = bytearray(self.file.read(self.entry.begin + first * row_bytes, (end - first) * row_bytes))
        return torch.frombuffer(raw, dtype=getattr(torch, dtype.name)).view(end - first, self.columns)

    def bands(self, first: int, end: int) -> Iterator[tuple[int, Tensor]]:
        """The rows from `first` to `end`, and those of their blocks, a band of whole blocks at a time."""
        block = INT8_BLOCK_SIZE
        step = max(1, BAND_ELEMENTS // self.columns // block) * block
        for begin in range(first // block * block, end, step):
            stop = min(self.rows, begin + step, -(-end // block) * block)
            yield begin, self.read(begin, stop)


@dataclass(frozen=True, kw_only=True, slots=True)
class Values:
    """The int8 numbers of a weight."""

    weight: Weight

    def parts(self, first: int, count: int) -> Iterator[memoryview]:
        columns = self.weight.columns
        end = first + count
        for begin, band in self.weight.bands(first // columns, -(-end // columns)):
            values = quantise(band)[0].view(-1)
            origin = begin * columns
            yield bytes_of(values[max(0, first - origin) : end - origin])


@dataclass(frozen=True, kw_only=True, slots=True)
class Scales:
    """The fp32 scales of a weight, one to each of its blocks."""

    weight: Weight

    def parts(self, first: int, count: int) -> Iterator[memoryview]:
        weight = self.weight
        across = int8_scale_shape(weight.rows, weight.columns)[1]
        end = first + count
        rows = (first // across * INT8_BLOCK_SIZE, min(weight.rows, -(-end // across) * INT8_BLOCK_SIZE))
        for begin, band in weight.bands(*rows):
            scales = quantise(band)[1]
            if not bool(torch.isfinite(scales).all()):
                raise ModelUnusable(
                    f"{weight.file.path} holds {weight.name!r} with numbers that are infinite or none, which "
                    "cannot be quantised; fetch or convert the model again"
                )
            origin = begin // INT8_BLOCK_SIZE * across
            yield bytes_of(scales.view(-1)[max(0, first - origin) : end - origin])


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """A tensor that stays as it is, byte for byte, or as its model keeps it beside files of more digits."""

    file: WeightFile
    entry: TensorEntry
    dtype: str

    def parts(self, first: int, count: int) -> Iterator[memoryview]:
        stored = DTYPES[self.entry.dtype]
        width = stored.bytes
        if self.dtype != self.entry.dtype:
            kept = getattr(torch, DTYPES[self.dtype].name)
            for at in range(first, first + count, COPY_BYTES // width):
                many = min(COPY_BYTES // width, first + count - at)
                raw = bytearray(self.file.read(self.entry.begin + at * width, many * width))
                yield bytes_of(torch.frombuffer(raw, dtype=getattr(torch, stored.name)).to(kept))
            return
        begin, end = (self.entry.begin + element * width for element in (first, first + count))
        for at in range(begin, end, COPY_BYTES):
            yield memoryview(self.file.read(at, min(COPY_BYTES, end - at)))


def is_quantised(name: str, shape: Sequence[int]) -> bool:
    """Whether the tensor of this name and shape becomes int8: the weight of a linear layer in a block.

    Not the sparse attention's `proj_l`, as in the released checkpoints.
    """
    parts = name.split(".")
    return parts[0] == "blocks" and parts[-1] == "weight" and len(shape) == 2 and "proj_l" not in parts


# --------------------------------------------------------------------------- reading back


def compare(weight: Weight, written: WeightFile, plan: FilePlan) -> Sums:
    """One band of blocks of a weight as it lies in the written file, beside what it was made of.

    Raises:
        WorkFailed: a number is farther off than rounding can bring it.
    """
    begins = _begins(plan)
    block = INT8_BLOCK_SIZE
    across = int8_scale_shape(weight.rows, weight.columns)[1]
    bands = -(-weight.rows // block)
    band = int.from_bytes(hashlib.sha256(weight.name.encode()).digest()[:4], "little") % bands
    first, end = band * block, min(weight.rows, (band + 1) * block)
    values_at = begins[weight.name] + first * weight.columns
    scales_at = begins[weight.name.removesuffix(".weight") + SCALE] + 4 * band * across
    raw = bytearray(written.read(values_at, (end - first) * weight.columns))
    values = torch.frombuffer(raw, dtype=torch.int8).view(end - first, weight.columns)
    scales = torch.frombuffer(bytearray(written.read(scales_at, 4 * across)), dtype=torch.float32)
    steps = scales.repeat_interleave(block)[: weight.columns]
    exact = weight.read(first, end).float()
    difference = (exact - values.float() * steps).abs()
    # The largest number of a block is 128 steps, and there is no 128 in an int8.
    bound = torch.where(values == 127, 1 + 2**-10, ROUNDING) * steps
    if bool((difference > bound).any()):
        raise WorkFailed(
            f"{written.path} holds {weight.name} otherwise than it was written: a number is "
            f"{float((difference / steps).max()):.1f} steps off; check the disk, and quantise again"
        )
    return Sums(difference=float(difference.square().sum()), weight=float(exact.square().sum()))


def _begins(plan: FilePlan) -> dict[str, int]:
    """Tensor name to its first byte in the file."""
    begins, at = {}, len(plan.header)
    for tensor in plan.tensors:
        begins[tensor.name] = at
        at += tensor.bytes
    return begins


def sha256_of(file: WeightFile) -> str:
    digest = hashlib.sha256()
    for at in range(0, file.num_bytes, COPY_BYTES):
        digest.update(file.read(at, min(COPY_BYTES, file.num_bytes - at)))
    return digest.hexdigest()


def remark_on(errors: Mapping[str, float]) -> str | None:
    """What to say of the errors of each kind of layer; None where they are usual."""
    worst = max(errors, key=lambda layer: errors[layer])
    if errors[worst] <= USUAL_ERROR:
        return None
    return (
        f"{worst} is {100 * errors[worst]:.1f} % off, more than the {100 * USUAL_ERROR:.0f} % that int8 "
        "usually costs: its weights have outliers; compare a video of both before you rely on it"
    )
