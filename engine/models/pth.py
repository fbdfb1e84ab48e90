"""The tensors of a checkpoint that torch.save wrote (`.pth`, `.bin`): which lies where.

Such a file is a zip whose records are stored as they are: `x/data.pkl` says which tensors there
are, and `x/data/0` and so on hold their bytes. So weights can be read where they lie, as those of
a safetensors file, but for tensors that are views with other strides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

from engine.errors import ModelUnusable
from engine.models.archive import LOCAL_MAGIC, Archive, read_archive
from engine.models.dtypes import DTYPES
from engine.models.pickles import PickledTensor, read_pickle
from engine.models.weight_file import (
    FETCH_AGAIN,
    HEADER_LIMIT,
    FileIndex,
    Span,
    TensorEntry,
    UnsupportedFormat,
    WeightFile,
)

PTH_ENDINGS = (".pth", ".bin", ".pt", ".ckpt")
WRAPPERS = ("state_dict", "model", "module")
"""Keys under which trainers put the weights of a whole checkpoint."""
SAVE_AGAIN = "save the model's state dict again with torch.save, or use its safetensors"

_PICKLE = "data.pkl"
_BEFORE_1_6 = b"\x80\x02\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little") + b"."
"""How such a file begins: a pickle of MAGIC_NUMBER in torch/serialization.py."""


def read_pth(file: WeightFile) -> FileIndex:
    """The tensors of the checkpoint `file`; reads its table, its pickle and its records' headers.

    Runs nothing of the pickle, see `pickles`. Tensors may share bytes.

    Raises:
        ModelUnusable: it is truncated or damaged.
        UnsupportedFormat: it is compressed, of torch's format before 1.6 or of another byte order, or
            holds anything but tensors that lie in it without strides.
    """
    path = file.path
    begin = file.read(0, min(file.num_bytes, len(_BEFORE_1_6)))
    if begin == _BEFORE_1_6:
        raise UnsupportedFormat(
            f"{path} has the format of torch before 1.6; {SAVE_AGAIN}", title="checkpoint of torch before 1.6"
        )
    if not begin.startswith(LOCAL_MAGIC):
        raise ModelUnusable(
            f"{path} is no zip as torch.save writes it since torch 1.6; {SAVE_AGAIN}, or fetch it again"
        )
    archive = read_archive(file)
    pickles = [name for name in archive.records if name.rpartition("/")[2] == _PICKLE]
    if len(pickles) != 1:
        raise ModelUnusable(
            f"{path} holds {len(pickles)} records called {_PICKLE} where a checkpoint has one; {FETCH_AGAIN}"
        )
    prefix = pickles[0].removesuffix(_PICKLE)
    _check_byte_order(archive, prefix)
    pickle = archive.span(archive.records[pickles[0]])
    if pickle.end - pickle.begin > HEADER_LIMIT:
        raise ModelUnusable(
            f"{path} has a pickle of {pickle.end - pickle.begin} bytes, which no model needs; {FETCH_AGAIN}"
        )
    content = read_pickle(path, file.read(pickle.begin, pickle.end - pickle.begin))
    entries = _entries(archive, prefix, _state_dict(file, content))
    header = (pickle, archive.table)
    return FileIndex(
        path=path,
        tensors=MappingProxyType(
            dict(sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)))
        ),
        metadata=MappingProxyType({}),
        bytes=file.num_bytes,
        inode=file.inode,
        mtime_ns=file.mtime_ns,
        header=header,
        header_sha256=file.sha256(header),
    )


def _check_byte_order(archive: Archive, prefix: str) -> None:
    record = archive.records.get(f"{prefix}byteorder")
    if record is None:  # before torch 2.1
        return
    span = archive.span(record)
    order = archive.file.read(span.begin, min(record.bytes, 16))
    if order != b"little":
        raise UnsupportedFormat(
            f"{archive.file.path} has the byte order {order.decode('ascii', 'replace')!r} and this machine's "
            f"is 'little'; {SAVE_AGAIN}",
            title="another byte order",
        )


def _state_dict(file: WeightFile, content: object) -> dict[str, PickledTensor]:
    """The one table of tensors in `content`, at its top or under one of `WRAPPERS`."""
    if not isinstance(content, dict):
        raise UnsupportedFormat(f"{file.path} holds no table of tensors; {SAVE_AGAIN}", title="no state dict")
    wrapped = {key: value for key in WRAPPERS if isinstance(value := content.get(key), dict)}
    if len(wrapped) > 1:
        raise UnsupportedFormat(
            f"{file.path} holds weights as {' and as '.join(map(repr, wrapped))}, and it is unclear which "
            f"are meant; {SAVE_AGAIN}",
            title="several state dicts",
        )
    for key, weights in wrapped.items():
        _tensors(file, {name: value for name, value in content.items() if name != key}, allowed=False)
        content = weights
    tensors = _tensors(file, content, allowed=True)
    if not tensors:
        raise ModelUnusable(f"{file.path} holds no tensor; {FETCH_AGAIN}")
    return tensors


def _tensors(file: WeightFile, table: Mapping[object, object], *, allowed: bool) -> dict[str, PickledTensor]:
    """The tensors of `table`, which may hold them only where they are `allowed`."""
    tensors: dict[str, PickledTensor] = {}
    for name, value in table.items():
        if isinstance(value, PickledTensor) and allowed and isinstance(name, str):
            tensors[name] = value
        elif not _is_metadata(value):
            # A tensor dropped in silence would be a wrong video without an error.
            raise UnsupportedFormat(
                f"{file.path} holds {name!r} beside the weights, which is neither a tensor of theirs nor "
                f"metadata; {SAVE_AGAIN}",
                title="nested state dict",
            )
    return tensors


def _is_metadata(value: object) -> bool:
    """Whether there is only text, numbers and None in it, however deep."""
    pending = [value]
    # A container that is in many places, or in itself, is looked at once.
    seen: set[int] = set()
    while pending:
        item = pending.pop()
        if isinstance(item, dict | list | tuple):
            if id(item) not in seen:
                seen.add(id(item))
                pending.extend(item.values() if isinstance(item, dict) else item)
        elif not isinstance(item, str | int | float | None):
            return False
    return True


def _entries(archive: Archive, prefix: str, tensors: Mapping[str, PickledTensor]) -> dict[str, TensorEntry]:
    spans: dict[str, Span] = {}
    entries: dict[str, TensorEntry] = {}
    for name, tensor in tensors.items():
        key = tensor.storage.key
        if key not in spans:
            record = archive.records.get(f"{prefix}data/{key}")
            if record is None:
                raise ModelUnusable(
                    f"{archive.file.path} lacks the record {key!r} of its tensor {name!r}; {FETCH_AGAIN}"
                )
            spans[key] = archive.span(record)
        entries[name] = _entry(archive.file, name, tensor, spans[key])
    return entries


def _entry(file: WeightFile, name: str, tensor: PickledTensor, record: Span) -> TensorEntry:
    """The place of `tensor` in the file, whose storage is `record`."""
    if not _is_contiguous(tensor):
        raise UnsupportedFormat(
            f"{file.path} holds {name!r} of shape {tensor.shape} with the strides {tensor.stride}, and "
            f"weights are read as they lie; make it contiguous and {SAVE_AGAIN}",
            title="tensors with strides",
        )
    width = DTYPES[tensor.dtype].bytes
    begin = record.begin + tensor.offset * width
    end = begin + math.prod(tensor.shape) * width
    storage = tensor.storage
    described = storage.count * (1 if storage.dtype is None else DTYPES[storage.dtype].bytes)
    if end > record.begin + described or end > record.end:
        raise ModelUnusable(
            f"{file.path} is damaged: its tensor {name!r} lies at {begin} to {end} and its record "
            f"at {record.begin} to {min(record.end, record.begin + described)}; {FETCH_AGAIN}"
        )
    return TensorEntry(dtype=tensor.dtype, shape=tensor.shape, begin=begin, end=end)


def _is_contiguous(tensor: PickledTensor) -> bool:
    """Whether its elements lie one after another; strides of axes of one or no element say nothing."""
    if 0 in tensor.shape:
        return True
    step = 1
    for axis, stride in zip(reversed(tensor.shape), reversed(tensor.stride), strict=True):
        if axis != 1 and stride != step:
            return False
        step *= axis
    return True
