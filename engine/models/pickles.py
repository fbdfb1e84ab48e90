"""The pickles that torch.save writes of weights, read as data: a machine that calls nothing.

pickle.Unpickler will not do, however few names it is let find: nine bytes that put something
into its memo at 2**31 make it ask for more than 4 GiB, and a deep tuple as a key of a dictionary
ends the process with SIGSEGV (both tried with Python 3.11). Here a name is a mark on the stack that only
REDUCE knows to read, keys are plain, the memo is a dictionary, and the work has a bound.

Source: the opcodes are those of protocol 2 that torch/_weights_only_unpickler.py accepts.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

from engine.errors import ModelUnusable
from engine.models.dtypes import DTYPES
from engine.models.weight_file import FETCH_AGAIN, UnsupportedFormat

OPERATION_LIMIT = 2_000_000
"""Operations of one pickle; about 30 are spent on a tensor. Bounds time and memory."""
DEPTH_LIMIT = 100
"""Marks that are open at once; a state dict needs four."""
RANK_LIMIT = 64
"""Axes of a tensor, as in torch."""
NUMBER_LIMIT = 2**63
"""Sizes, strides and offsets lie below; torch keeps them in 64 bits."""
SHOWN_NAME = 80
"""Characters of a foreign name that a sentence repeats."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Storage:
    """A record of bytes that tensors lie in."""

    key: str
    dtype: str | None
    """As a safetensors header spells it; None where each tensor says it."""
    count: int
    """Elements, or bytes where there is no dtype."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PickledTensor:
    """A view into a storage; not yet checked against it."""

    storage: Storage
    dtype: str
    """As a safetensors header spells it."""
    offset: int
    """Elements from the beginning of the storage."""
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    """Elements."""


class _Call(Enum):
    """What a pickle may ask to be made."""

    TENSOR = auto()
    TENSOR_WITH_DTYPE = auto()
    PARAMETER = auto()
    ORDERED_DICT = auto()


@dataclass(frozen=True, slots=True)
class _StorageType:
    dtype: str | None


@dataclass(frozen=True, slots=True)
class _DtypeName:
    dtype: str


_STORAGES = {
    "BoolStorage": "BOOL",
    "ByteStorage": "U8",
    "CharStorage": "I8",
    "ShortStorage": "I16",
    "IntStorage": "I32",
    "LongStorage": "I64",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "FloatStorage": "F32",
    "DoubleStorage": "F64",
    "UntypedStorage": None,
}
_GLOBALS: Mapping[str, object] = MappingProxyType(
    {
        "torch._utils._rebuild_tensor_v2": _Call.TENSOR,
        # For formats younger than typed storages, such as float8.
        "torch._utils._rebuild_tensor_v3": _Call.TENSOR_WITH_DTYPE,
        "torch._utils._rebuild_parameter": _Call.PARAMETER,
        "collections.OrderedDict": _Call.ORDERED_DICT,
        "torch.storage.UntypedStorage": _StorageType(None),
        **{f"torch.{name}": _StorageType(dtype) for name, dtype in _STORAGES.items()},
        **{f"torch.{dtype.name}": _DtypeName(spelling) for spelling, dtype in DTYPES.items()},
    }
)
"""Every name that a pickle may ask for, and what stands for it here."""


def read_pickle(path: Path, data: bytes) -> object:
    """What the pickle `data` of the file at `path` describes.

    Dictionaries, lists, tuples, text, numbers and None, with a `PickledTensor` for each tensor.
    One thing may be in several places, and containers may nest without end.

    Raises:
        ModelUnusable: it is damaged or beyond a limit.
        UnsupportedFormat: it asks for a name that is none of a tensor's.
    """
    return _Machine(path, data).run()


class _Damaged(ValueError):
    """Such a pickle was never written."""


class _Machine:
    """One run over one pickle."""

    def __init__(self, path: Path, data: bytes) -> None:
        self._path = path
        self._data = data
        self._at = 0
        self._stack: list[object] = []
        self._below: list[list[object]] = []
        """The stacks beneath each open mark."""
        self._memo: dict[int, object] = {}

    def run(self) -> object:
        try:
            for _ in range(OPERATION_LIMIT):
                code = self._byte()
                if code == _STOP:
                    if self._below or len(self._stack) != 1:
                        raise _Damaged("it ends in the middle")
                    return self._stack[0]
                operation = _OPERATIONS.get(code)
                if operation is None:
                    raise _Damaged(f"it uses opcode {code:#04x} at byte {self._at - 1}")
                operation(self)
        except (ValueError, LookupError) as error:
            said = "it takes what is not there" if isinstance(error, LookupError) else str(error)
            raise ModelUnusable(
                f"{self._path} has a damaged pickle, or one that this build cannot read ({said}); "
                f"{FETCH_AGAIN}"
            ) from error
        raise ModelUnusable(
            f"{self._path} has a pickle of more than {OPERATION_LIMIT} operations, which no model needs; "
            f"{FETCH_AGAIN}"
        )

    # ------------------------------------------------------------------ what follows an opcode

    def _take(self, length: int) -> bytes:
        end = self._at + length
        if end > len(self._data):
            raise _Damaged("it is truncated")
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def _byte(self) -> int:
        return self._take(1)[0]

    def _count(self) -> int:
        return int.from_bytes(self._take(4), "little")

    def _line(self) -> str:
        end = self._data.find(b"\n", self._at)
        if end < 0:
            raise _Damaged("it is truncated")
        line = self._take(end - self._at).decode("ascii")
        self._at += 1
        return line

    # ------------------------------------------------------------------ operations

    def protocol(self) -> None:
        version = self._byte()
        if version != 2:
            raise _Damaged(f"it is of protocol {version} and torch.save writes 2")

    def push(self, value: object) -> None:
        self._stack.append(value)

    def push_byte(self) -> None:
        self._stack.append(self._byte())

    def push_short(self) -> None:
        self._stack.append(int.from_bytes(self._take(2), "little"))

    def push_int(self) -> None:
        self._stack.append(int.from_bytes(self._take(4), "little", signed=True))

    def push_long(self) -> None:
        self._stack.append(int.from_bytes(self._take(self._byte()), "little", signed=True))

    def push_float(self) -> None:
        self._stack.append(struct.unpack(">d", self._take(8))[0])

    def push_text(self) -> None:
        self._stack.append(self._take(self._count()).decode("utf-8"))

    def push_dict(self) -> None:
        self._stack.append({})

    def push_list(self) -> None:
        self._stack.append([])

    def push_global(self) -> None:
        name = f"{self._line()}.{self._line()}"
        known = _GLOBALS.get(name)
        if known is None:
            shown = name if len(name) <= SHOWN_NAME else name[: SHOWN_NAME - 1] + "…"
            raise UnsupportedFormat(
                f"{self._path} asks for {shown!r}, which is no part of a plain tensor and is never run here; "
                "use the model's safetensors, or save its state dict alone",
                title="pickle with code",
            )
        self._stack.append(known)

    def mark(self) -> None:
        if len(self._below) >= DEPTH_LIMIT:
            raise _Damaged(f"it nests more than {DEPTH_LIMIT} deep")
        self._below.append(self._stack)
        self._stack = []

    def _above_mark(self) -> list[object]:
        items = self._stack
        self._stack = self._below.pop()
        return items

    def tuple_above_mark(self) -> None:
        items = self._above_mark()
        self._stack.append(tuple(items))

    def tuple_of(self, length: int) -> None:
        if len(self._stack) < length:
            raise _Damaged("it takes what is not there")
        items = tuple(self._stack[-length:])
        del self._stack[-length:]
        self._stack.append(items)

    def append(self) -> None:
        item = self._stack.pop()
        self._extend([item])

    def append_above_mark(self) -> None:
        self._extend(self._above_mark())

    def _extend(self, items: list[object]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list):
            raise _Damaged("it appends to what is no list")
        target.extend(items)

    def set_item(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._update([key, value])

    def set_items_above_mark(self) -> None:
        self._update(self._above_mark())

    def _update(self, items: list[object]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise _Damaged("it sets items of what is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # A tuple's hash recurses in C without a bound.
            if not isinstance(key, str | int | float | None):
                raise _Damaged("it has a dictionary with a key that is neither text nor number")
            target[key] = value

    def build(self) -> None:
        """Attributes of an ordered dictionary: `_metadata`, where torch keeps versions of modules."""
        state = self._stack.pop()
        if not isinstance(state, dict) or not isinstance(self._stack[-1], dict):
            raise _Damaged("it gives a state to what has none")

    def get(self) -> None:
        self._stack.append(self._memo[self._byte()])

    def get_far(self) -> None:
        self._stack.append(self._memo[self._count()])

    def put(self) -> None:
        self._memo[self._byte()] = self._stack[-1]

    def put_far(self) -> None:
        self._memo[self._count()] = self._stack[-1]

    def storage(self) -> None:
        match self._stack.pop():
            case ("storage", _StorageType(dtype), str(key), str(), count):
                self._stack.append(Storage(key=key, dtype=dtype, count=_number(count)))
            case _:
                raise _Damaged("it refers to what is no storage")

    def reduce(self) -> None:
        arguments, call = self._stack.pop(), self._stack.pop()
        match call, arguments:
            case _Call.ORDERED_DICT, ():
                self._stack.append({})
            case _Call.PARAMETER, (PickledTensor() as tensor, bool(), dict()):
                self._stack.append(tensor)
            case _Call.TENSOR, (Storage() as storage, offset, shape, stride, bool(), dict(), *flags):
                self._stack.append(_tensor(storage, storage.dtype or "U8", offset, shape, stride, flags))
            case (
                _Call.TENSOR_WITH_DTYPE,
                (Storage() as storage, offset, shape, stride, bool(), dict(), _DtypeName(dtype), *flags),
            ):
                if storage.dtype is not None:
                    raise _Damaged("it gives a tensor two dtypes")
                self._stack.append(_tensor(storage, dtype, offset, shape, stride, flags))
            case _:
                raise _Damaged("it makes a tensor of what is none")


def _tensor(
    storage: Storage, dtype: str, offset: object, shape: object, stride: object, flags: list[object]
) -> PickledTensor:
    # A set conjugate or negative bit means that the bytes are not the values.
    if any(flag != {} for flag in flags):
        raise _Damaged("it has a tensor whose values are computed from its bytes")
    tensor = PickledTensor(
        storage=storage,
        dtype=dtype,
        offset=_number(offset),
        shape=_numbers(shape),
        stride=_numbers(stride),
    )
    if len(tensor.shape) != len(tensor.stride):
        raise _Damaged("it has a tensor with more axes than strides")
    return tensor


def _numbers(value: object) -> tuple[int, ...]:
    if not isinstance(value, tuple) or len(value) > RANK_LIMIT:
        raise _Damaged("it has a tensor without a shape")
    return tuple(_number(item) for item in value)


def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value < NUMBER_LIMIT:
        raise _Damaged("it has a tensor of impossible size")
    return value


_Operation: TypeAlias = Callable[[_Machine], None]
_STOP = ord(".")
_OPERATIONS: Mapping[int, _Operation] = MappingProxyType(
    {
        0x80: _Machine.protocol,
        0x85: partial(_Machine.tuple_of, length=1),
        0x86: partial(_Machine.tuple_of, length=2),
        0x87: partial(_Machine.tuple_of, length=3),
        0x88: partial(_Machine.push, value=True),
        0x89: partial(_Machine.push, value=False),
        0x8A: _Machine.push_long,
        ord("N"): partial(_Machine.push, value=None),
        ord("K"): _Machine.push_byte,
        ord("M"): _Machine.push_short,
        ord("J"): _Machine.push_int,
        ord("G"): _Machine.push_float,
        ord("X"): _Machine.push_text,
        ord("}"): _Machine.push_dict,
        ord("]"): _Machine.push_list,
        ord(")"): partial(_Machine.push, value=()),
        ord("c"): _Machine.push_global,
        ord("("): _Machine.mark,
        ord("t"): _Machine.tuple_above_mark,
        ord("a"): _Machine.append,
        ord("e"): _Machine.append_above_mark,
        ord("s"): _Machine.set_item,
        ord("u"): _Machine.set_items_above_mark,
        ord("b"): _Machine.build,
        ord("h"): _Machine.get,
        ord("j"): _Machine.get_far,
        ord("q"): _Machine.put,
        ord("r"): _Machine.put_far,
        ord("Q"): _Machine.storage,
        ord("R"): _Machine.reduce,
    }
)
