"""A switch: one model takes the place of all others, or everything is put back as it was.

The order is that of the receipt's steps: what fits, unload, verify, load, verify.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TypeAlias

from engine.errors import EngineError, JobCancelled, NotNow, WorkFailed
from engine.planning.residency import Needed, plan_switch
from engine.wire import Receipt, ReceiptStep
from engine.worker.components import Component, Model
from engine.worker.mover import Moved, Mover

Stepped: TypeAlias = Callable[[ReceiptStep], None]
Unloaded: TypeAlias = Callable[[int, int, int], tuple[int | None, float]]
"""(bytes of weights that went, bytes of cache that went before, bytes that were held before either) to the
bytes that are seen to be back from outside, or None, and the seconds that looking took. Nothing is loaded
before it returns."""


PROGRESS_S = 0.25
"""How often a load under way is told of; one from warm files is mostly over before."""


def look_at_nothing(_num_bytes: int, _cache_bytes: int, _held_bytes: int) -> tuple[int | None, float]:
    """Where nobody looks from outside."""
    return None, 0.0


def switch_to(
    model: Model,
    mover: Mover,
    budget_bytes: int,
    *,
    reserve_bytes: int = 0,
    on_step: Stepped,
    moved: Moved,
    unloaded: Unloaded = look_at_nothing,
    check: Callable[[], None],
) -> Receipt:
    """Make `model` the one loaded model, in the order in which a job needs its components.

    Where the budget is too small for all of it, what fits is loaded and a job swaps the rest.
    A load that fails brings back what was there; the receipt then is not ok, says why, and counts
    only what is really gone and what really came. So does a `check` that raises JobCancelled, which is
    asked before anything moves, after the unload, and as the weights come; what brings the previous
    model back asks nobody. The caller holds the store's lock.

    `reserve_bytes` of the budget stay free for the work of the model's largest stage.

    Raises:
        DoesNotFit: it can never be loaded; nothing was unloaded.
        NotNow: a component is in use; nothing was unloaded.
        JobCancelled: it was given up before it began; nothing was unloaded.
    """
    target = _what_fits(model, budget_bytes, reserve_bytes)
    return _Switch(mover, on_step, unloaded, check, moved).run(model, target)


def _what_fits(model: Model, budget_bytes: int, reserve_bytes: int) -> list[Component]:
    """The components to keep loaded within the budget, in the order of a job's need."""
    plan = plan_switch(
        (),
        [
            Needed(model=item.model, component=item.name, bytes=item.bytes)
            for item in model.components.values()
        ],
        budget_bytes=budget_bytes,
        reserve_bytes=reserve_bytes,
    )
    return [model.components[load.needed.component] for load in plan.loads]


class _Switch:
    """One switch under way."""

    def __init__(
        self, mover: Mover, on_step: Stepped, unloaded: Unloaded, check: Callable[[], None], moved: Moved
    ) -> None:
        self._moved = moved
        self._mover = mover
        self._on_step = on_step
        self._unloaded = unloaded
        self._check = check
        self._began = mover.clock()
        self._steps: list[ReceiptStep] = []

    def run(self, model: Model, target: Sequence[Component]) -> Receipt:
        mover = self._mover
        mover.drop_broken()
        at_first = mover.residents()
        busy = [item.label for item in at_first if item.leases and item not in target]
        if busy:  # before anything is taken over
            raise NotNow(f"{', '.join(busy)} is in use by the running job; cancel it or wait for its end")
        try:
            self._check()
        except JobCancelled as cancelled:
            raise JobCancelled(f"{cancelled} before anything was moved") from None
        for item in target:
            since = mover.clock()
            if mover.adopt(item):
                self._stepped(f"keep {item.label}, the same weights", item.bytes, since)
        at_start = mover.residents()
        previous = [item for item in at_start if item not in target]
        # What is on its way already is waited for: it may yet fail.
        absent = [item for item in target if not item.resident]
        self._stepped("fits", sum(item.bytes for item in target), self._began)

        at_start_bytes = mover.backend.held_bytes()
        mover.backend.free_cache()
        before = mover.backend.held_bytes()
        for item in previous:
            since = mover.clock()
            mover.drop(item)
            self._stepped(f"unload {item.label}", item.bytes, since)
        since = mover.clock()
        returned = mover.returned_since(before)
        if previous:
            cache_bytes = max(0, at_start_bytes - before)
            seen, _ = self._unloaded(sum(item.bytes for item in previous), cache_bytes, at_start_bytes)
            returned = returned if seen is None else seen
        self._stepped("verify", returned, since)

        failure = self._given_up() or self._load("load", absent, self._check, keep=target)
        if failure is not None:
            for item in absent:
                mover.drop(item)
            gone = [item for item in at_first if not item.arena.attached and not mover.adopt(item)]
            again = self._load("bring back", gone, _never, keep=at_first)
            if again is not None:
                failure = type(failure)(f"{failure}; and not all could be brought back: {again}")
            elif isinstance(failure, JobCancelled):
                failure = JobCancelled(f"{failure}; {_as_before(at_first)}")
            # What came back was not returned after all.
            returned = mover.returned_since(before)
        since = mover.clock()
        self._stepped("verify", sum(mover.weights().values()), since)
        return mover.receipt(
            "switch",
            model.name,
            self._began,
            error=failure,
            expected_bytes=sum(item.bytes for item in previous if not item.arena.attached),
            returned_bytes=returned,
            loaded_bytes=sum(item.bytes for item in absent if item.resident),
            steps=tuple(self._steps),
        )

    def _given_up(self) -> WorkFailed | None:
        try:
            self._check()
        except JobCancelled as cancelled:
            return JobCancelled(str(cancelled))
        return None

    def _load(
        self, verb: str, items: Sequence[Component], check: Callable[[], None], *, keep: Collection[Component]
    ) -> WorkFailed | None:
        """Load `items` until one fails; why it did. `keep` must not make room for any of them."""
        for item in items:
            since = told = self._mover.clock()
            done_bytes = 0

            def coming(component: Component, done: int, total: int, since: float = since) -> None:
                nonlocal told, done_bytes
                done_bytes = done
                check()
                self._moved(component, done, total)
                now = self._mover.clock()
                if now - told >= PROGRESS_S:
                    told = now
                    name = f"{verb} {component.label}"
                    elapsed_s = now - since
                    self._on_step(ReceiptStep(name=name, bytes=done, total_bytes=total, elapsed_s=elapsed_s))

            try:
                if item.arena.attached:
                    self._mover.finish(item, coming)
                else:
                    self._mover.fill(item, coming, keep=keep)
            except EngineError as error:
                self._stepped(f"{verb} {item.label}, given up", done_bytes, since)
                # A new one without its frames; and what would refuse a request is a failure by now.
                kind = type(error) if isinstance(error, WorkFailed) else WorkFailed
                return kind(str(error))
            self._stepped(f"{verb} {item.label}", item.bytes, since)
        return None

    def _stepped(self, name: str, num_bytes: int | None, since: float) -> None:
        step = ReceiptStep(name=name, bytes=num_bytes, elapsed_s=self._mover.clock() - since)
        self._steps.append(step)
        self._on_step(step)


def _never() -> None:
    """Where nobody gives up."""


def _as_before(components: Sequence[Component]) -> str:
    """What a person has on the device again."""
    names = ", ".join(dict.fromkeys(item.model for item in components))
    return f"{names} is loaded as before" if names else "nothing was loaded before it"
