"""The worker's weights: which components are resident, who leases them, and how they come and go.

Every load and unload passes here, is planned by `engine.planning.residency` and leaves a
receipt. One lock guards all of it and is held through a load, so a `free` from another thread
waits for that load and then for nothing else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from engine.errors import NotFound, NotNow
from engine.planning.residency import Needed, Resident, plan_evictions
from engine.wire import Receipt, ReceiptStep
from engine.worker.backend import Backend
from engine.worker.channel import ComponentChanged, ModelFiles
from engine.worker.components import Component, Model, component_named, open_model, reopen_changed
from engine.worker.mover import Moved, Mover, ignore_moved
from engine.worker.switching import Stepped, switch_to


def _ignore_step(step: ReceiptStep) -> None:
    """Where nobody wants to know."""


class ComponentStore:
    """Opens models, leases their components, and gives their bytes back.

    Any thread may call it. Callbacks run under the lock, on the thread that called.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        on_component: Callable[[ComponentChanged], None],
        on_moved: Callable[[Receipt], None],
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._backend = backend
        self._clock = clock
        self._lock = threading.RLock()
        self._models: dict[tuple[str, str, str], Model] = {}
        self._mover = Mover(
            backend,
            self._components,
            on_component=on_component,
            on_moved=on_moved,
            clock=clock,
            wall_clock=wall_clock,
        )

    # ----------------------------------------------------------------- looking

    def weights(self) -> dict[str, int]:
        """`model/component` to resident bytes; never waits, also not for a load."""
        return self._mover.weights()

    def open(self, files: ModelFiles) -> Model:
        """The model, opened once; what changed in its files is read anew unless some of it is leased.

        Raises:
            ModelUnusable: something in its folder is missing or damaged.
        """
        with self._lock:
            key = (files.name, files.kind, files.path)
            model = self._models.get(key)
            if model is None:
                self._forget_namesakes(files)
                model = self._models[key] = open_model(files, self._backend)
            elif not any(item.leases for item in model.components.values()):
                for name, component in reopen_changed(model, self._backend).items():
                    old = model.components[name]
                    if old.arena.resident:
                        self._mover.unload(old, reason="its files were replaced")
                    model.components[name] = component
            return model

    # ----------------------------------------------------------------- leases

    @contextmanager
    def lease(
        self,
        model: Model,
        names: Sequence[str],
        *,
        stage: str,
        stage_bytes: int,
        budget_bytes: int,
        job_id: int | None = None,
        moved: Moved = ignore_moved,
    ) -> Iterator[dict[str, nn.Module]]:
        """The modules of `names`, resident and not evictable until the block ends, however it ends.

        Loads what is missing and evicts what must go for it and for `stage_bytes` of working
        memory.

        Raises:
            DoesNotFit, OutOfMemory: no room within `budget_bytes`, or the device refused.
            ModelUnusable: a weight file changed or cannot be read.
            DeviceFault: the device context broke.
        """
        leased: list[Component] = []
        try:
            with self._lock:
                wanted = [component_named(model, name) for name in names]
                evictions = plan_evictions(
                    self._residents(),
                    [Needed(model=item.model, component=item.name, bytes=item.bytes) for item in wanted],
                    stage=stage,
                    stage_bytes=stage_bytes,
                    budget_bytes=budget_bytes,
                )
                for component in wanted:
                    component.leases += 1
                    leased.append(component)
                for eviction in evictions:
                    victim = self._find(eviction.model, eviction.component)
                    self._mover.unload(victim, reason=eviction.reason, job_id=job_id)
                for component in wanted:
                    if not component.arena.resident:
                        self._mover.load(component, moved=moved, job_id=job_id)
                    else:
                        self._mover.announce(component)
            yield {component.name: component.module for component in wanted}
        finally:
            with self._lock:
                for component in leased:
                    component.leases -= 1
                    component.last_used = self._clock()
                    self._mover.announce(component)

    # ----------------------------------------------------------------- actions a person asks for

    def unload(self, model: str | None = None, component: str | None = None) -> Receipt:
        """Give back one component's, one model's or all weights.

        Raises:
            NotFound: nothing of that name was ever opened here.
            NotNow: some of it is in use; nothing was unloaded.
        """
        with self._lock:
            chosen = self._choose(model, component)
            busy = [item.label for item in chosen if item.leases]
            if busy:
                raise NotNow(f"{', '.join(busy)} is in use by the running job; cancel it or wait for its end")
            target = "/".join(part for part in (model, component) if part) or "all"
            return self._mover.give_back("unload", target, [item for item in chosen if item.arena.resident])

    def free(self) -> Receipt:
        """Give back the allocator's cache and every component that is not in use; also in a job."""
        with self._lock:
            return self._mover.give_back("free", "cache and idle components", self._mover.idle())

    def switch(
        self,
        files: ModelFiles,
        budget_bytes: int,
        *,
        on_step: Stepped = _ignore_step,
        moved: Moved = ignore_moved,
    ) -> Receipt:
        """Make `files` the one loaded model, in the order in which a job needs its components.

        Where the budget is too small for all of it, what fits is loaded and a job swaps the rest.
        A load that fails brings the previous model back; the receipt then is not ok and says why.

        Raises:
            ModelUnusable, DoesNotFit: it can never be loaded; nothing was unloaded.
            NotNow: a component is in use; nothing was unloaded.
        """
        with self._lock:
            return switch_to(self.open(files), self._mover, budget_bytes, on_step=on_step, moved=moved)

    # ----------------------------------------------------------------- bookkeeping, under the lock

    def _components(self) -> list[Component]:
        return [component for model in self._models.values() for component in model.components.values()]

    def _residents(self) -> list[Resident]:
        return [
            Resident(
                model=item.model,
                component=item.name,
                bytes=item.bytes,
                leased=item.leases > 0,
                last_used=item.last_used,
            )
            for item in self._mover.residents()
        ]

    def _find(self, model: str, component: str) -> Component:
        for item in self._components():
            if (item.model, item.name) == (model, component):
                return item
        raise NotFound(f"no component {model}/{component} is known to this worker")

    def _choose(self, model: str | None, component: str | None) -> list[Component]:
        chosen = [
            item
            for item in self._components()
            if model in (None, item.model) and component in (None, item.name)
        ]
        if not chosen and (model or component):
            known = ", ".join(item.label for item in self._components()) or "none"
            asked = "/".join(part for part in (model, component) if part)
            raise NotFound(f"nothing called {asked} was loaded by this worker; it knows {known}")
        return chosen

    def _forget_namesakes(self, files: ModelFiles) -> None:
        """A model that moved to another folder: its old self must not stay resident under its name."""
        for key, model in list(self._models.items()):
            if model.name == files.name:
                if any(item.leases for item in model.components.values()):
                    raise NotNow(f"{files.name} is in use from {model.files.path}; wait for that job to end")
                for item in model.components.values():
                    if item.arena.resident:
                        self._mover.unload(item, reason="its folder changed")
                del self._models[key]
