"""What the engine keeps on purpose and can name: arenas, buffers of copies, mapped weight files."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from engine.worker.backend import Backend
from engine.worker.components import Component


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """Addresses that are accounted for."""

    place: str
    begin: int
    end: int


class KeptMemory:
    """Ranges of memory with their names; keeps no tensor."""

    def __init__(self, components: Iterable[Component], backend: Backend) -> None:
        self.bytes: dict[str, int] = {}
        """By name: `weights model/component` of what is resident."""
        self._ranges: list[Kept] = []
        for component in components:
            arena = component.arena
            for tensor in arena.views():
                self._add(tensor)
            # Experts may share a region: each has its own segments of it.
            if arena.held_bytes + arena.outside_bytes:
                self.bytes[f"weights {component.label}"] = arena.held_bytes + arena.outside_bytes
        for name, tensor in backend.kept():
            self._add(tensor)
            self.bytes[name] = self.bytes.get(name, 0) + tensor.untyped_storage().nbytes()
        self._ranges.sort(key=lambda kept: (kept.place, kept.begin))
        self._begins = [(kept.place, kept.begin) for kept in self._ranges]

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        begin, size = storage.data_ptr(), storage.nbytes()
        if size:
            self._ranges.append(Kept(place=tensor.device.type, begin=begin, end=begin + size))

    def add_range(self, place: str, begin: int, num_bytes: int) -> None:
        """Account for memory that is none of its own, such as a mapped file."""
        place_at = bisect_right(self._begins, (place, begin))
        self._ranges.insert(place_at, Kept(place=place, begin=begin, end=begin + num_bytes))
        self._begins.insert(place_at, (place, begin))

    def covers(self, place: str, address: int) -> bool:
        """Whether the address, of a device of type `place`, is accounted for."""
        at = bisect_right(self._begins, (place, address)) - 1
        if at < 0:
            return False
        kept = self._ranges[at]
        return kept.place == place and address < kept.end
