"""Which tensor lies where in a component's files, checked before anything reads a weight.

A safetensors file is 8 bytes of little-endian header length, a JSON header, then the tensors'
bytes without a gap. The header is read here rather than through the safetensors library, since
the daemon wants one sentence about a damaged file and no framework, and the worker wants
absolute file offsets to copy from. Checkpoints of torch.save are read by `pth`.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import msgspec

from engine.errors import ModelUnusable
from engine.models.dtypes import DTYPES
from engine.models.in_place import IN_PLACE, read_in_place
from engine.models.pth import PTH_ENDINGS, read_pth
from engine.models.weight_file import (
    FETCH_AGAIN,
    HEADER_LIMIT,
    FileIndex,
    Span,
    TensorEntry,
    UnsupportedFormat,
    WeightFile,
    open_weight_file,
    samples_of,
    unreadable,
)

__all__ = [
    "FETCH_AGAIN",
    "HEADER_LIMIT",
    "ComponentIndex",
    "FileIndex",
    "TensorEntry",
    "check_unchanged",
    "read_component_index",
    "read_index",
]

SINGLE_FILES = ("diffusion_pytorch_model.safetensors", "model.safetensors")
"""The names under which diffusers and transformers save an unsharded component."""
SINGLE_PTH_FILES = tuple(
    name + ending for name in ("diffusion_pytorch_model", "pytorch_model") for ending in (".bin", ".pth")
)
"""The names of one in torch's own format; looked for where there are no safetensors."""
TABLES = ".safetensors.index.json"
PTH_TABLES = ".bin.index.json"
"""Endings of the tables of sharded components."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ComponentIndex:
    """All weight files of one component, as one table."""

    folder: Path
    files: tuple[FileIndex, ...]
    """In the order of their names."""
    tensors: Mapping[str, TensorEntry]
    """Of all files; offsets are those of the tensor's own file, see `file_of`."""
    file_of: Mapping[str, Path]
    """Tensor name to the file that it lies in."""
    bytes: int
    """Bytes of all tensors, tied ones once."""
    identity: str
    """`sha256:` of headers, lengths and samples of the weights. Equal for equal files wherever they
    lie; it tells two experts of one layout apart and never reads a whole file."""
    kept: str | None = None
    """The number format in which the weights are kept whatever their files have; None for theirs."""


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class _Shards(msgspec.Struct, frozen=True):
    weight_map: dict[str, str]


def read_index(path: Path) -> FileIndex:
    """The tensors of the weight file at `path`, by its ending; reads what describes them and no weight.

    Raises:
        ModelUnusable: the file is missing, unreadable, empty, truncated, too long, or its header
            does not describe it; see also `read_pth`.
    """
    with open_weight_file(path) as file:
        if file.num_bytes == 0:
            raise ModelUnusable(f"{path} is empty; {FETCH_AGAIN}")
        return read_pth(file) if path.suffix in PTH_ENDINGS else _read_safetensors(file)


def read_component_index(folder: Path) -> ComponentIndex:
    """The weight files of the component in `folder`, sharded or not, merged and checked.

    Or those elsewhere that its table names, see `in_place`.

    Raises:
        ModelUnusable: as `read_index`, or the folder has no weight file, a shard is missing, or
            the shards and their table disagree.
    """
    if os.path.lexists(folder / IN_PLACE):
        return _component_in_place(folder)
    names, weight_map = _weight_files(folder)
    files = tuple(read_index(folder / name) for name in names)
    tensors: dict[str, TensorEntry] = {}
    file_of: dict[str, Path] = {}
    for file in files:
        for name, entry in file.tensors.items():
            if name in tensors:
                raise ModelUnusable(
                    f"{file.path} holds {name!r}, which {file_of[name].name} holds too; {FETCH_AGAIN}"
                )
            tensors[name] = entry
            file_of[name] = file.path
    for name, shard in weight_map.items():
        if name not in tensors or file_of[name].name != shard:
            raise ModelUnusable(f"{folder / shard} lacks the tensor {name!r} of its table; {FETCH_AGAIN}")
    return ComponentIndex(
        folder=folder,
        files=files,
        tensors=MappingProxyType(tensors),
        file_of=MappingProxyType(file_of),
        bytes=sum(file.weights_bytes for file in files),
        identity=_identity(files),
    )


def _component_in_place(folder: Path) -> ComponentIndex:
    found = read_in_place(folder)
    return ComponentIndex(
        folder=folder,
        files=found.files,
        tensors=found.tensors,
        file_of=found.file_of,
        bytes=sum(file.weights_bytes for file in found.files),
        identity=_identity(found.files, found.names),
        kept=found.kept,
    )


def check_unchanged(file: FileIndex) -> None:
    """Refuse a file that is no longer the one that `file` was read from.

    Reads what `file.header` spans, and no weight: 0.12 ms for a header of 170 kB, measured.

    Raises:
        ModelUnusable: it is gone, cannot be read, or its inode, length, time of change or header
            are others; says which.
    """
    with open_weight_file(file.path) as now:
        changes = []
        if now.inode != file.inode:
            changes.append("it is another file under the same name")
        if now.num_bytes != file.bytes:
            changes.append(f"it has {now.num_bytes} bytes and had {file.bytes}")
        if now.mtime_ns != file.mtime_ns:
            changes.append("it was written to")
        if changes:
            raise ModelUnusable(
                f"{file.path} changed since the model was opened: {', '.join(changes)}; "
                "the model is read anew on its next use"
            )
        if now.sha256(file.header) != file.header_sha256:
            # Nothing that a later look at the folder compares has changed, so it would not be read anew.
            raise ModelUnusable(
                f"{file.path} has another header than when the model was opened, though it was never "
                f"written to; {FETCH_AGAIN}"
            )


def _read_safetensors(file: WeightFile) -> FileIndex:
    path, size = file.path, file.num_bytes
    prefix = file.read(0, min(size, 9))
    if len(prefix) < 9:
        raise ModelUnusable(
            f"{path} is truncated: it has {size} bytes, which is no whole header; {FETCH_AGAIN}"
        )
    length = int.from_bytes(prefix[:8], "little")
    if not 2 <= length <= HEADER_LIMIT or prefix[8:] != b"{":
        raise ModelUnusable(f"{path} is no safetensors file: it does not begin with a header; {FETCH_AGAIN}")
    data_begin = 8 + length
    if data_begin > size:
        raise ModelUnusable(
            f"{path} is truncated: it has {size} of at least {data_begin} bytes; {FETCH_AGAIN}"
        )
    header = file.read(8, length)
    metadata: dict[str, str] = {}
    tensors: dict[str, TensorEntry] = {}
    try:
        for name, raw in msgspec.json.decode(header, type=dict[str, msgspec.Raw]).items():
            if name == "__metadata__":
                metadata = msgspec.json.decode(raw, type=dict[str, str])
                continue
            entry = msgspec.json.decode(raw, type=_Entry)
            begin, end = entry.data_offsets
            tensors[name] = TensorEntry(
                dtype=entry.dtype, shape=entry.shape, begin=data_begin + begin, end=data_begin + end
            )
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ModelUnusable(f"{path} has a damaged header ({error}); {FETCH_AGAIN}") from error
    expected = data_begin
    ordered = dict(sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)))
    for name, tensor in ordered.items():
        dtype = DTYPES.get(tensor.dtype)
        if dtype is None:
            raise UnsupportedFormat(
                f"{path} holds {name!r} as {tensor.dtype!r}, which this build cannot read; "
                f"convert the model to one of {', '.join(DTYPES)}",
                title="numbers of another format",
            )
        if any(axis < 0 for axis in tensor.shape):
            raise ModelUnusable(
                f"{path} has a damaged header: {name!r} has shape {tensor.shape}; {FETCH_AGAIN}"
            )
        if tensor.begin != expected or tensor.end < tensor.begin:
            raise ModelUnusable(
                f"{path} has a damaged header: {name!r} lies at {tensor.begin} to {tensor.end} "
                f"where byte {expected} comes next; {FETCH_AGAIN}"
            )
        if tensor.bytes != math.prod(tensor.shape) * dtype.bytes:
            raise ModelUnusable(
                f"{path} has a damaged header: {name!r} of shape {tensor.shape} and {tensor.dtype} "
                f"cannot have {tensor.bytes} bytes; {FETCH_AGAIN}"
            )
        expected = tensor.end
    if expected > size:
        raise ModelUnusable(f"{path} is truncated: it has {size} of {expected} bytes; {FETCH_AGAIN}")
    if expected < size:
        raise ModelUnusable(f"{path} has {size} bytes where its header describes {expected}; {FETCH_AGAIN}")
    if not ordered:
        raise ModelUnusable(f"{path} holds no tensor; {FETCH_AGAIN}")
    return FileIndex(
        path=path,
        tensors=MappingProxyType(ordered),
        metadata=MappingProxyType(metadata),
        bytes=size,
        inode=file.inode,
        mtime_ns=file.mtime_ns,
        header=(Span(begin=8, end=data_begin),),
        header_sha256=hashlib.sha256(header).hexdigest(),
    )


def _weight_files(folder: Path) -> tuple[list[str], dict[str, str]]:
    """Names of the weight files in `folder`, and of a sharded one the tensor table."""
    for singles, ending in ((SINGLE_FILES, TABLES), (SINGLE_PTH_FILES, PTH_TABLES)):
        for name in singles:
            if os.path.lexists(folder / name):
                return [name], {}
        tables = sorted(folder.glob(f"*{ending}"))
        if tables:
            return read_table(tables[0])
    raise ModelUnusable(
        f"{folder} has no weights ({' or '.join((*SINGLE_FILES, *SINGLE_PTH_FILES))}); {FETCH_AGAIN}"
    )


def read_table(table: Path) -> tuple[list[str], dict[str, str]]:
    """Names of the shards that `table` lists, and its tensor table."""
    try:
        weight_map = msgspec.json.decode(table.read_bytes(), type=_Shards).weight_map
    except OSError as error:
        raise unreadable(table, error) from error
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ModelUnusable(f"{table} is damaged ({error}); {FETCH_AGAIN}") from error
    names = sorted(set(weight_map.values()))
    if not names:
        raise ModelUnusable(f"{table} names no weight file; {FETCH_AGAIN}")
    for name in names:
        # A table from the network must not lead out of its own folder.
        if "/" in name or name in ("", ".", "..") or "\0" in name:
            raise ModelUnusable(f"{table} names {name!r}, which is no file beside it; {FETCH_AGAIN}")
    return names, weight_map


def _identity(files: tuple[FileIndex, ...], names: str = "") -> str:
    """Two experts of one layout have equal headers and lengths, so bytes of the weights go in too."""
    digest = hashlib.sha256(names.encode())
    for file in files:
        digest.update(f"{file.path.name} {file.bytes} {file.header_sha256}\n".encode())
        for sample in samples_of(file.path, file.data_begin, file.data_end):
            digest.update(sample)
    return f"sha256:{digest.hexdigest()}"
