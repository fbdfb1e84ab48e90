"""Who holds a tensor: the shortest way to it from something that lasts.

What lasts is a module, a class or what the caller names. What nothing of the kind leads to is held by a
call that runs, is a cycle that the collector has not looked at, or has no owner in Python at all.
"""

from __future__ import annotations

import math
import sys
import time
import types
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from engine.wire import Holder
from engine.worker.leaks.frames import RunningFrames
from engine.worker.leaks.graph import Heap
from engine.worker.leaks.words import Words, type_name

MOST_VISITED = 20_000
"""Objects of one search; what is farther away is told as far as the search came."""

MOST_NAMES = 4
"""Types of a cycle that are named; some more are the tables and lists between them."""

NOBODY = "no Python owner"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Held:
    """How something is held."""

    holder: Holder
    running: bool = False
    """Only calls that run hold it: it goes when they end."""


@dataclass(kw_only=True, slots=True, eq=False)
class _Search:
    """The objects that lead to some targets, as far as a root or all of them."""

    targets: Sequence[object]
    came_from: dict[int, object | None]
    """By id: what it leads to, on the shortest way; None of a target."""
    alive: list[object] = field(default_factory=list)
    way: list[object] | None = None
    """From what lasts."""
    in_use: list[object] | None = None
    """From the frame of a running call, and its local's name."""
    local: str | None = None
    beyond: list[object] = field(default_factory=list)
    """Those that something unseen refers to, but for the targets."""
    wanted: set[int] = field(default_factory=set)
    """Ids to look for among what is frozen."""


class Owners:
    """Searches of one look at the heap; a context manager, as the heap is."""

    def __init__(
        self,
        heap: Heap,
        *,
        roots: Mapping[str, object] | None = None,
        in_job: bool = False,
    ) -> None:
        """`roots` last as modules do, by the name to tell of each.

        In a job nothing is looked for in what is frozen of the libraries: that takes a second and copies of
        the fork's pages, for values that a call has on its way and gives no name.
        """
        self._in_job = in_job
        self._heap = heap
        self._roots = {id(root): name for name, root in (roots or {}).items()}
        self._frames = RunningFrames(heap)
        self._words = Words(self._roots, heap)
        self._ways: dict[int, list[Any]] = {}

    def __enter__(self) -> Owners:
        return self

    def __exit__(self, *_: object) -> None:
        self._frames.close()
        self._ways.clear()
        self._words.close()

    def find(self, targets: Sequence[object]) -> Held:
        """Who holds any of `targets`, such as the tensors of one storage; the nearest root wins."""
        return self.find_all([targets])[0]

    def find_all(self, groups: Sequence[Sequence[object]], *, until: float = math.inf) -> list[Held]:
        """As `find` for each group, with one look at what is frozen for all of them.

        At `until`, of the monotonic clock, it ends with those that it has, the first ones.
        """
        searches: list[_Search] = []
        wanted: set[int] = set()
        for targets in groups:
            if searches and time.monotonic() >= until:
                break
            search = self._search(targets)
            searches.append(search)
            wanted |= search.wanted
        self.look_into_frozen(wanted)
        return [self._held(search, self._ways) for search in searches]

    def look_into_frozen(self, wanted: set[int]) -> Mapping[int, list[Any]]:
        """Ways to objects of these ids from modules that the collector does not list."""
        unknown = wanted - self._ways.keys()
        if unknown:
            self._ways.update(self._heap.ways_from_frozen(unknown, libraries=not self._in_job))
        return self._ways

    def in_call(self, found: object) -> bool:
        """Whether a call that runs holds it by a name."""
        return id(found) in self._frames.holders

    def _search(self, targets: Sequence[object]) -> _Search:
        search = self._walk(targets)
        if search.way is not None or len(search.came_from) >= MOST_VISITED:
            return search
        # Not in the walk, whose own variables would count.
        own = {id(target) for target in targets}
        beyond = list(self._held_beyond(search.alive, search.came_from))
        search.beyond = [found for found in beyond if id(found) not in own]
        # What runs has values on its way that nothing tells: only what it holds itself is looked for.
        looked_for = [found for found in beyond if id(found) in own] if search.in_use else search.alive
        if search.in_use or beyond or len(search.alive) == len(own):
            search.wanted = {id(found) for found in looked_for}
        return search

    def _walk(self, targets: Sequence[object]) -> _Search:
        came_from: dict[int, object | None] = {id(target): None for target in targets}
        search = _Search(targets=targets, came_from=came_from)
        waiting: deque[object] = deque(targets)
        while waiting and len(came_from) < MOST_VISITED:
            found = waiting.popleft()
            if self._is_root(found) and came_from[id(found)] is not None:
                search.way = _way(found, came_from)
                return search
            search.alive.append(found)
            if search.in_use is None and (holders := self._frames.holders.get(id(found))) is not None:
                search.in_use, search.local = [holders[0][0], *_way(found, came_from)], holders[0][1]
            for referrer in self._heap.referrers(found):
                if id(referrer) not in came_from and not self._is_ours(referrer):
                    came_from[id(referrer)] = found
                    waiting.append(referrer)
        return search

    def _held(self, search: _Search, ways: Mapping[int, list[Any]]) -> Held:
        if search.way is not None:
            return Held(holder=self._words.told(search.way))
        for found in search.alive:
            if id(found) in ways and id(found) in search.wanted:
                way = ways[id(found)][:-1]
                # From the nearest root, as of what is not frozen.
                first = max(place for place, step in enumerate(way) if self._is_root(step))
                told = self._words.told([*way[first:], *_way(found, search.came_from)])
                return Held(holder=told)
        if search.in_use is not None:
            return Held(holder=self._words.told(search.in_use, local=search.local), running=True)
        own = {id(target) for target in search.targets}
        if len(search.came_from) >= MOST_VISITED:
            nearest = next(found for found in search.alive if id(found) not in own)
            told = self._words.told(_way(nearest, search.came_from))
            return Held(holder=replace(told, path=(f"farther than {MOST_VISITED} objects", *told.path)))
        if search.beyond:
            told = self._words.told(_way(search.beyond[0], search.came_from))
            if told.kind == "generator":
                return Held(holder=told)
            path = (self._nobody, *told.path)
            holder = Holder(path=path, kind="none", file=told.file, line=told.line)
            return Held(holder=holder, running=self._in_job)
        if len(search.alive) > len(own):
            names = dict.fromkeys(type_name(found) for found in search.alive if id(found) not in own)
            shown = ", ".join(sorted(names)[:MOST_NAMES])
            return Held(holder=Holder(path=(f"a cycle of {shown}",), kind="cycle"))
        return Held(holder=Holder(path=(self._nobody,), kind="none"), running=self._in_job)

    @property
    def _nobody(self) -> str:
        return "a value on its way in a running call, or no Python owner" if self._in_job else NOBODY

    def _held_beyond(self, alive: list[object], came_from: Mapping[int, object]) -> Iterator[object]:
        """Those that something refers to which the collector does not list: C code, or what is frozen."""
        ours = Counter(id(parent) for parent in came_from.values())
        own = _references_of_a_loop() + 1  # the heap's list
        for found in alive:
            known = self._heap.count(found) + ours[id(found)] + len(self._frames.holders.get(id(found), ()))
            if sys.getrefcount(found) - known > own:
                yield found

    def _is_root(self, found: object) -> bool:
        return issubclass(type(found), types.ModuleType | type) or id(found) in self._roots

    def _is_ours(self, referrer: object) -> bool:
        number = id(referrer)
        return number in self._frames.ours or number in self._frames.ids


def _references_of_a_loop() -> int:
    """What a list, the variable that walks it and a call add to a count; it differs by Python's version."""
    probes: list[object] = [[]]
    return next(sys.getrefcount(found) for found in probes)


def _way(root: object, came_from: dict[int, object | None]) -> list[object]:
    """From the root to the target."""
    way = [root]
    while (after := came_from[id(way[-1])]) is not None:
        way.append(after)
    return way
