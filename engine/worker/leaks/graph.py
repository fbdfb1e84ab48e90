"""All objects that Python's collector knows, and who refers to whom, backwards: one pass over the heap.

What the collector does not track, such as strings and numbers, refers to nothing and is left out, but for
NumPy's arrays.
"""

from __future__ import annotations

import gc
import sys
import time
from array import array
from collections.abc import Container, Iterator
from types import ModuleType
from typing import Any

from engine.worker.leaks.libraries import is_library

MOST_OWN = 30_000
MOST_FROZEN = 400_000
MOST_FROZEN_S = 0.8
"""How much one look goes beyond what the collector lists. It costs a fork copies of the pages that this
lies on, once."""


class Heap:
    """A look at the heap; a context manager, since it keeps everything that it saw alive."""

    def __init__(self) -> None:
        """Look at everything now.

        100,000 objects with a million references take a quarter of a second.
        """
        self.objects: list[Any] = gc.get_objects()
        self._place = {id(found): place for place, found in enumerate(self.objects)}
        self._referrers: list[array[int] | None] = [None] * len(self.objects)
        self._frozen_s = MOST_FROZEN_S
        # Of what holds everything only for this look.
        ours = {id(self), id(self.__dict__), id(self.objects), id(sys._getframe())}
        referrers, place_of, referents = self._referrers, self._place, gc.get_referents
        array_type = _array_type()
        for place, found in enumerate(self.objects):
            if id(found) in ours:
                continue
            # Arrays are added on the way, and tell the collector nothing.
            for referent in (found.base,) if type(found) is array_type else referents(found):
                target = place_of.get(id(referent))
                if target is None and type(referent) is array_type and referent.base is not None:
                    target = place_of[id(referent)] = len(self.objects)
                    self.objects.append(referent)
                    referrers.append(None)
                if target is not None:
                    # Arrays of numbers: lists would be objects that the collector tracks, one for each.
                    known = referrers[target]
                    if known is None:
                        referrers[target] = array("l", (place,))
                    else:
                        known.append(place)

    def __enter__(self) -> Heap:
        return self

    def __exit__(self, *_: object) -> None:
        # It is among its own objects: without this only the collector would end it.
        self.objects.clear()
        self._place.clear()
        self._referrers.clear()

    def referrers(self, found: object) -> Iterator[Any]:
        """What refers to `found`, which the collector knows."""
        place = self._place.get(id(found))
        known = None if place is None else self._referrers[place]
        for referrer in known or ():
            yield self.objects[referrer]

    def lists(self, found: object) -> bool:
        """Whether the collector knew of it."""
        return id(found) in self._place

    def count(self, found: object) -> int:
        """References to `found` from what the collector knows."""
        place = self._place.get(id(found))
        known = None if place is None else self._referrers[place]
        return 0 if known is None else len(known)

    def ways_from_frozen(self, wanted: set[int], *, libraries: bool = True) -> dict[int, list[Any]]:
        """Ways from modules to objects of these ids through what was frozen before this process was forked.

        The collector does not list what is frozen, yet a global of a library may hold something new.
        Breadth first, and only as far as `MOST_FROZEN` and `MOST_FROZEN_S`; each way begins with its
        module. Without `libraries` only globals of other modules are looked at, and `MOST_OWN` objects.
        """
        own, others = self._frozen_modules()
        began = time.monotonic()
        walk = _Walk(wanted, self._place, until=began + self._frozen_s)
        # Ours and plug-ins' before the libraries', whose tables are a hundred times as many.
        closed = {id(vars(module)) for module in others} | {id(module) for module in others}
        walk.run(own, closed=closed, most=MOST_OWN)
        if libraries:
            walk.run(others, closed=set(), most=MOST_FROZEN)
        self._frozen_s = max(0.0, self._frozen_s - (time.monotonic() - began))
        return walk.found

    def _frozen_modules(self) -> tuple[list[Any], list[Any]]:
        """Modules that the collector does not list: those that are no library's, and the others."""
        own: list[Any] = []
        others: list[Any] = []
        for module in list(sys.modules.values()):
            if issubclass(type(module), ModuleType) and id(module) not in self._place:
                file = module.__dict__.get("__file__")
                (others if not isinstance(file, str) or is_library(file) else own).append(module)
        return own, others


def _array_type() -> Any:
    """NumPy's arrays: one that was made of a tensor holds it as its base, and the collector does not look."""
    return getattr(sys.modules.get("numpy"), "ndarray", None)


class _Walk:
    """A search forwards, breadth first, through objects that are not in `place`."""

    def __init__(self, wanted: set[int], place: Container[int], *, until: float) -> None:
        self._wanted = wanted
        self._place = place
        self._until = until
        self._array = _array_type()
        self._objects: list[Any] = []
        self._parents = array("l")
        self._most = 0
        self._seen: set[int] = set()
        self.found: dict[int, list[Any]] = {}

    def run(self, roots: list[Any], *, closed: Container[int], most: int) -> None:
        """Walk on from these, until `most` were seen; objects of the ids in `closed` are not entered."""
        self._most = most
        place = len(self._objects)
        for root in roots:
            self._enter(root, -1)
        while place < len(self._objects) and len(self.found) < len(self._wanted):
            if place % 1024 == 0 and time.monotonic() >= self._until:
                return
            found = self._objects[place]
            for referent in (found.base,) if type(found) is self._array else gc.get_referents(found):
                number = id(referent)
                if number in self._wanted and number not in self.found:
                    self.found[number] = self._way(place, referent)
                if number not in closed and number not in self._place:
                    if gc.is_tracked(referent) or (
                        type(referent) is self._array and referent.base is not None
                    ):
                        self._enter(referent, place)
            place += 1

    def _enter(self, found: Any, parent: int) -> None:
        if id(found) not in self._seen and len(self._objects) < self._most:
            self._seen.add(id(found))
            self._objects.append(found)
            self._parents.append(parent)

    def _way(self, at: int, end: Any) -> list[Any]:
        way = [end]
        while at >= 0:
            way.append(self._objects[at])
            at = self._parents[at]
        return way[::-1]
