"""A switch: one model takes the place of all others, or everything is put back as it was.

The order is that of the receipt's steps: what fits, unload, verify, load, verify.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TypeAlias

from engine.errors import DoesNotFit, EngineError, NotNow
from engine.units import size_text
from engine.wire import Receipt, ReceiptStep
from engine.worker.components import Component, Model
from engine.worker.mover import Moved, Mover, ignore_moved

Stepped: TypeAlias = Callable[[ReceiptStep], None]


def switch_to(model: Model, mover: Mover, budget_bytes: int, *, on_step: Stepped, moved: Moved) -> Receipt:
    """Make `model` the one loaded model, in the order in which a job needs its components.

    Where the budget is too small for all of it, what fits is loaded and a job swaps the rest.
    A load that fails brings back what was there; the receipt then is not ok, says why, and counts
    only what is really gone and what really came. The caller holds the store's lock.

    Raises:
        DoesNotFit: it can never be loaded; nothing was unloaded.
        NotNow: a component is in use; nothing was unloaded.
    """
    return _Switch(mover, on_step).run(model, what_fits(model, budget_bytes), moved)


def what_fits(model: Model, budget_bytes: int) -> list[Component]:
    """The components to keep loaded within `budget_bytes`, in the order of a job's need.

    Raises:
        DoesNotFit: the largest one alone is too large, so no job could run.
    """
    largest = max(model.components.values(), key=lambda item: item.bytes)
    if largest.bytes > budget_bytes:
        raise DoesNotFit(
            f"{largest.label} needs {size_text(largest.bytes)} and the budget is {size_text(budget_bytes)}; "
            "raise the budget or take a smaller model"
        )
    chosen: list[Component] = []
    left = budget_bytes
    for item in model.components.values():
        if item.bytes <= left:
            chosen.append(item)
            left -= item.bytes
    return chosen


class _Switch:
    """One switch under way."""

    def __init__(self, mover: Mover, on_step: Stepped) -> None:
        self._mover = mover
        self._on_step = on_step
        self._began = mover.clock()
        self._steps: list[ReceiptStep] = []

    def run(self, model: Model, target: Sequence[Component], moved: Moved) -> Receipt:
        mover = self._mover
        at_start = mover.residents()
        previous = [item for item in at_start if item not in target]
        absent = [item for item in target if item not in at_start]
        busy = [item.label for item in previous if item.leases]
        if busy:
            raise NotNow(f"{', '.join(busy)} is in use by the running job; cancel it or wait for its end")
        self._stepped("fits", sum(item.bytes for item in target), self._began)

        mover.backend.free_cache()
        before = mover.backend.held_bytes()
        for item in previous:
            since = mover.clock()
            mover.drop(item)
            self._stepped(f"unload {item.label}", item.bytes, since)
        since = mover.clock()
        returned = mover.returned_since(before)
        self._stepped("verify", returned, since)

        failure = self._load("load", absent, moved, keep=target)
        if failure is not None:
            for item in absent:
                mover.drop(item)
            again = self._load("bring back", previous, ignore_moved, keep=at_start)
            if again is not None:
                failure = f"{failure}; and not all could be brought back: {again}"
            # What came back was not returned after all.
            returned = mover.returned_since(before)
        since = mover.clock()
        self._stepped("verify", sum(mover.weights().values()), since)
        return mover.receipt(
            "switch",
            model.name,
            self._began,
            error=failure,
            expected_bytes=sum(item.bytes for item in previous if not item.arena.resident),
            returned_bytes=returned,
            loaded_bytes=sum(item.bytes for item in absent if item.arena.resident),
            steps=tuple(self._steps),
        )

    def _load(
        self, verb: str, items: Sequence[Component], moved: Moved, *, keep: Collection[Component]
    ) -> str | None:
        """Load `items` until one fails; why it did. `keep` must not make room for any of them."""
        for item in items:
            since = self._mover.clock()
            try:
                self._mover.fill(item, moved, keep=keep)
            except EngineError as error:
                return str(error)
            self._stepped(f"{verb} {item.label}", item.bytes, since)
        return None

    def _stepped(self, name: str, num_bytes: int | None, since: float) -> None:
        step = ReceiptStep(name=name, bytes=num_bytes, elapsed_s=self._mover.clock() - since)
        self._steps.append(step)
        self._on_step(step)
