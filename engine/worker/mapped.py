"""One weight file as the warm tier sees it: a read-only mapping, cut into pieces that are registered.

The host never reads through the mapping: a file cut short under it would end the process. The
device does, by itself, and only from pieces that the driver has pinned.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch

from engine.models.page_cache import may_know

PIECE_BYTES = 128 * 2**20
"""Registered at once. Two fill the ring, so that one is registered while one is read."""

FileStamp: TypeAlias = tuple[int, int, int, int]
Prefers: TypeAlias = Callable[[int], bool]
"""Whether a load would rather read so many bytes than have their pages registered now."""


@dataclass(kw_only=True, slots=True, eq=False)
class Piece:
    begin: int
    bytes: int
    registered: bool = False
    populated: Future[bool] | None = None
    """Its pages are being entered in the page tables by another thread: whether they were cached."""


class Mapped:
    """One file, mapped. What may be changed, and by whom, is `WarmTier`'s to say.

    Raises:
        OSError, ValueError: it cannot be opened or mapped.
    """

    def __init__(self, path: Path, register: Callable[[Mapped, Piece, Prefers], None]) -> None:
        """`register` is asked for each piece that a load comes to and that is not registered."""
        self.path = path
        self.names = {path}
        """Paths under which it is known: links that models share count as one file."""
        self.truth = may_know(path)
        """Whether the kernel tells us which of its pages are cached."""
        self.refused = False
        """Whether the host would not register some of it; the rest is not tried, then."""
        self.users = 0
        """Loads that are under way."""
        self.registering = False
        """Whether it is being registered while no load uses it."""
        self.last_used = 0.0
        self.registered_bytes = 0
        self._register = register
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.stamp = file_stamp(os.fstat(handle))
            self.shared = _is_shared(handle)
            """Whether the kernel counts its pages as shared memory, as those of a file in /dev/shm."""
            self._map = mmap.mmap(handle, 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
        finally:
            os.close(handle)
        with warnings.catch_warnings():
            # torch has no read-only tensors and says so; nothing of ours writes to this one.
            warnings.simplefilter("ignore")
            self._bytes = torch.frombuffer(self._map, dtype=torch.uint8)
        self.address = self._bytes.data_ptr()
        size = len(self._map)
        self.pieces = [
            Piece(begin=begin, bytes=min(PIECE_BYTES, size - begin)) for begin in range(0, size, PIECE_BYTES)
        ]

    @property
    def size(self) -> int:
        return len(self._map)

    @property
    def busy(self) -> bool:
        return self.users > 0 or self.registering

    def pieces_of(self, offset: int, num_bytes: int) -> list[Piece]:
        """Those that a range touches."""
        return self.pieces[offset // PIECE_BYTES : (offset + num_bytes - 1) // PIECE_BYTES + 1]

    def note(self, piece: Piece, *, registered: bool) -> None:
        """Write down what has become of a piece."""
        if piece.registered != registered:
            piece.registered = registered
            self.registered_bytes += piece.bytes if registered else -piece.bytes

    def spans(
        self, offset: int, num_bytes: int, *, prefers_reading: Prefers
    ) -> Iterator[tuple[int, torch.Tensor | None]]:
        """As `Source.spans`; registers what it comes to where that pays."""
        end = offset + num_bytes
        for piece in self.pieces_of(offset, num_bytes):
            if not piece.registered:
                self._register(self, piece, prefers_reading)
            length = min(end, piece.begin + piece.bytes) - offset
            yield length, self._bytes[offset : offset + length] if piece.registered else None
            offset += length

    def settle(self) -> None:
        """Wait for the threads that enter its pages: the address may be another mapping's afterwards."""
        for piece in self.pieces:
            if piece.populated is not None and not piece.populated.cancel():
                piece.populated.exception()

    def close(self) -> None:
        """Drop the mapping; no piece may be registered any more, and `settle` was called."""
        self._bytes = torch.empty(0, dtype=torch.uint8)
        with suppress(BufferError):  # a view is still held somewhere: it goes with that
            self._map.close()


def _is_shared(handle: int) -> bool:
    try:
        fcntl.fcntl(handle, fcntl.F_GET_SEALS)  # which only files that live in memory have
    except OSError:
        return False
    return True


def file_stamp(info: os.stat_result) -> FileStamp:
    """What tells a file from the one that was mapped under its name before."""
    return (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns)
