"""The number formats that a weight file may hold, by the names of its header.

The one table of them: how many bytes an element takes, what torch calls the format, and whether
it may be converted when it is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, kw_only=True, slots=True)
class Dtype:
    """One number format."""

    name: str
    """As torch spells it."""
    bytes: int
    """Of one element."""
    floating: bool


def _dtype(name: str, num_bytes: int, *, floating: bool = False) -> Dtype:
    return Dtype(name=name, bytes=num_bytes, floating=floating)


DTYPES: Mapping[str, Dtype] = MappingProxyType(
    {
        "BOOL": _dtype("bool", 1),
        "U8": _dtype("uint8", 1),
        "I8": _dtype("int8", 1),
        "F8_E4M3": _dtype("float8_e4m3fn", 1, floating=True),
        "F8_E5M2": _dtype("float8_e5m2", 1, floating=True),
        "U16": _dtype("uint16", 2),
        "I16": _dtype("int16", 2),
        "F16": _dtype("float16", 2, floating=True),
        "BF16": _dtype("bfloat16", 2, floating=True),
        "U32": _dtype("uint32", 4),
        "I32": _dtype("int32", 4),
        "F32": _dtype("float32", 4, floating=True),
        "U64": _dtype("uint64", 8),
        "I64": _dtype("int64", 8),
        "F64": _dtype("float64", 8, floating=True),
    }
)
"""By the header's spelling."""
BYTES_BY_NAME: Mapping[str, int] = MappingProxyType({dtype.name: dtype.bytes for dtype in DTYPES.values()})
"""Bytes of one element by torch's spelling."""
