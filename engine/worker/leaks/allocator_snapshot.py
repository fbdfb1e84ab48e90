"""The snapshot of the device's caching allocator: its segments, and what may become of each block.

Works on what `torch.cuda.memory._snapshot()` gives, so that it can be tried without a GPU.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from engine.wire import Segment
from engine.worker.leaks.facts import AllocatorMap

BlockState: TypeAlias = Literal["live", "awaiting", "free"]
MOST_SEGMENTS = 256
MOST_BLOCKS = 512
"""That are told of one segment; beyond it neighbours of one state count as one."""
CUBLAS_CONFIG = re.compile(r":(\d+):(\d+)")
CUBLAS_DEFAULTS = frozenset({4096 * 8 * 1024, (4096 * 2 + 16 * 8) * 1024})
"""Bytes of a workspace that torch gives cuBLAS for each of its handles and streams: on Hopper and later,
and before. Source: PyTorch, aten/src/ATen/cuda/CUDABlas.cpp and CublasHandlePool.cpp."""
CUBLASLT_DEFAULT_KIB = 1024
"""The same of cuBLASLt, where torch gives it one of its own (seen with torch 2.11)."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Block:
    """A piece of a segment."""

    address: int
    bytes: int
    requested_bytes: int
    state: BlockState
    stream: str
    private_pool: bool
    frames: tuple[Mapping[str, Any], ...]
    """Of its allocation, the innermost first; none where that was not traced."""


class AllocatorSnapshot:
    """One snapshot; keeps plain data only."""

    def __init__(self, segments: Iterable[Mapping[str, Any]]) -> None:
        self._segments = sorted(segments, key=lambda segment: -int(segment["total_size"]))
        self.blocks: list[Block] = sorted(
            (block for segment in self._segments for block in _blocks(segment)),
            key=lambda block: block.address,
        )
        self._addresses = [block.address for block in self.blocks]

    def block_at(self, address: int) -> Block | None:
        """The live block that `address` lies in."""
        place = bisect_right(self._addresses, address) - 1
        if place < 0:
            return None
        block = self.blocks[place]
        return block if block.state == "live" and address < block.address + block.bytes else None

    def told(self, is_weight: Callable[[int], bool] = lambda address: False) -> AllocatorMap:
        """`is_weight` says of a live block's address whether resident weights lie there."""
        awaiting: dict[str, int] = {}
        pools: dict[str, int] = {}
        reserved = live = fragmented = beside_weights = releasable = 0
        for segment in self._segments:
            blocks = list(_blocks(segment))
            size = int(segment["total_size"])
            reserved += size
            taken = 0
            for block in blocks:
                if block.state == "live":
                    live += block.bytes
                elif block.state == "awaiting":
                    awaiting[block.stream] = awaiting.get(block.stream, 0) + block.bytes
                taken += block.bytes if block.state != "free" else 0
            if taken:
                fragmented += size - taken
                if any(block.state == "live" and is_weight(block.address) for block in blocks):
                    beside_weights += size - taken
            else:
                releasable += size
            if (pool := _pool_of(segment)) is not None:
                pools[pool] = pools.get(pool, 0) + size
        return AllocatorMap(
            reserved_bytes=reserved,
            live_bytes=live,
            awaiting=awaiting,
            fragmented_bytes=fragmented,
            beside_weights_bytes=beside_weights,
            releasable_bytes=releasable,
            private_pools=pools,
        )

    def segments(self) -> tuple[Segment, ...]:
        """The largest ones."""
        return tuple(_segment(segment) for segment in self._segments[:MOST_SEGMENTS])

    @property
    def untold_segments(self) -> int:
        return max(0, len(self._segments) - MOST_SEGMENTS)


def workspace_of(num_bytes: int, environ: Mapping[str, str] = os.environ) -> str | None:
    """The library to which torch gives a workspace of this requested size.

    `environ` is where CUBLAS_WORKSPACE_CONFIG and CUBLASLT_WORKSPACE_SIZE (in KiB) stand.
    """
    config = CUBLAS_CONFIG.findall(environ.get("CUBLAS_WORKSPACE_CONFIG", ""))
    sizes = {sum(int(kib) * int(count) * 1024 for kib, count in config)} if config else CUBLAS_DEFAULTS
    if num_bytes in sizes:
        return "cuBLAS"
    kib = environ.get("CUBLASLT_WORKSPACE_SIZE", "")
    given = int(kib) if kib.isdecimal() else CUBLASLT_DEFAULT_KIB
    return "cuBLASLt" if num_bytes == given * 1024 else None


def workspaces(blocks: Iterable[Block]) -> dict[int, str]:
    """Which of these blocks with no owner are a library's workspaces: its name by the block's address.

    One for each stream and library, as the worker computes on one thread: a size alone makes none. Of
    several, one that was there before tracing began, since the first product takes it.
    """
    found: dict[tuple[str, str], Block] = {}
    for block in sorted(blocks, key=lambda block: (bool(block.frames), block.address)):
        library = workspace_of(block.requested_bytes)
        if library is not None and not block.private_pool:
            found.setdefault((library, block.stream), block)
    return {block.address: library for (library, _), block in found.items()}


def _blocks(segment: Mapping[str, Any]) -> Iterator[Block]:
    address = int(segment.get("address", 0))
    stream = str(segment.get("stream", 0))
    for block in segment["blocks"]:
        size = int(block["size"])
        # Torch's releases before 2.x give no address of a block: they follow each other.
        begin = int(block.get("address", address))
        yield Block(
            address=begin,
            bytes=size,
            requested_bytes=int(block.get("requested_size", size)),
            state=_state(str(block["state"])),
            stream=stream,
            private_pool=_pool_of(segment) is not None,
            frames=tuple(block.get("frames") or ()),
        )
        address = begin + size


def _pool_of(segment: Mapping[str, Any]) -> str | None:
    """The id of its private pool; None of the common one."""
    pool = tuple(segment.get("segment_pool_id", (0, 0)))
    return None if pool == (0, 0) else ".".join(map(str, pool))


def _state(name: str) -> BlockState:
    if name == "inactive":
        return "free"
    # `active_pending_free` in some releases, `active_awaiting_free` in others.
    return "live" if name == "active_allocated" else "awaiting"


def _segment(segment: Mapping[str, Any]) -> Segment:
    blocks = [(block.state, block.bytes) for block in _blocks(segment)]
    if len(blocks) > MOST_BLOCKS:
        blocks = _merged(blocks)[:MOST_BLOCKS]
    kind = "expandable" if segment.get("is_expandable") else str(segment.get("segment_type", "large"))
    return Segment(
        bytes=int(segment["total_size"]),
        stream=str(segment.get("stream", 0)),
        pool="small" if kind == "small" else "expandable" if kind == "expandable" else "large",
        blocks=tuple(blocks),
    )


def _merged(blocks: list[tuple[BlockState, int]]) -> list[tuple[BlockState, int]]:
    merged: list[tuple[BlockState, int]] = []
    for state, size in blocks:
        if merged and merged[-1][0] == state:
            merged[-1] = (state, merged[-1][1] + size)
        else:
            merged.append((state, size))
    return merged
