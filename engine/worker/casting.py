"""Copies that convert on the way: copied as stored, cast on the device.

Through a buffer of our own there, of one size: what torch takes for such a copy would stay in its
cache, 20 MiB for each load. Large tensors, such as those of a VAE that its file has in fp32, come
from registered pages or through the ring like any other; small ones, such as norms that a file has
in bf16, through host buffers of their own, for each would take a whole one of the ring's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from engine.worker.backend import Part, Registrar, host_view
from engine.worker.pinned import HostBuffer
from engine.worker.ring import Ring

BUFFER_BYTES = 2**20
"""One such allocation on the device shares a 2 MiB segment with other small ones."""
BUFFERS = 4


class CastLane:
    """Used by one thread at a time, the one that loads."""

    def __init__(self, device: torch.device, stream: torch.cuda.Stream, registrar: Registrar) -> None:
        self._stream = stream
        with torch.cuda.stream(stream):
            # In the copies' own order: a block that computing has just freed may still be read.
            self._staged = torch.empty(BUFFER_BYTES, dtype=torch.uint8, device=device)
        memory = HostBuffer(BUFFERS * BUFFER_BYTES)
        memory.pin(registrar)  # or not: so few bytes may take their time
        self.pinned_bytes = memory.pinned_bytes
        self._buffers = torch.split(memory.tensor, BUFFER_BYTES)
        self._pinned = memory.tensor
        self._emptied = [torch.cuda.Event(blocking=True) for _ in self._buffers]  # type: ignore[no-untyped-call]
        self._next = 0

    def kept(self) -> tuple[Tensor, ...]:
        """Its buffers, on the device and on the host."""
        return self._staged, self._pinned

    def copy(self, part: Part, ring: Ring, moved: Callable[[int], None]) -> None:
        """Queue the copy of `part`, whose target has another dtype than its file."""
        if part.offset % part.dtype.itemsize:  # an element may be half in what is registered
            ring.put(part.source, part.offset, part.bytes, partial(self._land, part, 0), moved)
            return
        begin = 0
        for length, host in part.source.spans(part.offset, part.bytes, prefers_reading=ring.has_room):
            if host is not None:
                self._land(part, begin, 0, host)
                moved(length)
            elif length > BUFFER_BYTES:
                ring.put(part.source, part.offset + begin, length, partial(self._land, part, begin), moved)
            else:
                self._read(part, begin, length)
                moved(length)
            begin += length

    def _read(self, part: Part, begin: int, num_bytes: int) -> None:
        """Read so many bytes of it on this thread, at most a buffer's, and queue their copy."""
        slot = self._next
        self._next = (slot + 1) % BUFFERS
        self._emptied[slot].synchronize()
        buffer = self._buffers[slot][:num_bytes]
        part.source.read_into(part.offset + begin, host_view(buffer))
        self._land(part, begin, 0, buffer)
        self._emptied[slot].record(self._stream)

    def _land(self, part: Part, begin: int, first: int, host: Tensor) -> None:
        """Queue the copy of what of the part's bytes lies in `host`, uint8: those from `begin + first` on."""
        width = part.dtype.itemsize
        element = (begin + first) // width
        with torch.cuda.stream(self._stream):
            for stored in torch.split(host, BUFFER_BYTES):
                staged = self._staged[: stored.numel()]
                staged.copy_(stored, non_blocking=True)
                count = stored.numel() // width
                part.target[element : element + count].copy_(staged.view(part.dtype))
                element += count
