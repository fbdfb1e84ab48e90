"""Which components to evict before a stage of work. A pure decision.

The worker asks before every stage. Components that are leased stay; of the others those of
other models go first, then the least recently used, and only as many as are needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engine.errors import DoesNotFit, OutOfMemory
from engine.units import size_text


@dataclass(frozen=True, kw_only=True, slots=True)
class Resident:
    """A component whose weights are loaded."""

    model: str
    component: str
    bytes: int
    leased: bool
    last_used: float
    """On any clock that grows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Needed:
    """A component that the stage uses."""

    model: str
    component: str
    bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Eviction:
    model: str
    component: str
    bytes: int
    reason: str
    """One clause for the log: why this one."""


def plan_evictions(
    residents: Iterable[Resident],
    needed: Sequence[Needed],
    *,
    stage: str,
    stage_bytes: int,
    budget_bytes: int,
) -> tuple[Eviction, ...]:
    """What must go for `needed` and `stage_bytes` of working memory within `budget_bytes`, in order.

    Raises:
        DoesNotFit: it would not fit even if nothing else were resident.
        OutOfMemory: what is leased leaves too little.
    """
    wanted = {(item.model, item.component) for item in needed}
    here = list(residents)
    need_bytes = sum(item.bytes for item in needed) + stage_bytes
    names = " + ".join(f"{item.model}/{item.component}" for item in needed) or "its work"
    if need_bytes > budget_bytes:
        raise DoesNotFit(
            f"{stage} needs {size_text(need_bytes)} ({names} and {size_text(stage_bytes)} of working memory) "
            f"and the budget is {size_text(budget_bytes)}; take fewer frames or a smaller resolution, "
            "or raise the budget"
        )
    others = [item for item in here if (item.model, item.component) not in wanted]
    excess = need_bytes + sum(item.bytes for item in others) - budget_bytes
    models = {item.model for item in needed}
    evict: list[Eviction] = []
    for item in sorted(others, key=lambda item: (item.model in models, item.last_used)):
        if excess <= 0:
            break
        if item.leased:
            continue
        kinship = "of this model, used least recently" if item.model in models else "of another model"
        evict.append(
            Eviction(
                model=item.model,
                component=item.component,
                bytes=item.bytes,
                reason=f"{stage} lacks {size_text(excess)}; it is idle, {kinship}",
            )
        )
        excess -= item.bytes
    if excess > 0:
        held = ", ".join(f"{item.model}/{item.component}" for item in others if item.leased)
        raise OutOfMemory(
            f"{stage} needs {size_text(need_bytes)} of the budget of {size_text(budget_bytes)} "
            f"and lacks {size_text(excess)}: "
            f"{held} are in use; wait for that job to end"
        )
    return tuple(evict)
