"""Weights of a component that lie elsewhere, in files that were imported where they are.

A component's folder then holds a table instead of weight files: which tensor is which bytes of which
file. The files are looked at whenever the table is read, so one that is gone, was cut or replaced makes a
model with a problem and never a wrong video.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

import msgspec

from engine.errors import ModelUnusable
from engine.models.dtypes import DTYPES
from engine.models.weight_file import (
    FileIndex,
    Span,
    TensorEntry,
    WeightFile,
    open_weight_file,
    samples_of,
)

IN_PLACE = "turbotui_index.json"
IN_PLACE_FORMAT = 1


class TableFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One weight file, as it was when it was imported."""

    path: str
    """Absolute."""
    bytes: int
    mtime_ns: int
    header: tuple[tuple[int, int], ...]
    """Where what describes its tensors lies."""
    header_sha256: str
    data: tuple[int, int]
    """Where its tensors lie."""
    samples_sha256: str
    """Of bytes here and there in what holds the weights: two experts differ in nothing else."""


class TableTensor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One tensor, by the name and the shape that its module gives it."""

    file: int
    """Number of the file, from 0."""
    source: str
    """What the file calls it."""
    begin: int
    end: int
    dtype: str
    shape: tuple[int, ...]


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of `turbotui_index.json`."""

    format: int
    again: str
    """The command that makes this model again."""
    kept: str | None
    """The number format in which the component is kept whatever its files have; None for theirs."""
    files: tuple[TableFile, ...]
    tensors: dict[str, TableTensor]


class _Files(msgspec.Struct, frozen=True):
    files: tuple[TableFile, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class InPlace:
    """A table and the files that it names, looked at."""

    files: tuple[FileIndex, ...]
    tensors: Mapping[str, TensorEntry]
    file_of: Mapping[str, Path]
    sources: Mapping[str, str]
    """What its file calls each tensor."""
    kept: str | None
    names: str
    """Digest of which tensor is which bytes: what two components may differ in with one file."""


def table_file(file: FileIndex) -> TableFile:
    """What a table says of `file`.

    Raises:
        ModelUnusable: it cannot be read.
    """
    return TableFile(
        path=os.path.abspath(file.path),
        bytes=file.bytes,
        mtime_ns=file.mtime_ns,
        header=tuple((span.begin, span.end) for span in file.header),
        header_sha256=file.header_sha256,
        data=(file.data_begin, file.data_end),
        samples_sha256=_sampled(file.path, file.data_begin, file.data_end),
    )


def write_table(folder: Path, table: Table) -> None:
    """Put `table` into the component's folder."""
    (folder / IN_PLACE).write_bytes(msgspec.json.encode(table))


def read_in_place(folder: Path) -> InPlace:
    """The table in `folder` with its files.

    Raises:
        ModelUnusable: the table is damaged, or a file is gone or another than was imported; says which
            and how to import it again.
    """
    path = folder / IN_PLACE
    try:
        table = msgspec.json.decode(path.read_bytes(), type=Table)
    except OSError as error:
        raise ModelUnusable(f"{path} cannot be read: {error.strerror}; check its permissions") from error
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ModelUnusable(
            f"{path} is damaged ({error}); remove {folder.parent} and import it again"
        ) from error
    if table.format != IN_PLACE_FORMAT:
        raise ModelUnusable(
            f"{path} has format {table.format}, this build reads {IN_PLACE_FORMAT}; import it again: "
            f"{table.again}"
        )
    entries: list[dict[str, TensorEntry]] = [{} for _ in table.files]
    file_of: dict[str, Path] = {}
    for name, tensor in table.tensors.items():
        _check_tensor(path, name, tensor, table)
        entries[tensor.file][name] = TensorEntry(
            dtype=tensor.dtype, shape=tensor.shape, begin=tensor.begin, end=tensor.end
        )
        file_of[name] = Path(table.files[tensor.file].path)
    files = tuple(
        _look(folder, table, file, held) for file, held in zip(table.files, entries, strict=True) if held
    )
    if not files:
        raise ModelUnusable(f"{path} names no tensor; import it again: {table.again}")
    return InPlace(
        files=files,
        tensors=MappingProxyType({name: entry for held in entries for name, entry in held.items()}),
        file_of=MappingProxyType(file_of),
        sources=MappingProxyType({name: tensor.source for name, tensor in table.tensors.items()}),
        kept=table.kept,
        names=hashlib.sha256(
            msgspec.json.encode([table.kept, *((name, item) for name, item in sorted(table.tensors.items()))])
        ).hexdigest(),
    )


def stamps_in_place(folder: Path) -> list[tuple[str, int, int, int]]:
    """Path, inode, length and time of change of the files that the table in `folder` names.

    None where there is no table or it is damaged; a file that cannot be looked at has a stamp too.
    """
    path = folder / IN_PLACE
    try:
        info = path.stat()
    except (OSError, ValueError):
        return []
    found = []
    for file in _named(path, info.st_ino, info.st_size, info.st_mtime_ns):
        try:
            there = os.stat(file)
        except (OSError, ValueError):
            found.append((file, 0, -1, -1))
        else:
            found.append((file, there.st_ino, there.st_size, there.st_mtime_ns))
    return found


@lru_cache(maxsize=256)
def _named(path: Path, inode: int, size: int, mtime_ns: int) -> tuple[str, ...]:
    try:
        return tuple(file.path for file in msgspec.json.decode(path.read_bytes(), type=_Files).files)
    except (OSError, msgspec.MsgspecError, ValueError, RecursionError):
        return ()


def _check_tensor(path: Path, name: str, tensor: TableTensor, table: Table) -> None:
    dtype = DTYPES.get(tensor.dtype)
    if (
        dtype is None
        or not 0 <= tensor.file < len(table.files)
        or any(axis < 0 for axis in tensor.shape)
        or not 0 <= tensor.begin <= tensor.end <= table.files[tensor.file].bytes
        or tensor.end - tensor.begin != math.prod(tensor.shape) * dtype.bytes
    ):
        raise ModelUnusable(f"{path} is damaged: {name!r} cannot lie so; import it again: {table.again}")


def _look(folder: Path, table: Table, told: TableFile, tensors: Mapping[str, TensorEntry]) -> FileIndex:
    """The file that `told` names, if it is still the one that was imported."""
    path = Path(told.path)
    try:
        with open_weight_file(path) as file:
            change = _change(file, told)
    except ModelUnusable as error:
        if os.path.lexists(path):
            raise
        raise ModelUnusable(
            f"{path} is gone, which {folder.parent.name} uses where it lay; put it back, or import it again: "
            f"{table.again}"
        ) from error
    if change is not None:
        raise ModelUnusable(
            f"{path} is another file than the one that {folder.parent.name} was made of: {change}; import it "
            f"again: {table.again}"
        )
    return FileIndex(
        path=path,
        tensors=MappingProxyType(dict(sorted(tensors.items(), key=lambda item: item[1].begin))),
        metadata=MappingProxyType({}),
        bytes=file.num_bytes,
        inode=file.inode,
        mtime_ns=file.mtime_ns,
        header=tuple(Span(begin=begin, end=end) for begin, end in told.header),
        header_sha256=told.header_sha256,
    )


def _change(file: WeightFile, told: TableFile) -> str | None:
    """What is other in `file` than `told`; the time of change alone is nothing."""
    if file.num_bytes != told.bytes:
        return f"it has {file.num_bytes} bytes and had {told.bytes}"
    if file.sha256([Span(begin=begin, end=end) for begin, end in told.header]) != told.header_sha256:
        return "its header is another"
    if _sampled(file.path, *told.data) != told.samples_sha256:
        return "its weights are others"
    return None


def _sampled(path: Path, begin: int, end: int) -> str:
    digest = hashlib.sha256()
    for part in samples_of(path, begin, end):
        digest.update(part)
    return digest.hexdigest()
