"""Owns completing a path as it is typed, as shells do: as far as the names that begin so agree."""

from __future__ import annotations

import os
from dataclasses import dataclass

MOST_ENTRIES = 5000
"""Of one folder that are looked at."""
SHOWN = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """What a path can become."""

    path: str
    """As far as it is certain."""
    names: tuple[str, ...]
    """Those that it may mean, when they are several."""


def complete_path(typed: str) -> Completion:
    """`typed` made longer. May hang where the disk does: not for the console's own thread."""
    folder, _slash, begun = typed.rpartition("/")
    place = os.path.expanduser(f"{folder}/" if _slash else ".")
    try:
        with os.scandir(place) as entries:
            names = []
            for _number, entry in zip(range(MOST_ENTRIES), entries, strict=False):
                if entry.name.startswith(begun) and (begun.startswith(".") or not entry.name.startswith(".")):
                    names.append(entry.name + ("/" if entry.is_dir() else ""))
    except (OSError, ValueError):
        return Completion(path=typed, names=())
    names = sorted(name for name in names if name.isprintable())
    if not names:
        return Completion(path=typed, names=())
    longer = typed[: len(typed) - len(begun)] + _shared(names[0], names[-1])
    return Completion(path=longer, names=() if len(names) == 1 else tuple(names[:SHOWN]))


def _shared(first: str, last: str) -> str:
    """What two names begin with alike; of the first and last of sorted ones, what all do."""
    for place, (one, other) in enumerate(zip(first, last, strict=False)):
        if one != other:
            return first[:place]
    return first if len(first) <= len(last) else last
