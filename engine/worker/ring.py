"""Buffers that threads fill from files while the copy engine empties them.

The way for bytes that no registered page holds: files that are not in the page cache, hosts that
refuse to register them, and a first load's other half, which the threads read while the pages of
the next piece are registered.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from engine.worker.backend import CHUNK_BYTES, Source, host_view

RING_BUFFERS = 16
"""Twice as many were slower: the host's caches hold these."""
RING_THREADS = 12
"""Threads that read into the ring: the fastest count measured on a 16-core host."""

Moved: TypeAlias = Callable[[int], None]
Land: TypeAlias = Callable[[int, Tensor], None]
"""Queues the copies of what has been read: (its first byte of those that were put, uint8 on the host)."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Chunk:
    """What fills one buffer, and the read that does so."""

    slot: int
    first: int
    bytes: int
    read: Future[None]
    land: Land
    moved: Moved


class Ring:
    """Used by one thread at a time, the one that loads. Copies are queued in the order of `put`."""

    def __init__(self, stream: torch.cuda.Stream, memory: Tensor) -> None:
        """`memory` is what its buffers are cut from: uint8, on the host, pinned."""
        self._stream = stream
        self._buffers: tuple[Tensor, ...] = torch.split(memory, CHUNK_BYTES)
        self._emptied = [torch.cuda.Event(blocking=True) for _ in self._buffers]  # type: ignore[no-untyped-call]
        self._next = 0
        self._waiting: deque[_Chunk | Callable[[], None]] = deque()
        self._filling = 0
        threads = min(RING_THREADS, max(2, os.cpu_count() or 2))
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="weights")
        self.rate: float | None = None
        """Bytes a second at which it is filled from cached files; None before it was measured."""

    def put(self, source: Source, offset: int, num_bytes: int, land: Land, moved: Moved) -> None:
        """Begin to read so much of a file and to `land` it; `flush` says that all copies are queued."""
        for first in range(0, num_bytes, CHUNK_BYTES):
            size = min(CHUNK_BYTES, num_bytes - first)
            while self._filling == len(self._buffers):
                self._send_oldest()
            slot = self._next
            self._next = (slot + 1) % len(self._buffers)
            read = self._pool.submit(self._fill, slot, source, offset + first, size)
            self._waiting.append(
                _Chunk(slot=slot, first=first, bytes=size, read=read, land=land, moved=moved)
            )
            self._filling += 1

    def then(self, act: Callable[[], None]) -> None:
        """Call `act` on this thread once the copies of all that was put before are queued."""
        self._waiting.append(act)
        self._send_read()

    def has_room(self, num_bytes: int) -> bool:
        """Whether so much can be put without waiting for a buffer; queues what has been read."""
        self._send_read()
        return (len(self._buffers) - self._filling) * CHUNK_BYTES >= num_bytes

    def flush(self) -> None:
        """Return once every chunk's copy is queued."""
        while self._waiting:
            self._send_oldest()

    def abandon(self) -> None:
        """Forget what is not queued yet, once no thread reads for it any more."""
        chunks = [item for item in self._waiting if isinstance(item, _Chunk)]
        for chunk in chunks:
            chunk.read.cancel()
        for chunk in chunks:
            if not chunk.read.cancelled():
                chunk.read.exception()
        self._waiting.clear()
        self._filling = 0

    def measure(self, source: Source, num_bytes: int) -> None:
        """Read `num_bytes` of a cached file as a load would, copying nothing, to know the rate."""
        began = time.monotonic()
        reads: list[Future[None]] = []
        try:
            for number, offset in enumerate(range(0, num_bytes, CHUNK_BYTES)):
                slot, lap = number % len(self._buffers), number - len(self._buffers)
                if lap >= 0:
                    reads[lap].result()  # as in a load, a buffer is filled once it is free
                size = min(CHUNK_BYTES, num_bytes - offset)
                reads.append(self._pool.submit(self._fill, slot, source, offset, size))
        finally:
            wait(reads)  # also when one has failed: the next load fills these buffers
        for read in reads:
            read.result()
        self.rate = num_bytes / max(1e-9, time.monotonic() - began)

    def _fill(self, slot: int, source: Source, offset: int, num_bytes: int) -> None:
        self._emptied[slot].synchronize()
        source.read_into(offset, host_view(self._buffers[slot][:num_bytes]))

    def _send_read(self) -> None:
        """Queue what has been read, up to the first chunk that has not."""
        while self._waiting:
            oldest = self._waiting[0]
            if isinstance(oldest, _Chunk) and not oldest.read.done():
                return
            self._send_oldest()

    def _send_oldest(self) -> None:
        oldest = self._waiting.popleft()
        if not isinstance(oldest, _Chunk):
            oldest()
            return
        self._filling -= 1
        oldest.read.result()
        with torch.cuda.stream(self._stream):
            oldest.land(oldest.first, self._buffers[oldest.slot][: oldest.bytes])
            self._emptied[oldest.slot].record(self._stream)
        oldest.moved(oldest.bytes)
