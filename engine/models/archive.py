"""A zip file's table of contents: which record lies where, for records that are stored as they are.

Read by hand rather than by zipfile, which takes as much of a file of 60 GB for its table as the
file's last bytes say, and whose parse does not tell which bytes an index depends on.

Source: PKWARE APPNOTE 4.3.7 (local header), 4.3.12 (central directory), 4.3.14 to 4.3.16 (ends).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from engine.errors import ModelUnusable
from engine.models.weight_file import FETCH_AGAIN, HEADER_LIMIT, Span, UnsupportedFormat, WeightFile

LOCAL_MAGIC = b"PK\x03\x04"
_END_MAGIC, _END_64_MAGIC, _LOCATOR_MAGIC, _ENTRY_MAGIC = b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\1\2"
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_ENTRY = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_LOCATOR = struct.Struct("<4sIQI")
_END_64 = struct.Struct("<4sQHHIIQQQQ")
_COMMENT_LIMIT = 2**16 - 1
_IN_ZIP64 = 2**32 - 1
"""A 32-bit field that says: look for the 64-bit one."""
_ZIP64_ID = 1
_STORED = 0
_ENCRYPTED = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One file in the archive, as the table has it."""

    name: str
    header: int
    """Absolute offset of its local header."""
    bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Archive:
    """The table of contents of an open zip file."""

    file: WeightFile
    records: Mapping[str, Record]
    """By name."""
    table: Span
    """The central directory and all that follows it: what the records' places come from."""

    def span(self, record: Record) -> Span:
        """Where the bytes of `record` lie, by its local header.

        Raises:
            ModelUnusable: there is no such header, or it disagrees with the table.
        """
        # Only the local header tells its own length: torch pads it so that the bytes are aligned.
        name = record.name.encode()
        length = _LOCAL.size + len(name)
        if record.header + length <= self.table.begin:
            header = self.file.read(record.header, length)
            magic, _, flags, method, *_, name_length, extra_length = _LOCAL.unpack_from(header)
            begin = record.header + length + extra_length
            if (
                magic == LOCAL_MAGIC
                and method == _STORED
                and not flags & _ENCRYPTED
                and name_length == len(name)
                and header[_LOCAL.size :] == name
                and begin + record.bytes <= self.table.begin
            ):
                return Span(begin=begin, end=begin + record.bytes)
        raise ModelUnusable(
            f"{self.file.path} is damaged: its table of contents has {record.name!r} at byte "
            f"{record.header}, where it is not; {FETCH_AGAIN}"
        )


def read_archive(file: WeightFile) -> Archive:
    """The table of contents of the zip `file`.

    Raises:
        ModelUnusable: it is truncated or damaged.
        UnsupportedFormat: it holds a record that is compressed or encrypted.
    """
    table, count = _find_table(file)
    directory = file.read(table.begin, table.end - table.begin)
    records: dict[str, Record] = {}
    at = 0
    try:
        for _ in range(count):
            at, record = _read_entry(file, directory, at)
            if record.name in records:
                raise ValueError(f"{record.name!r} is there twice")
            records[record.name] = record
        if at != len(directory):
            raise ValueError("it is longer than its records")
    except (ValueError, struct.error) as error:
        raise ModelUnusable(
            f"{file.path} has a damaged table of contents ({error}); {FETCH_AGAIN}"
        ) from error
    return Archive(
        file=file, records=MappingProxyType(records), table=Span(begin=table.begin, end=file.num_bytes)
    )


def _find_table(file: WeightFile) -> tuple[Span, int]:
    """Where the central directory lies and how many entries it has."""
    size = file.num_bytes
    tail_begin = max(0, size - _END.size - _COMMENT_LIMIT)
    tail = file.read(tail_begin, size - tail_begin)
    at = tail.rfind(_END_MAGIC)
    if at < 0 or at + _END.size > len(tail):
        raise ModelUnusable(
            f"{file.path} is truncated: it has {size} bytes and no table of contents at its end; "
            f"{FETCH_AGAIN}"
        )
    _, disk, first_disk, _, count, length, begin, comment = _END.unpack_from(tail, at)
    end = tail_begin + at
    if end + _END.size + comment != size:
        raise ModelUnusable(
            f"{file.path} has {size} bytes where its table of contents ends at "
            f"{end + _END.size + comment}; {FETCH_AGAIN}"
        )
    if at >= _LOCATOR.size and tail.startswith(_LOCATOR_MAGIC, at - _LOCATOR.size):
        _, disk, end_64, _ = _LOCATOR.unpack_from(tail, at - _LOCATOR.size)
        if end_64 + _END_64.size > end - _LOCATOR.size:
            raise _damaged_end(file)
        magic, _, _, _, _, first_disk, _, count, length, begin = _END_64.unpack(
            file.read(end_64, _END_64.size)
        )
        if magic != _END_64_MAGIC:
            raise _damaged_end(file)
        end = end_64
    if disk or first_disk or begin + length != end or count * _ENTRY.size > length:
        raise _damaged_end(file)
    if length > HEADER_LIMIT:
        raise ModelUnusable(
            f"{file.path} has a table of contents of {length} bytes, which no model needs; {FETCH_AGAIN}"
        )
    return Span(begin=begin, end=end), count


def _read_entry(file: WeightFile, directory: bytes, at: int) -> tuple[int, Record]:
    """The entry at `at` of the central directory, and where the next one begins."""
    (
        magic, _, _, flags, method, _, _, _, stored, length, name_length, extra_length, comment_length,
        _, _, _, header,
    ) = _ENTRY.unpack_from(directory, at)  # fmt: skip
    if magic != _ENTRY_MAGIC:
        raise ValueError("a record is not where the one before it ends")
    name_begin = at + _ENTRY.size
    extra_begin = name_begin + name_length
    comment_begin = extra_begin + extra_length
    if comment_begin + comment_length > len(directory):
        raise ValueError("its last record is cut off")
    name = directory[name_begin:extra_begin].decode("utf-8")
    length, stored, header = _widen(directory[extra_begin:comment_begin], length, stored, header)
    if method != _STORED or flags & _ENCRYPTED:
        raise UnsupportedFormat(
            f"{file.path} holds {name!r} {'encrypted' if flags & _ENCRYPTED else 'compressed'}, and weights "
            "are read where they lie; save the model again with torch.save, or use its safetensors",
            title="encrypted zip" if flags & _ENCRYPTED else "compressed zip",
        )
    if stored != length:
        raise ValueError(f"{name!r} has two lengths")
    return comment_begin + comment_length, Record(name=name, header=header, bytes=length)


def _widen(extra: bytes, *fields: int) -> tuple[int, ...]:
    """`fields` with those that say so taken from the zip64 part of `extra`, in the order it has them."""
    if _IN_ZIP64 not in fields:
        return fields
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        at += 4
        if kind == _ZIP64_ID:
            part = extra[at : at + length]
            wide = iter(struct.unpack(f"<{len(part) // 8}Q", part[: len(part) // 8 * 8]))
            return tuple(next(wide, _IN_ZIP64) if field == _IN_ZIP64 else field for field in fields)
        at += length
    return fields


def _damaged_end(file: WeightFile) -> ModelUnusable:
    return ModelUnusable(
        f"{file.path} is damaged: what its end says of its table of contents is not so; {FETCH_AGAIN}"
    )
