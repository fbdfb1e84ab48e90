"""All objects that Python's collector knows, and who refers to whom, backwards: one pass over the heap.

What the collector does not track, such as strings and numbers, refers to nothing and is left out.
"""

from __future__ import annotations

import gc
import sys
from array import array
from collections.abc import Iterator
from typing import Any


class Heap:
    """A look at the heap; a context manager, since it keeps everything that it saw alive."""

    def __init__(self) -> None:
        """Look at everything now.

        100,000 objects with a million references take a quarter of a second.
        """
        self.objects: list[Any] = gc.get_objects()
        self._place = {id(found): place for place, found in enumerate(self.objects)}
        self._referrers: list[array[int] | None] = [None] * len(self.objects)
        # Of what holds everything only for this look.
        ours = {id(self), id(self.__dict__), id(self.objects), id(sys._getframe())}
        referrers, place_of, referents = self._referrers, self._place, gc.get_referents
        for place, found in enumerate(self.objects):
            if id(found) in ours:
                continue
            for referent in referents(found):
                target = place_of.get(id(referent))
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
