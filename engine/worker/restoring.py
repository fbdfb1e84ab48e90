"""A reload: what a worker before this one had comes back, or none of it where the person gives it up."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TypeAlias

from engine.errors import EngineError, JobCancelled, WorkFailed
from engine.wire import Receipt
from engine.worker.channel import ModelFiles
from engine.worker.components import Component
from engine.worker.mover import Moved, Mover

Open: TypeAlias = Callable[[ModelFiles, str], Component]
Bring: TypeAlias = Callable[[Component, Moved, Collection[Component]], None]
"""Waits until a component's weights are there, begun before or not; raises where they cannot be. None of
the last ones has to go for it."""


def restore_all(
    wanted: Sequence[tuple[ModelFiles, str]],
    mover: Mover,
    *,
    open_one: Open,
    bring: Bring,
    check: Callable[[], None],
) -> Receipt:
    """Make these components resident; the receipt is not ok where one is not. The caller holds the lock.

    Where `check` raises JobCancelled all of them go again but for what is in use, also those that were
    there already: half of a model is of no use to anyone.
    """
    began = mover.clock()
    names = ", ".join(f"{files.name}/{name}" for files, name in wanted)
    components: list[Component] = []
    brought: list[Component] = []
    errors: list[str] = []
    for files, name in wanted:
        try:
            check()
            components.append(component := open_one(files, name))
            bring(component, lambda _component, _done, _total: check(), components)
            brought.append(component)
        except JobCancelled as cancelled:
            for item in mover.idle():
                if (item.model, item.name) in {(files.name, name) for files, name in wanted}:
                    mover.drop(item)
            gone = JobCancelled(f"{cancelled}; nothing of it is loaded")
            return mover.receipt("load", names, began, error=gone)
        except EngineError as error:
            errors.append(f"{files.name}/{name}: {error}")
    mover.drop_broken()
    errors += [f"{item.label}: it had to go again" for item in brought if not item.resident]
    failure = WorkFailed("; ".join(errors)) if errors else None
    loaded = sum(component.bytes for component in components if component.resident)
    return mover.receipt("load", names, began, error=failure, loaded_bytes=loaded)
