"""Live tensors by their storage, and by the one thing that holds many of them."""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from engine.worker.leaks.graph import Heap
from engine.worker.leaks.kept import KeptMemory
from engine.worker.leaks.owners import Owners
from engine.worker.mapped import Mapped

CONTAINERS = (list, tuple, deque, set, frozenset, dict)
NEST = 3
"""Containers in containers that count as one holder: a list of pairs of tensors."""


@dataclass(kw_only=True, slots=True, eq=False)
class Storage:
    """Memory that one or more Python tensors look into."""

    place: Literal["cuda", "cpu"]
    address: int
    bytes: int
    tensors: list[Any] = field(default_factory=list)


@dataclass(kw_only=True, slots=True, eq=False)
class Group:
    """Storages that one thing holds, the largest first."""

    bytes: int
    storages: list[Storage]


def live_storages(heap: Heap, kept: KeptMemory) -> tuple[list[Storage], list[Storage]]:
    """All storages with bytes of their own: those that are not accounted for, and those that are."""
    found: dict[tuple[str, int], Storage] = {}
    bare: list[Any] = []
    for item in heap.objects:
        # Not isinstance, which asks proxies for their class and runs code of theirs.
        kind = type(item)
        if issubclass(kind, Mapped):
            kept.add_range("cpu", item.address, item.size)
        elif kind is torch.UntypedStorage:
            # Most are only what was once made for somebody who asked a tensor for its storage.
            if heap.count(item):
                bare.append(item)
        elif issubclass(kind, Tensor):
            # Sparse, fake and functional tensors have no storage of their own.
            with suppress(RuntimeError, NotImplementedError):
                _note(item, item.untyped_storage(), found)
    for item in bare:
        if (item.device.type, item.data_ptr()) not in found:
            _note(item, item, found)
    beside: list[Storage] = []
    inside: list[Storage] = []
    for storage in found.values():
        (inside if kept.covers(storage.place, storage.address) else beside).append(storage)
    return beside, inside


def _note(item: Any, storage: Any, found: dict[tuple[str, int], Storage]) -> None:
    place = item.device.type
    if place not in ("cuda", "cpu"):
        return
    address, size = storage.data_ptr(), storage.nbytes()
    if size and address:
        known = found.get((place, address))
        if known is None:
            known = found[(place, address)] = Storage(place=place, address=address, bytes=size)
        known.bytes = max(known.bytes, size)
        known.tensors.append(item)


def grouped(storages: Iterable[Storage], heap: Heap, owners: Owners) -> list[Group]:
    """Storages by what holds them, where that is one container alone; the largest group first."""
    largest = sorted(storages, key=lambda storage: -storage.bytes)
    ends = [_outermost(storage, heap) for storage in largest]
    # What nothing refers to that the collector lists may lie in a container of before the fork.
    loose = {id(end) for end in ends if not heap.count(end) and not owners.in_call(end)}
    ways = owners.look_into_frozen(loose)
    groups: dict[int, Group] = {}
    for storage, end in zip(largest, ends, strict=True):
        way = ways.get(id(end), ())
        parent = way[-2] if len(way) > 1 and len(storage.tensors) == 1 else None
        frozen = type(parent) in CONTAINERS and not _is_namespace(parent, heap, way[-3:-2])
        group = groups.setdefault(id(parent if frozen else end), Group(bytes=0, storages=[]))
        group.bytes += storage.bytes
        group.storages.append(storage)
    return sorted(groups.values(), key=lambda group: -group.bytes)


def _outermost(storage: Storage, heap: Heap) -> Any:
    """The outermost container that alone holds the storage's tensor; a tensor where there is none."""
    at = storage.tensors[0]
    for _ in range(NEST if len(storage.tensors) == 1 else 0):
        holders = list(heap.referrers(at))
        if len(holders) != 1 or type(holders[0]) not in CONTAINERS:
            break
        if _is_namespace(holders[0], heap):
            break
        at = holders[0]
    return at


def _is_namespace(table: Any, heap: Heap, beyond: Iterable[Any] = ()) -> bool:
    """Whether it holds the names of a module, a class or an instance: each is a holder of its own.

    `beyond` refers to it as well, though the collector does not list it.
    """
    if type(table) is not dict:
        return False
    if "__name__" in table:
        return True  # of a module whose own object the collector may not list
    for holder in (*heap.referrers(table), *beyond):
        if issubclass(type(holder), types.ModuleType | type | types.FunctionType):
            return True
        with suppress(AttributeError):
            if object.__getattribute__(holder, "__dict__") is table:
                return True
    return False
