"""The order of the waiting jobs: pure arithmetic of places and priorities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A waiting job as the order sees it."""

    job_id: int
    priority: int


def place_at(entries: Sequence[Entry], job_id: int, position: int) -> list[Entry]:
    """`entries` (in the queue's order) with `job_id` moved to `position`, from 1; beyond the end is the end.

    Priorities stay falling along the queue: the moved job keeps its own where it can and else
    takes the nearest one that keeps it in its new place. Nobody else's changes.
    """
    moved = next(entry for entry in entries if entry.job_id == job_id)
    order = [entry for entry in entries if entry.job_id != job_id]
    index = min(position, len(entries)) - 1
    priority = moved.priority
    if index > 0:
        priority = min(priority, order[index - 1].priority)
    if index < len(order):
        priority = max(priority, order[index].priority)
    order.insert(index, replace(moved, priority=priority))
    return order
