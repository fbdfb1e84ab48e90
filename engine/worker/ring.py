"""Pinned buffers that threads fill from files while the copy engine empties them.

The way for bytes that no registered page holds: files that are not in the page cache, and hosts
that refuse to register them.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.worker.backend import CHUNK_BYTES, Source, host_view

RING_BUFFERS = 16
RING_THREADS = 12
"""Threads that read into the ring: the fastest count measured on a 16-core host."""
TELLING_BYTES = 200 * 2**20
"""Shorter runs fit into the buffers and say nothing of the rate."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Chunk:
    """What fills one buffer."""

    source: Source
    offset: int
    target: Tensor
    """uint8, 1-D."""


class Ring:
    """Used by one thread at a time, the one that loads."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream
        # Pinning costs 0.5 s a GiB: once for the process, never for each load.
        whole = torch.empty(RING_BUFFERS * CHUNK_BYTES, dtype=torch.uint8, pin_memory=True)
        self._buffers: tuple[Tensor, ...] = torch.split(whole, CHUNK_BYTES)
        self._emptied = [torch.cuda.Event(blocking=True) for _ in self._buffers]  # type: ignore[no-untyped-call]
        self._next = 0
        self._waiting: deque[tuple[Future[None], int, _Chunk, Callable[[int], None]]] = deque()
        threads = min(RING_THREADS, max(2, os.cpu_count() or 2))
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="weights")
        self.rate: float | None = None
        """Bytes a second, of the latest run that was long enough to tell."""
        self._began = 0.0
        self._bytes = 0

    def put(self, source: Source, offset: int, target: Tensor, moved: Callable[[int], None]) -> None:
        """Begin to fill `target`, uint8, from a file; `flush` says that all copies are queued."""
        if not self._bytes:
            self._began = time.monotonic()
        self._bytes += target.numel()
        for first in range(0, target.numel(), CHUNK_BYTES):
            part = target[first : first + CHUNK_BYTES]
            if len(self._waiting) == len(self._buffers):
                self._send_oldest()
            slot = self._next
            self._next = (slot + 1) % len(self._buffers)
            self._emptied[slot].synchronize()
            into = host_view(self._buffers[slot][: part.numel()])
            chunk = _Chunk(source=source, offset=offset + first, target=part)
            read = self._pool.submit(source.read_into, chunk.offset, into)
            self._waiting.append((read, slot, chunk, moved))

    def measure(self, source: Source, num_bytes: int) -> None:
        """Read `num_bytes` of a cached file as a load would, copying nothing, to know the rate."""
        began = time.monotonic()
        reads: list[Future[None]] = []
        for number, offset in enumerate(range(0, num_bytes, CHUNK_BYTES)):
            into = host_view(self._buffers[number % RING_BUFFERS][: min(CHUNK_BYTES, num_bytes - offset)])
            if number >= RING_BUFFERS:
                reads[number - RING_BUFFERS].result()  # as in a load, a buffer is filled once it is free
            reads.append(self._pool.submit(source.read_into, offset, into))
        for read in reads:
            read.result()
        self.rate = num_bytes / max(1e-9, time.monotonic() - began)

    def flush(self) -> None:
        """Return once every chunk's copy is queued."""
        while self._waiting:
            self._send_oldest()
        if self._bytes >= TELLING_BYTES:
            self.rate = self._bytes / max(1e-9, time.monotonic() - self._began)
        self._bytes = 0

    def abandon(self) -> None:
        """Forget what is not queued yet, once no thread reads for it any more."""
        for read, *_ in self._waiting:
            read.cancel()
        for read, *_ in self._waiting:
            if not read.cancelled():
                read.exception()
        self._waiting.clear()
        self._bytes = 0

    def _send_oldest(self) -> None:
        read, slot, chunk, moved = self._waiting.popleft()
        read.result()
        with torch.cuda.stream(self._stream):
            chunk.target.copy_(self._buffers[slot][: chunk.target.numel()], non_blocking=True)
            self._emptied[slot].record(self._stream)
        moved(chunk.target.numel())
