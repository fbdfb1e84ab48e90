"""Which components to load, to evict and to load ahead for a stage of work. Pure decisions.

The worker asks before every stage; `engine.planning.explaining` asks for a whole job what the worker
would be answered. Components that are leased stay. What goes first
is what this job will not need again, other models before this one, the least recently used first,
and only as many as are needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engine.errors import DoesNotFit, OutOfMemory
from engine.units import size_text
from engine.wire import Residency


@dataclass(frozen=True, kw_only=True, slots=True)
class Resident:
    """A component that has device memory."""

    model: str
    component: str
    bytes: int
    leased: bool
    last_used: float
    """On any clock that grows."""
    content: str = ""
    """Equal for components whose weights are the same; empty where nobody looked."""

    @property
    def label(self) -> str:
        return f"{self.model}/{self.component}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Needed:
    """A component that a stage uses."""

    model: str
    component: str
    bytes: int
    content: str = ""
    """As a resident's."""

    @property
    def label(self) -> str:
        return f"{self.model}/{self.component}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Eviction:
    model: str
    component: str
    bytes: int
    reason: str
    """One clause for the log: why this one."""

    @property
    def label(self) -> str:
        return f"{self.model}/{self.component}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """A component to bring in."""

    needed: Needed
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StagePlan:
    """What to do before a stage and under it."""

    evictions: tuple[Eviction, ...]
    """First, in this order."""
    loads: tuple[Load, ...]
    """What the stage itself lacks."""
    ahead: tuple[Load, ...]
    """What later stages need and fits beside this one: loaded while it computes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One stage of a job, as it will ask."""

    name: str
    needed: tuple[Needed, ...]
    working_bytes: int
    """Memory beside the weights, at its peak."""
    ahead: frozenset[str] | None = None
    """Components that may be loaded under it for later stages; None for all that those need."""


# Whether a setting or another tenant is in the way, only the daemon knows, and says.
SMALLER_WORK = "take fewer frames or a smaller resolution"
SMALLER_WEIGHTS = "take a smaller model, or one with int8 weights"
REST = "rest"
"""Called so where nothing runs: after a job's last stage."""


def plan_stage(
    residents: Iterable[Resident],
    needed: Sequence[Needed],
    *,
    stage: str,
    working_bytes: int,
    budget_bytes: int,
    later: Sequence[Stage] = (),
    mode: Residency = "auto",
) -> StagePlan:
    """What must go and what must come for `needed` and `working_bytes` within `budget_bytes`.

    `later` are the job's later stages, the next one first. The budget is what this engine may hold
    at all: other tenants' memory is not in it.

    Raises:
        DoesNotFit: it would not fit even if nothing else were resident.
        OutOfMemory: what is leased leaves too little.
    """
    here = list(residents)
    present = {item.label for item in here}
    loads = tuple(
        Load(needed=item, reason=f"{stage} needs it") for item in needed if item.label not in present
    )
    evictions = _evictions(here, needed, stage, working_bytes, budget_bytes, later, mode)
    gone = {item.label for item in evictions}
    held = {item.label: item.bytes for item in here if item.label not in gone}
    held |= {load.needed.label: load.needed.bytes for load in loads}
    now = Stage(name=stage, needed=tuple(needed), working_bytes=working_bytes)
    return StagePlan(
        evictions=evictions,
        loads=loads,
        ahead=() if mode == "dit_only" else _ahead(held, now, later, budget_bytes),
    )


def _ahead(held: dict[str, int], now: Stage, later: Sequence[Stage], budget_bytes: int) -> tuple[Load, ...]:
    """What later stages lack and can have now: it must fit beside this stage and all until its own."""
    ahead: list[Load] = []
    for number, stage in enumerate(later):
        for item in stage.needed:
            if item.label in held:
                continue
            room = min(_room(held, between, budget_bytes) for between in (now, *later[:number])) - item.bytes
            if room < 0:
                continue
            held[item.label] = item.bytes
            reason = f"{stage.name} needs it, and {size_text(room)} stay free beside {now.name}"
            ahead.append(Load(needed=item, reason=reason))
    return tuple(ahead)


def _room(held: dict[str, int], stage: Stage, budget_bytes: int) -> int:
    """What `stage` leaves free when everything in `held` stays through it."""
    together = held | {item.label: item.bytes for item in stage.needed}
    return budget_bytes - sum(together.values()) - stage.working_bytes


def _evictions(
    here: Sequence[Resident],
    needed: Sequence[Needed],
    stage: str,
    working_bytes: int,
    budget_bytes: int,
    later: Sequence[Stage],
    mode: Residency,
) -> tuple[Eviction, ...]:
    wanted = {item.label for item in needed}
    soon = {item.label for stage in later for item in stage.needed}
    need_bytes = sum(item.bytes for item in needed) + working_bytes
    if need_bytes > budget_bytes:
        names = " + ".join(item.label for item in needed) or "its work"
        weights = need_bytes - working_bytes
        raise DoesNotFit(
            f"{stage} needs {size_text(need_bytes)} ({names} and {size_text(working_bytes)} of working "
            f"memory) and the budget is {size_text(budget_bytes)}; "
            f"{SMALLER_WORK if weights < budget_bytes else SMALLER_WEIGHTS}"
        )
    others = [item for item in here if item.label not in wanted]
    excess = need_bytes + sum(item.bytes for item in others) - budget_bytes
    models = {item.model for item in needed}
    evict: list[Eviction] = []

    def go(item: Resident, reason: str) -> None:
        nonlocal excess
        evict.append(Eviction(model=item.model, component=item.component, bytes=item.bytes, reason=reason))
        excess -= item.bytes

    def last_to_go(item: Resident) -> tuple[bool, bool, bool, float]:
        return (_is_dear(item, mode, models), item.label in soon, item.model in models, item.last_used)

    for item in sorted(others, key=last_to_go):
        if item.leased:
            continue
        if mode == "dit_only":
            go(item, f"dit_only keeps nothing beside {stage}")
        elif excess > 0:
            if item.label in soon:
                why = "a later stage loads it again"
            elif item.model in models:
                why = "of this model, used least recently"
            else:
                why = "of another model"
            go(item, f"{stage} lacks {size_text(excess)}; it is idle, {why}")
    if excess > 0:
        held = ", ".join(item.label for item in others if item.leased)
        raise OutOfMemory(
            f"{stage} needs {size_text(need_bytes)} of the budget of {size_text(budget_bytes)} "
            f"and lacks {size_text(excess)}: "
            f"{held} are in use; wait for that job to end"
        )
    return tuple(evict)


def _is_dear(item: Resident, mode: Residency, models: set[str]) -> bool:
    """Whether the person asked to keep it as long as that is possible."""
    if item.model not in models:
        return False
    return (mode == "keep_text" and item.component == "text") or (
        mode == "keep_experts" and item.component.startswith("dit.")
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class SwitchPlan:
    """What makes one model the loaded one."""

    evictions: tuple[Eviction, ...]
    loads: tuple[Load, ...]
    """In the order of a job's need."""
    left_out: tuple[Needed, ...]
    """What does not fit beside the rest and a job loads when its stage comes."""


def plan_switch(
    residents: Iterable[Resident], components: Sequence[Needed], *, budget_bytes: int, reserve_bytes: int
) -> SwitchPlan:
    """What must go and come so that `components`, all of one model, are resident as far as they fit.

    `reserve_bytes` stay free for the work of a job of the model's default size.

    Raises:
        DoesNotFit: the largest one does not fit beside that work, so no such job could run.
    """
    largest = max(components, key=lambda item: item.bytes)
    if largest.bytes + reserve_bytes > budget_bytes:
        raise DoesNotFit(
            f"{largest.label} needs {size_text(largest.bytes)}, work beside it {size_text(reserve_bytes)}, "
            f"and the budget is {size_text(budget_bytes)}; {SMALLER_WEIGHTS}"
        )
    chosen: list[Needed] = []
    left = budget_bytes - reserve_bytes
    for item in components:
        if item.bytes <= left:
            chosen.append(item)
            left -= item.bytes
    here = {item.label for item in residents}
    wanted = {item.label for item in chosen}
    target = components[0].model
    evictions = tuple(
        Eviction(
            model=item.model,
            component=item.component,
            bytes=item.bytes,
            reason=f"does not fit beside the rest of {target}"
            if item.model == target
            else f"{target} takes its place",
        )
        for item in residents
        if item.label not in wanted
    )
    return SwitchPlan(
        evictions=evictions,
        loads=tuple(
            Load(needed=item, reason=f"part of {target}") for item in chosen if item.label not in here
        ),
        left_out=tuple(item for item in components if item not in chosen),
    )


def swaps_in_place(outgoing: str, incoming: str) -> bool:
    """Whether two components are experts of one net, which can take each other's bytes."""
    return outgoing != incoming and outgoing.startswith("dit.") and incoming.startswith("dit.")
