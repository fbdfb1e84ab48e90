"""The background view: GPU memory, active models by component and cache status, and when to log them.

`background` is a plain function of what the wire already tells, so that its three lines cannot
disagree with the balance and the models that stand beside them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from engine.embeddings import EmbeddingUsage
from engine.units import GIB, MIB, counted, size_text
from engine.wire import (
    Background,
    BackgroundCache,
    BackgroundComponent,
    BackgroundModel,
    Balance,
    DeviceStatus,
    ModelStatus,
    Owner,
    PartKind,
    WorkerStatus,
)

OWNERS: tuple[tuple[Owner, str], ...] = (
    ("ours", "ours"),
    ("neighbour", "others"),
    ("driver", "driver"),
    ("unseen", "unseen"),
)
CACHE_STEP_BYTES = GIB
"""A cache that came or went by less is no news: denoising moves it ten times a second."""
CACHE_STEP_SHARE = 0.5


def background(
    device: DeviceStatus | None,
    models: Sequence[ModelStatus],
    workers: Sequence[WorkerStatus],
    usage: EmbeddingUsage | None,
) -> Background:
    """What `device`, the one in use, holds; `usage` is what earlier prompts take on disk, if counted."""
    balance = None if device is None else device.balance
    present = tuple(
        BackgroundModel(
            name=model.name,
            components=tuple(
                BackgroundComponent(name=part.name, bytes=part.bytes, state=part.state, leased=part.leased)
                for part in model.components
            ),
        )
        for model in models
        if any(part.state != "absent" for part in model.components)
    )
    present += _without_folder(balance, {model.name for model in models})
    used = None if balance is None else balance.total_bytes - (_sum_of(balance, ("free",)) or 0)
    owners = {} if balance is None else _owners(balance)
    cache = _cache(device, models, workers, usage)
    return Background(
        device_id=None if device is None else device.id,
        total_bytes=None if balance is None else balance.total_bytes,
        used_bytes=used,
        owners=owners,
        models=present,
        cache=cache,
        lines=(_memory_line(device, used, owners), _models_line(present), _cache_line(cache)),
    )


def _without_folder(balance: Balance | None, known: set[str]) -> tuple[BackgroundModel, ...]:
    """Models that are on the device and on no disk any more, by the balance."""
    found: dict[str, list[BackgroundComponent]] = {}
    for part in () if balance is None else balance.parts:
        model, _, component = part.label.rpartition("/")
        if part.kind == "weights" and part.bytes and model and model not in known:
            loaded = BackgroundComponent(name=component, bytes=part.bytes, state="resident")
            found.setdefault(model, []).append(loaded)
    return tuple(BackgroundModel(name=name, components=tuple(parts)) for name, parts in found.items())


def _owners(balance: Balance) -> dict[Owner, int]:
    found: dict[Owner, int] = defaultdict(int)
    for part in balance.parts:
        if part.bytes is not None and part.owner != "free":
            found[part.owner] += part.bytes
    return dict(found)


def _sum_of(balance: Balance, kinds: Iterable[PartKind]) -> int | None:
    """All parts of these kinds together; None where there is none or one is not known."""
    sizes = [part.bytes for part in balance.parts if part.kind in kinds]
    return None if not sizes or None in sizes else sum(size for size in sizes if size is not None)


def _cache(
    device: DeviceStatus | None,
    models: Sequence[ModelStatus],
    workers: Sequence[WorkerStatus],
    usage: EmbeddingUsage | None,
) -> BackgroundCache:
    releasable = fragmented = reason = None
    if device is None or device.balance is None:
        reason = "the device was not read yet"
    elif device.kind == "cpu":
        reason = "without a GPU there is no allocator that keeps a cache"
    elif not workers:
        releasable = fragmented = 0
    else:
        releasable = _sum_of(device.balance, ("releasable",))
        fragmented = _sum_of(device.balance, ("fragmented",))
        if releasable is None:
            reason = "the worker's allocator does not tell its cache"
    warm = [worker.warm_bytes for worker in workers if worker.warm_bytes is not None]
    return BackgroundCache(
        releasable_bytes=releasable,
        fragmented_bytes=fragmented,
        reason=reason,
        warm_bytes=sum(warm) if warm else None,
        warm_components=sum(bool(part.warm_bytes) for model in models for part in model.components),
        prompts=None if usage is None else usage.entries,
        prompts_bytes=None if usage is None else usage.bytes,
    )


def _memory_line(device: DeviceStatus | None, used: int | None, owners: dict[Owner, int]) -> str:
    if device is None or used is None:
        # Without a device nobody knows yet whether there is a GPU.
        return f"{'Memory' if device is None else _device_name(device)}: not read yet"
    held = [f"{label} {size_text(owners[owner])}" for owner, label in OWNERS if owners.get(owner)]
    share = 100 * used / device.total_bytes if device.total_bytes else 0.0
    whose = f": {', '.join(held)}" if held else ""
    total = size_text(device.total_bytes)
    return f"{_device_name(device)}: {size_text(used)} of {total} ({share:.1f} % used){whose}"


def _device_name(device: DeviceStatus) -> str:
    if device.kind == "cpu":
        return "Host memory (no GPU)"
    return "GPU memory" + ("" if device.index is None else f" of GPU {device.index}")


def _models_line(models: Sequence[BackgroundModel]) -> str:
    told = []
    for model in models:
        parts = ", ".join(_component_text(part) for part in model.components)
        told.append(f"{model.name} ({parts})")
    return f"Active models: {'; '.join(told) or 'none'}"


def _component_text(part: BackgroundComponent) -> str:
    if part.state == "absent":
        return f"{part.name} unloaded"
    state = "loading" if part.state == "loading" else "loaded"
    return f"{part.name} {state} {size_text(part.bytes)}{', in use' if part.leased else ''}"


def _cache_line(cache: BackgroundCache) -> str:
    if cache.releasable_bytes is None:
        told = [f"{cache.reason}"]
    else:
        told = [f"{size_text(cache.releasable_bytes)} on the device that `free` gives back"]
        if cache.fragmented_bytes:
            told.append(f"{size_text(cache.fragmented_bytes)} between live tensors")
    if cache.warm_bytes:
        told.append(
            f"{size_text(cache.warm_bytes)} of weight files warm in host memory "
            f"({counted(cache.warm_components, 'component')})"
        )
    if cache.prompts:
        of = counted(cache.prompts, "prompt's embeddings", "prompts' embeddings")
        told.append(f"{of} on disk ({size_text(cache.prompts_bytes or 0)})")
    return f"Cache status: {'; '.join(told)}"


class BackgroundNews:
    """Says when a background is news: when the resident set or the cache's size class has settled anew.

    Asked once a second. What is still on its way, or differs from what was seen a second ago, has
    not settled; so a job that swaps its experts ten times a minute tells each of them once.
    """

    def __init__(self) -> None:
        self._told: tuple[object, int] | None = None
        self._seen: tuple[object, int] | None = None

    def is_news(self, now: Background) -> bool:
        if now.device_id is None or now.used_bytes is None:
            return False
        residents = tuple(
            (model.name, part.name, part.bytes)
            for model in now.models
            for part in model.components
            if part.state == "resident"
        )
        cache = now.cache.releasable_bytes or 0
        loading = any(part.state == "loading" for model in now.models for part in model.components)
        before, self._seen = self._seen, None if loading else (residents, cache)
        if loading or before is None or before[0] != residents or _differs(before[1], cache):
            return False
        told = self._told
        if told is not None and told[0] == residents and not _differs(told[1], cache):
            return False
        self._told = (residents, cache)
        return True


def _differs(one: int, other: int) -> bool:
    moved = abs(one - other)
    return moved >= CACHE_STEP_BYTES and moved >= CACHE_STEP_SHARE * max(one, other, MIB)
