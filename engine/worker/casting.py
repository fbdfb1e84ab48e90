"""Copies that convert on the way: read into a pinned buffer, copied as stored, cast on the device.

Through buffers of our own, of one size: what torch takes for such a copy would stay in its cache,
20 MiB for each load. Only small tensors come this way, such as norms that a file has in bf16.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from engine.worker.backend import Part, Registrar, host_view
from engine.worker.pinned import HostBuffer

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

    def kept(self) -> tuple[torch.Tensor, ...]:
        """Its buffers, on the device and on the host."""
        return self._staged, self._pinned

    def copy(self, part: Part, moved: Callable[[int], None]) -> None:
        """Queue the copy of `part`, whose target has another dtype than its file."""
        width = part.dtype.itemsize
        step = BUFFER_BYTES // width
        for first in range(0, part.target.numel(), step):
            target = part.target[first : first + step]
            num_bytes = target.numel() * width
            slot = self._next
            self._next = (slot + 1) % BUFFERS
            self._emptied[slot].synchronize()
            buffer = self._buffers[slot][:num_bytes]
            part.source.read_into(part.offset + first * width, host_view(buffer))
            with torch.cuda.stream(self._stream):
                staged = self._staged[:num_bytes]
                staged.copy_(buffer, non_blocking=True)
                self._emptied[slot].record(self._stream)
                target.copy_(staged.view(part.dtype))
            moved(num_bytes)
