"""What a worker tells of its live tensors and of its allocator, and how it is asked: plain data, no torch.

What any of it means, a leak or a cache, is for the reader to say.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from engine.wire import Holder, Segment, Site, Tracing

ExportFormat: TypeAlias = Literal["pickle", "json"]
"""`pickle` is torch's own, which pytorch.org/memory_viz reads; `json` is for everybody else."""
SUSPECTS = (
    "a C++ owner such as an autograd graph, a compiled graph or an extension",
    "a tensor that is only an argument of a call on its way",
)
"""What may hold memory that no object of Python does."""


class LiveTensors(msgspec.Struct, frozen=True, kw_only=True):
    """Memory of tensors that Python holds in one place: one tensor, or all that one list has."""

    place: Literal["device", "host"]
    """On the cpu device everything is on the host."""
    bytes: int
    """Of their storages, each once, however many tensors look into it."""
    storages: int
    shape: tuple[int, ...]
    dtype: str
    """Of the largest of them."""
    holder: Holder
    running: bool = False
    """A call that runs now holds them, and nothing else: they go when it ends."""
    pinned: bool = False
    """Of host memory: held in place by the driver."""
    site: Site | None = None
    site_reason: str | None = None


class UnownedBlocks(msgspec.Struct, frozen=True, kw_only=True):
    """Live blocks of the device's allocator in which no tensor of Python lies, all of one site and stream."""

    bytes: int
    blocks: int
    stream: str
    library: str | None = None
    """The library whose workspace it is by size and time; None where nothing says so."""
    suspects: tuple[str, ...] = ()
    """What may hold it, a sentence each."""
    site: Site | None = None
    site_reason: str | None = None


class AllocatorMap(msgspec.Struct, frozen=True, kw_only=True):
    """What the device's allocator holds, by what may become of it. The parts add up to `reserved_bytes`."""

    reserved_bytes: int
    live_bytes: int
    awaiting: dict[str, int]
    """By stream: freed, but another stream may still use it."""
    fragmented_bytes: int
    """Free, in segments that hold something live."""
    beside_weights_bytes: int = 0
    """Of those, in segments that hold resident weights: a fresh worker has such gaps again."""
    releasable_bytes: int
    """Free, in segments that are free as a whole: what emptying the cache gives back."""
    private_pools: dict[str, int]
    """Of the above, what pools of CUDA graphs hold, by the pool's id."""


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """One look into a worker."""

    at: float
    """Wall clock."""
    elapsed_s: float
    pid: int
    objects: int
    """Python objects that were looked at."""
    job_id: int | None = None
    """The job that ran meanwhile: what its calls hold is in use."""
    accounted: dict[str, int] = {}
    """What the engine keeps and can name, in bytes: `weights model/component`, `buffers of copies`."""
    tensors: tuple[LiveTensors, ...] = ()
    """All else that Python holds, the largest first."""
    rest_bytes: int = 0
    rest_storages: int = 0
    """Small or late ones whose holders were not looked for."""
    unowned: tuple[UnownedBlocks, ...] = ()
    """On cuda; the largest first."""
    allocator: AllocatorMap | None = None
    """None on cpu, and where the device has no context yet."""
    sites: tuple[Site, ...] = ()
    """What is live and was traced, the largest first."""
    segments: tuple[Segment, ...] = ()
    tracing: Tracing
    unknown: tuple[str, ...] = ()
    """What could not be looked at, each with its reason."""
    pinned_bytes: int | None = None
    """Host memory in torch's pinned blocks, in use or not; None without a GPU."""
    pinned_used_bytes: int | None = None
    """Of these, in tensors."""
    heap_free_bytes: int | None = None
    """Freed and kept by the C library's heap; None where it does not tell."""
    shared_bytes: int | None = None
    """Host memory in shared mappings, without what is pinned; None where weight files are among it."""


class Inspect(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Look for everything that is live and who holds it; answered by Inspected, also in a job."""

    inspection_id: int
    export: str | None = None
    """A file to write the allocator's snapshot to, absolute; its folder exists."""
    export_format: ExportFormat = "json"


class Trace(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Note from now on where memory is allocated, or no more; answered by Inspected without findings."""

    inspection_id: int
    on: bool


class Inspected(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The answer to Inspect and to Trace."""

    inspection_id: int
    tracing: Tracing
    findings: Findings | None = None
    exported_bytes: int | None = None
    """Length of the file that was written."""
    refusal: str | None = None
    """Why there are no findings, or no file."""
