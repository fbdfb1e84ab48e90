"""The headers of safetensors files: which tensor lies where, checked before anything maps a byte.

A safetensors file is 8 bytes of little-endian header length, a JSON header, then the tensors'
bytes without a gap. The header is read here rather than through the safetensors library, since
the daemon wants one sentence about a damaged file and no framework, and the worker wants
absolute file offsets to copy from.
"""

from __future__ import annotations

import hashlib
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import msgspec

from engine.errors import ModelUnusable
from engine.models.dtypes import DTYPES

HEADER_LIMIT = 100_000_000
"""Bytes; the safetensors library refuses longer headers too."""

SINGLE_FILES = ("diffusion_pytorch_model.safetensors", "model.safetensors")
"""The names under which diffusers and transformers save an unsharded component."""

FETCH_AGAIN = "fetch or convert the model again"

SAMPLES = 16
SAMPLE_BYTES = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorEntry:
    """One tensor of a file."""

    dtype: str
    """As the header spells it, such as `BF16`."""
    shape: tuple[int, ...]
    begin: int
    """Absolute offset in the file, not counted from the end of the header."""
    end: int

    @property
    def bytes(self) -> int:
        return self.end - self.begin


@dataclass(frozen=True, kw_only=True, slots=True)
class FileIndex:
    """One safetensors file whose header has been read and found right."""

    path: Path
    tensors: Mapping[str, TensorEntry]
    """By name, in the order in which they lie in the file."""
    metadata: Mapping[str, str]
    bytes: int
    """Length of the file."""
    data_begin: int
    """Absolute offset of the first tensor's first byte."""
    header_sha256: str = field(repr=False)

    @property
    def weights_bytes(self) -> int:
        """Bytes of all tensors: what they take when resident, without alignment."""
        return self.bytes - self.data_begin


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
    """Bytes of all tensors."""
    identity: str
    """`sha256:` of headers, lengths and samples of the weights. Equal for equal files wherever they
    lie; it tells two experts of one layout apart and never reads a whole file."""


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class _Shards(msgspec.Struct, frozen=True):
    weight_map: dict[str, str]


def read_index(path: Path) -> FileIndex:
    """The tensors of the safetensors file at `path`; reads its header and nothing else.

    Raises:
        ModelUnusable: the file is missing, unreadable, empty, truncated, too long, or its header
            does not describe it.
    """
    try:
        # A FIFO or a device under a weight file's name must not block whoever scans the folder.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(path, error) from error
    except ValueError as error:
        raise ModelUnusable(f"{str(path)!r} is no path of a weight file; {FETCH_AGAIN}") from error
    try:
        info = os.fstat(handle)
        if not stat.S_ISREG(info.st_mode):
            raise ModelUnusable(f"{path} is not a regular file; {FETCH_AGAIN}")
        size = info.st_size
        if size == 0:
            raise ModelUnusable(f"{path} is empty; {FETCH_AGAIN}")
        prefix = os.pread(handle, 9, 0)
        if len(prefix) < 9:
            raise ModelUnusable(
                f"{path} is truncated: it has {size} bytes, which is no whole header; {FETCH_AGAIN}"
            )
        length = int.from_bytes(prefix[:8], "little")
        if not 2 <= length <= HEADER_LIMIT or prefix[8:] != b"{":
            raise ModelUnusable(
                f"{path} is no safetensors file: it does not begin with a header; {FETCH_AGAIN}"
            )
        if 8 + length > size:
            raise ModelUnusable(
                f"{path} is truncated: it has {size} of at least {8 + length} bytes; {FETCH_AGAIN}"
            )
        header = _pread_all(handle, length, 8)
    except OSError as error:
        raise _unreadable(path, error) from error
    finally:
        os.close(handle)
    return _index_of(path, header, size)


def read_component_index(folder: Path) -> ComponentIndex:
    """The weight files of the component in `folder`, sharded or not, merged and checked.

    Raises:
        ModelUnusable: as `read_index`, or the folder has no weight file, a shard is missing, or
            the shards and their table disagree.
    """
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


def _index_of(path: Path, header: bytes, size: int) -> FileIndex:
    """Check `header` against a file of `size` bytes."""
    data_begin = 8 + len(header)
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
            raise ModelUnusable(
                f"{path} holds {name!r} as {tensor.dtype!r}, which this build cannot read; "
                f"convert the model to one of {', '.join(DTYPES)}"
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
        data_begin=data_begin,
        header_sha256=hashlib.sha256(header).hexdigest(),
    )


def _weight_files(folder: Path) -> tuple[list[str], dict[str, str]]:
    """Names of the weight files in `folder`, and of a sharded one the tensor table."""
    for name in SINGLE_FILES:
        if os.path.lexists(folder / name):
            return [name], {}
    tables = sorted(folder.glob("*.safetensors.index.json"))
    if not tables:
        raise ModelUnusable(f"{folder} has no weights ({' or '.join(SINGLE_FILES)}); {FETCH_AGAIN}")
    table = tables[0]
    try:
        weight_map = msgspec.json.decode(table.read_bytes(), type=_Shards).weight_map
    except OSError as error:
        raise _unreadable(table, error) from error
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


def _identity(files: tuple[FileIndex, ...]) -> str:
    """Two experts of one layout have equal headers and lengths, so bytes of the weights go in too."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.path.name} {file.bytes} {file.header_sha256}\n".encode())
        stride = max(1, file.weights_bytes // SAMPLES)
        try:
            with open(file.path, "rb", buffering=0) as handle:
                for sample in range(SAMPLES):
                    digest.update(os.pread(handle.fileno(), SAMPLE_BYTES, file.data_begin + sample * stride))
        except OSError as error:
            raise _unreadable(file.path, error) from error
    return f"sha256:{digest.hexdigest()}"


def _pread_all(handle: int, length: int, offset: int) -> bytes:
    parts: list[bytes] = []
    while length:
        part = os.pread(handle, length, offset)
        if not part:
            break
        parts.append(part)
        length -= len(part)
        offset += len(part)
    return b"".join(parts)


def _unreadable(path: Path, error: OSError) -> ModelUnusable:
    if isinstance(error, FileNotFoundError):
        return ModelUnusable(f"{path} is missing; {FETCH_AGAIN}")
    return ModelUnusable(f"{path} cannot be read: {error.strerror}; check its permissions and its disk")
