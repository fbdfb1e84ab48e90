"""A recording's file: a header with the version, then frames, each whole in itself.

    header   6 bytes `TTREC\\n`, u16 version
    frame    u32 length, u32 crc32, u8 tier, 3 bytes 0, i64 first ms, i64 last ms, then the payload

Little-endian. The checksum covers the frame from its tier on, so that a frame that was cut off or
changed is never believed. A payload is zlib over msgpack. Frames carry their tier and their time,
so that a reader passes over what it was not asked for without unpacking it, and an exported file
is frames of any tiers one after the other.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

MAGIC = b"TTREC\n"
VERSION = 1
HEADER = MAGIC + struct.pack("<H", VERSION)
MAX_PAYLOAD_BYTES = 8 * 2**20
"""Of one frame; ours have a few hundred. A longer one is damage."""
MAX_UNPACKED_BYTES = 64 * 2**20
"""A copied file comes from anybody: what unpacks to more than this is not unpacked."""
SUFFIX = ".ttrec"
LAST_MS = 4_102_444_800_000
"""The year 2100; a moment after it, or before 1970, is damage."""

_FRAME = struct.Struct("<IIBxxxqq")
_CHECKED_FROM = 8


class UnknownFormat(ValueError):
    """The file is no recording, or one of a version that this build does not read."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One block as it lies in the file."""

    tier: int
    first_ms: int
    last_ms: int
    packed: bytes
    """The whole frame, as it can be written to another file."""

    def payload(self) -> bytes:
        """What was packed.

        Raises:
            ValueError: it is damaged, or unpacks to more than MAX_UNPACKED_BYTES.
        """
        unpacker = zlib.decompressobj()
        try:
            data = unpacker.decompress(memoryview(self.packed)[_FRAME.size :], MAX_UNPACKED_BYTES)
        except zlib.error as error:
            raise ValueError(f"a block does not unpack: {error}") from error
        if not unpacker.eof:
            raise ValueError("a block is not whole, or too large to be one of ours")
        return data


def pack_frame(tier: int, first_ms: int, last_ms: int, payload: bytes) -> bytes:
    """A frame for `payload`, which covers `first_ms` to `last_ms` since the epoch."""
    data = zlib.compress(payload, 6)
    head = _FRAME.pack(len(data), 0, tier, first_ms, last_ms)
    checksum = zlib.crc32(data, zlib.crc32(head[_CHECKED_FROM:]))
    return _FRAME.pack(len(data), checksum, tier, first_ms, last_ms) + data


def read_frames(
    file: BinaryIO,
    *,
    first_ms: int | None = None,
    last_ms: int | None = None,
    tiers: frozenset[int] | None = None,
) -> Iterator[Frame]:
    """The frames of a file that touch `first_ms` to `last_ms`, up to its end or its first damage.

    Raises:
        UnknownFormat: at once, if the file does not begin as one that this build reads.
    """
    header = file.read(len(HEADER))
    if header[: len(MAGIC)] != MAGIC[: len(header)]:
        raise UnknownFormat("it is no recording of turbotui")
    if len(header) < len(HEADER):
        return
    (version,) = struct.unpack("<H", header[len(MAGIC) :])
    if version != VERSION:
        raise UnknownFormat(f"it is written in format {version}; this build reads {VERSION}")
    while len(head := file.read(_FRAME.size)) == _FRAME.size:
        length, checksum, tier, first, last = _FRAME.unpack(head)
        if length > MAX_PAYLOAD_BYTES:
            return
        data = file.read(length)
        if len(data) < length or zlib.crc32(data, zlib.crc32(head[_CHECKED_FROM:])) != checksum:
            return
        if not 0 <= first <= last + 1000 <= LAST_MS:
            continue
        late = last_ms is not None and first > last_ms
        early = first_ms is not None and last < first_ms
        if not (late or early) and (tiers is None or tier in tiers):
            yield Frame(tier, first, last, head + data)
