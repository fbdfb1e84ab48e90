"""What a load casts on its way, from registered pages, through the ring and through small buffers.

On cpu: streams and events stand still there, and all copies are made at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.worker.backend import CHUNK_BYTES, Part
from engine.worker.casting import BUFFER_BYTES, CastLane
from engine.worker.ring import RING_BUFFERS, Ring

HEAD = 104
"""Before the tensor in its file, as a safetensors header lies there."""


class Registrar:
    """Pins nothing, which is all the same to copies."""

    def register(self, address: int, num_bytes: int, *, read_only: bool = True) -> None: ...
    def unregister(self, address: int) -> None: ...


class Stored:
    """A file that holds one tensor; `registered` are (begin, end) of its pages that the device may copy."""

    def __init__(
        self, tensor: Tensor, *, head: int = HEAD, registered: tuple[tuple[int, int], ...] = ()
    ) -> None:
        whole = torch.cat([torch.zeros(head, dtype=torch.uint8), tensor.view(torch.uint8)])
        self.bytes, self.registered, self.read = whole, registered, 0

    def read_into(self, offset: int, into: memoryview) -> None:
        self.read += len(into)
        into[:] = self.bytes[offset : offset + len(into)].numpy().tobytes()

    def spans(
        self, offset: int, num_bytes: int, *, prefers_reading: Callable[[int], bool]
    ) -> Iterator[tuple[int, Tensor | None]]:
        end = offset + num_bytes
        edges = sorted({offset, end, *(at for span in self.registered for at in span if offset < at < end)})
        for begin, until in pairwise(edges):
            there = any(first <= begin < last for first, last in self.registered)
            yield until - begin, self.bytes[begin:until] if there else None


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> tuple[CastLane, Ring]:
    class Event:
        def __init__(self, **_: Any) -> None: ...
        def synchronize(self) -> None: ...
        def record(self, _stream: object) -> None: ...

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "stream", lambda _stream: nullcontext())
    stream: Any = None
    memory = torch.empty(RING_BUFFERS * CHUNK_BYTES, dtype=torch.uint8)
    return CastLane(torch.device("cpu"), stream, Registrar()), Ring(stream, memory)


LARGE = 3 * CHUNK_BYTES + 4096
SPAN = HEAD + CHUNK_BYTES + 8
CASES = {
    "small": (4096, HEAD, (), 4096),
    "a buffer's": (BUFFER_BYTES, HEAD, (), BUFFER_BYTES),
    "large": (LARGE, HEAD, (), LARGE),
    "all registered": (LARGE, HEAD, ((0, HEAD + LARGE),), 0),
    "the middle registered": (LARGE, HEAD, ((SPAN, SPAN + CHUNK_BYTES),), LARGE - CHUNK_BYTES),
    # Its second half starts within an element.
    "half registered, and laid askew": (LARGE, HEAD + 1, ((SPAN, HEAD + 1 + LARGE),), LARGE),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_cast_arrives_whole_and_registered_pages_are_not_read(
    copies: tuple[CastLane, Ring], case: str
) -> None:
    lane, ring = copies
    num_bytes, head, registered, read = CASES[case]
    stored = torch.randn(num_bytes // 4, generator=torch.Generator().manual_seed(1))
    source, moved = Stored(stored, head=head, registered=registered), list[int]()
    target = torch.zeros(stored.shape, dtype=torch.bfloat16)
    part = Part(source=source, offset=head, bytes=num_bytes, dtype=torch.float32, target=target)
    lane.copy(part, ring, moved.append)
    ring.flush()
    assert torch.equal(target, stored.bfloat16())
    assert sum(moved) == num_bytes and source.read == read


def test_small_ones_take_no_buffer_of_the_ring_and_their_own_again_and_again(
    copies: tuple[CastLane, Ring],
) -> None:
    lane, ring = copies
    for seed in range(11):
        stored = torch.randn(2048, generator=torch.Generator().manual_seed(seed)).bfloat16()
        target = torch.zeros(stored.shape)
        source = Stored(stored)
        part = Part(source=source, offset=HEAD, bytes=4096, dtype=torch.bfloat16, target=target)
        lane.copy(part, ring, lambda _num_bytes: None)
        assert torch.equal(target, stored.float())
    assert not ring._waiting
