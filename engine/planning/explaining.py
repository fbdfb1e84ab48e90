"""What a switch or a whole job would move, told ahead: the decisions of `residency` in a row.

A plan is only worth showing if it comes true: the worker is answered by the same functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from engine.planning.residency import (
    REST,
    Eviction,
    Needed,
    Resident,
    Stage,
    plan_stage,
    plan_switch,
    swaps_in_place,
)
from engine.wire import PlanAction, PlanStep, Residency


class _Ledger:
    """Who is resident while a plan is told, and what was told."""

    def __init__(self, residents: Iterable[Resident]) -> None:
        self.here = {item.label: item for item in residents}
        self.steps: list[PlanStep] = []
        self.clock = max((item.last_used for item in self.here.values()), default=0.0)

    def tell(self, stage: str, action: PlanAction, item: Needed | Eviction, reason: str) -> None:
        self.steps.append(
            PlanStep(
                stage=stage,
                action=action,
                model=item.model,
                component=item.component,
                bytes=item.bytes,
                reason=reason,
                held_bytes=sum(held.bytes for held in self.here.values()),
            )
        )

    def add(self, item: Needed) -> None:
        self.here[item.label] = Resident(
            model=item.model,
            component=item.component,
            bytes=item.bytes,
            leased=False,
            last_used=self.clock,
            content=item.content,
        )

    def load_ahead(self, stage: str, item: Needed, reason: str) -> None:
        """Bring in what a later stage needs, or take it over."""
        self.adopt(stage, (item,))
        if item.label not in self.here:
            self.add(item)
            self.tell(stage, "ahead", item, reason)

    def adopt(self, stage: str, wanted: Sequence[Needed]) -> None:
        """Let `wanted` have the device memory of others with the same weights."""
        for item in wanted:
            twin = next(
                (
                    held
                    for held in self.here.values()
                    if item.content
                    and (held.component, held.content) == (item.component, item.content)
                    and not held.leased
                ),
                None,
            )
            if item.label not in self.here and twin is not None:
                del self.here[twin.label]
                self.add(item)
                self.tell(stage, "adopt", item, f"the same weights as {twin.label}, which it takes over")


def explain_switch(
    residents: Iterable[Resident], components: Sequence[Needed], *, budget_bytes: int, reserve_bytes: int
) -> tuple[PlanStep, ...]:
    """Every move of weights that a switch would make, in order, each with its reason.

    Raises:
        DoesNotFit: as `plan_switch`.
    """
    ledger = _Ledger(residents)
    ledger.adopt("switch", components)
    plan = plan_switch(
        list(ledger.here.values()), components, budget_bytes=budget_bytes, reserve_bytes=reserve_bytes
    )
    for gone in plan.evictions:
        del ledger.here[gone.label]
        ledger.tell("switch", "evict", gone, gone.reason)
    for load in plan.loads:
        ledger.add(load.needed)
        ledger.tell("switch", "load", load.needed, load.reason)
    return tuple(ledger.steps)


def explain_job(
    residents: Iterable[Resident],
    stages: Sequence[Stage],
    *,
    budget_bytes: int,
    mode: Residency = "auto",
    back: Sequence[Stage] = (),
) -> tuple[PlanStep, ...]:
    """Every move of weights of a whole job in order, each with its reason, as the worker would do it.

    `back` are stages whose weights return once the last one is over, where they fit.

    Raises:
        DoesNotFit, OutOfMemory: as `plan_stage`, from the first stage that cannot run.
    """
    ledger = _Ledger(residents)
    here = ledger.here
    for number, stage in enumerate(stages):
        ledger.clock += 1
        ledger.adopt(stage.name, stage.needed)
        if (swap := _swap_of(here, stages, number)) is not None:
            outgoing, incoming = swap
            del here[outgoing.label]
            ledger.add(incoming)
            reason = f"takes the bytes of {outgoing.component} block by block under its last step"
            ledger.tell(stage.name, "swap", incoming, reason)
        plan = plan_stage(
            here.values(),
            stage.needed,
            stage=stage.name,
            working_bytes=stage.working_bytes,
            budget_bytes=budget_bytes,
            later=stages[number + 1 :],
            mode=mode,
        )
        for gone in plan.evictions:
            del here[gone.label]
            ledger.tell(stage.name, "evict", gone, gone.reason)
        for load in plan.loads:
            ledger.add(load.needed)
            ledger.tell(stage.name, "load", load.needed, load.reason)
        for item in stage.needed:
            here[item.label] = replace(here[item.label], last_used=ledger.clock)
        for load in plan.ahead:
            if stage.ahead is None or load.needed.component in stage.ahead:
                ledger.load_ahead(stage.name, load.needed, load.reason)
    if back:
        rest = plan_stage(
            here.values(), (), stage=REST, working_bytes=0, budget_bytes=budget_bytes, later=back, mode=mode
        )
        for load in rest.ahead:
            ledger.load_ahead(REST, load.needed, "returns, so that the next job like this one finds it")
    return tuple(ledger.steps)


def _swap_of(
    here: dict[str, Resident], stages: Sequence[Stage], number: int
) -> tuple[Resident, Needed] | None:
    """The expert that leaves and the one that takes its place as this stage begins, if they swap."""
    if number == 0:
        return None
    before, now = stages[number - 1].needed, stages[number].needed
    if len(before) != 1 or len(now) != 1 or now[0].label in here or before[0].label not in here:
        return None
    outgoing, incoming = here[before[0].label], now[0]
    if not swaps_in_place(outgoing.component, incoming.component) or outgoing.bytes != incoming.bytes:
        return None
    return outgoing, incoming
