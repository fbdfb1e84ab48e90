"""The numbers by which a person names verdicts: the same thing has the same one in every report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import count

from engine.leaks.holders import Key, holder_key
from engine.wire import Verdict

MOST_KNOWN = 1000
"""Things whose numbers are remembered: processes come and go for as long as the engine runs."""


class Numbers:
    """Given for as long as the engine runs, and never to another thing."""

    def __init__(self) -> None:
        self._known: dict[Key, int] = {}
        self._next = count(1)

    def give(self, verdicts: Iterable[Verdict]) -> tuple[Verdict, ...]:
        """The same verdicts with their numbers."""
        found = []
        seen: dict[Key, int] = {}
        for verdict in verdicts:
            key = _key(verdict)
            seen[key] = seen.get(key, 0) + 1
            key = (*key, seen[key])
            # Those that were seen last stand last.
            number = self._known.pop(key, None) or next(self._next)
            self._known[key] = number
            found.append(replace(verdict, number=number))
        while len(self._known) > MOST_KNOWN:
            del self._known[next(iter(self._known))]
        return tuple(found)


def _key(verdict: Verdict) -> Key:
    """What makes it the same thing: not its size, nor its words."""
    holder, site, remedy = verdict.holder, verdict.site, verdict.remedy
    held = None if holder is None else holder_key(holder)
    where = None if site is None else (site.file, site.line)
    whom = None if remedy is None else (remedy.target, remedy.pid, remedy.start_time)
    return (verdict.kind, verdict.device_id, verdict.component, held, where, whom)
