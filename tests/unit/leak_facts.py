"""A worker on an H200 that leaks nothing, as facts that a test may spoil."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
from facts import GPU, NOW, WORKER, gpu

from engine.leaks.facts import Facts, HostMemory
from engine.leaks.sentences import trend_text
from engine.units import GIB, KIB, MIB
from engine.wire import Holder, Segment, Site, Tracing, Trend
from engine.worker.leaks.facts import AllocatorMap, Findings, LiveTensors, UnownedBlocks

KEPT = Holder(path=("module plants", "KEPT", "[0]"), kind="global", file="/srv/plants.py", line=7)
SITE = Site(file="/srv/plants.py", line=12, function="keep", bytes=64 * MIB, blocks=1)
MAP = AllocatorMap(
    reserved_bytes=13 * GIB, live_bytes=13 * GIB, awaiting={}, fragmented_bytes=2 * MIB,
    releasable_bytes=3 * MIB, private_pools={},
)  # fmt: skip
LOOK = Findings(
    at=NOW, elapsed_s=0.4, pid=500, objects=90_000, accounted={"weights wan/dit": 13 * GIB}, allocator=MAP,
    tracing=Tracing(on=False),
    tensors=(
        LiveTensors(
            place="host", bytes=40 * KIB, storages=3, shape=(1024,), dtype="float32",
            holder=Holder(path=("module torch", "TABLE"), kind="global"),
        ),
    ),
)  # fmt: skip
CARD = gpu(context=0, releasable=3 * MIB, fragmented=2 * MIB)
CLEAN = Facts(
    at=NOW, device=CARD, worker=WORKER, look=LOOK, uid_user="me",
    host=HostMemory(pinned_bytes=2 * MIB, pinned_used_bytes=MIB, heap_free_bytes=20 * MIB),
    trends=(
        Trend(what="device", over="jobs", count=20, bytes_each=0.0, low=0.0, high=0.0, floors=(0,) * 20),
        Trend(what="host", over="jobs", count=20, bytes_each=2e3, low=-1e4, high=2e4, floors=(0,) * 20),
    ),
)  # fmt: skip


def held(size: int = 64 * MIB, **changes: Any) -> LiveTensors:
    """Tensors in a module's list."""
    whole: dict[str, Any] = {
        "place": "device", "bytes": size, "storages": 1, "shape": (16, 1024, 1024), "dtype": "float32",
        "holder": KEPT, "site": SITE, **changes,
    }  # fmt: skip
    return LiveTensors(**whole)


def block(size: int = 32 * MIB, **changes: Any) -> UnownedBlocks:
    whole: dict[str, Any] = {
        "bytes": size, "blocks": 2, "stream": "0", "site_reason": "nothing was traced then", **changes
    }  # fmt: skip
    return UnownedBlocks(**whole)


def looked(**changes: Any) -> Facts:
    """The clean facts with another look into the worker."""
    return replace(CLEAN, look=msgspec.structs.replace(LOOK, **changes))


def mapped(**changes: Any) -> Facts:
    """With another map of the allocator."""
    return looked(allocator=msgspec.structs.replace(MAP, **changes))


def grows(what: str, each: int = MIB, count: int = 12, **changes: Any) -> Trend:
    """A floor that rises with every job."""
    whole: dict[str, Any] = {
        "what": what, "over": "jobs", "count": count, "bytes_each": float(each), "low": each * 0.9,
        "high": each * 1.1, "grows": True, "floors": tuple(each * number for number in range(count)),
        **changes,
    }  # fmt: skip
    trend = Trend(**whole)
    return replace(trend, text=trend_text(trend, 6))


CUT = Segment(bytes=40 * MIB, blocks=(("live", 4 * MIB), ("free", 30 * MIB), ("live", 6 * MIB)))
__all__ = ["CLEAN", "CUT", "GPU", "KEPT", "NOW", "SITE", "block", "grows", "held", "looked", "mapped"]
