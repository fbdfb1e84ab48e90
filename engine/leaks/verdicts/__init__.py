"""All detectors over one set of facts: is it a leak or a cache, who holds it, and what gives it back?

One file a detector, each a pure function of facts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from engine.leaks.facts import Facts
from engine.leaks.verdicts.awaiting import awaiting
from engine.leaks.verdicts.cache import cache
from engine.leaks.verdicts.component import component
from engine.leaks.verdicts.context import context
from engine.leaks.verdicts.fragmentation import fragmentation
from engine.leaks.verdicts.host_heap import host_heap
from engine.leaks.verdicts.library import library
from engine.leaks.verdicts.orphan import orphan
from engine.leaks.verdicts.pinned import pinned
from engine.leaks.verdicts.process import process
from engine.leaks.verdicts.tensor import tensor
from engine.leaks.verdicts.unowned import unowned
from engine.leaks.verdicts.unseen import unseen
from engine.wire import Verdict

Detector = Callable[[Facts], tuple[Verdict, ...]]

ALL: Mapping[str, Detector] = {
    "tensor": tensor,
    "unowned": unowned,
    "component": component,
    "awaiting": awaiting,
    "cache": cache,
    "fragmentation": fragmentation,
    "library": library,
    "context": context,
    "process": process,
    "orphan": orphan,
    "unseen": unseen,
    "pinned": pinned,
    "host_heap": host_heap,
}


def verdicts(facts: Facts) -> tuple[Verdict, ...]:
    """Leaks first, the largest first; what has no known size after those that have one."""
    found = [verdict for detector in ALL.values() for verdict in detector(facts)]
    return tuple(sorted(found, key=lambda one: (not one.leak, one.bytes is None, -(one.bytes or 0))))
