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
from typing import Literal

from torch import nn

from engine.errors import DoesNotFit, EngineError, NotFound, NotNow, OutOfMemory
from engine.planning.residency import Needed, Resident, plan_residency
from engine.units import size_text
from engine.wire import ComponentState, Receipt, ReceiptStep
from engine.worker.backend import Backend
from engine.worker.channel import ComponentChanged, ModelFiles
from engine.worker.components import Component, Model, component_named, open_component, open_model, stamp_of
from engine.worker.faults import as_engine_error, forget

ReceiptAction = Literal["load", "unload", "switch", "free"]
Stepped = Callable[[ReceiptStep], None]
Moved = Callable[[Component, int, int], None]
"""(component, bytes so far, bytes in all) while it loads; may raise to give up."""


def _ignore_step(step: ReceiptStep) -> None:
    pass


def _ignore_moved(component: Component, done: int, total: int) -> None:
    pass


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
        self._on_component = on_component
        self._on_moved = on_moved
        self._clock = clock
        self._wall_clock = wall_clock
        self._lock = threading.RLock()
        self._models: dict[tuple[str, str, str], Model] = {}
        self._weights: dict[str, int] = {}

    # ----------------------------------------------------------------- looking

    def weights(self) -> dict[str, int]:
        """`model/component` to resident bytes; never waits, also not for a load."""
        return self._weights

    def open(self, files: ModelFiles) -> Model:
        """The model, opened once; a component whose files were replaced is read anew.

        Raises:
            ModelUnusable: something in its folder is missing or damaged.
        """
        with self._lock:
            key = (files.name, files.kind, files.path)
            model = self._models.get(key)
            if model is None:
                self._forget_namesakes(files)
                model = self._models[key] = open_model(files, self._backend)
            for name, component in model.components.items():
                if component.leases == 0 and stamp_of(component.index) != component.stamp:
                    if component.arena.resident:
                        self._unload(component, reason="its files were replaced")
                    model.components[name] = open_component(
                        files.name, name, component.index.folder, self._backend
                    )
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
        moved: Moved = _ignore_moved,
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
                plan = plan_residency(
                    self._residents(),
                    [Needed(model=item.model, component=item.name, bytes=item.bytes) for item in wanted],
                    stage=stage,
                    stage_bytes=stage_bytes,
                    budget_bytes=budget_bytes,
                )
                for component in wanted:
                    component.leases += 1
                    leased.append(component)
                for eviction in plan.evict:
                    victim = self._find(eviction.model, eviction.component)
                    self._unload(victim, reason=eviction.reason, job_id=job_id)
                for component in wanted:
                    if not component.arena.resident:
                        self._load(component, moved=moved, job_id=job_id)
                    else:
                        self._announce(component)
            yield {component.name: component.module for component in wanted}
        finally:
            with self._lock:
                for component in leased:
                    component.leases -= 1
                    component.last_used = self._clock()
                    self._announce(component)

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
            return self._give_back("unload", target, [item for item in chosen if item.arena.resident])

    def free(self) -> Receipt:
        """Give back the allocator's cache and every component that is not in use; also in a job."""
        with self._lock:
            idle = [item for item in self._components() if item.arena.resident and not item.leases]
            return self._give_back("free", "cache and idle components", idle)

    def switch(
        self,
        files: ModelFiles,
        budget_bytes: int,
        *,
        on_step: Stepped = _ignore_step,
        moved: Moved = _ignore_moved,
    ) -> Receipt:
        """Make `files` the one loaded model, in the order in which a job needs its components.

        Where the budget is too small for all of it, what fits is loaded and a job swaps the rest.
        A load that fails brings the previous model back; the receipt then is not ok and says why.

        Raises:
            ModelUnusable, DoesNotFit: it can never be loaded; nothing was unloaded.
            NotNow: a component is in use; nothing was unloaded.
        """
        with self._lock:
            began = self._clock()
            steps: list[ReceiptStep] = []

            def stepped(name: str, num_bytes: int | None, since: float) -> None:
                step = ReceiptStep(name=name, bytes=num_bytes, elapsed_s=self._clock() - since)
                steps.append(step)
                on_step(step)

            model = self.open(files)
            target = _what_fits(model, budget_bytes)
            previous = [item for item in self._components() if item.arena.resident and item not in target]
            busy = [item.label for item in previous if item.leases]
            if busy:
                raise NotNow(f"{', '.join(busy)} is in use by the running job; cancel it or wait for its end")
            stepped("fits", sum(item.bytes for item in target), began)

            self._backend.free_cache()
            before = self._backend.held_bytes()
            expected = sum(item.bytes for item in previous)
            for item in previous:
                since = self._clock()
                self._drop(item)
                stepped(f"unload {item.label}", item.bytes, since)
            since = self._clock()
            returned = self._returned_since(before)
            stepped("verify", returned, since)

            arrived: list[Component] = []
            failure: str | None = None
            for item in target:
                if item.arena.resident:
                    continue
                since = self._clock()
                try:
                    self._fill(item, moved)
                except EngineError as error:
                    failure = str(error)
                    break
                arrived.append(item)
                stepped(f"load {item.label}", item.bytes, since)
            loaded = sum(item.bytes for item in arrived)
            if failure is not None:
                loaded = 0
                failure = self._bring_back(arrived, previous, failure, stepped)
            since = self._clock()
            stepped("verify", sum(self._weights.values()), since)
            return self._receipt(
                "switch",
                model.name,
                began,
                error=failure,
                expected_bytes=expected,
                returned_bytes=returned,
                loaded_bytes=loaded,
                steps=tuple(steps),
            )

    # ----------------------------------------------------------------- moving bytes, under the lock

    def _load(self, component: Component, *, moved: Moved, job_id: int | None) -> None:
        began = self._clock()
        try:
            self._fill(component, moved)
        except EngineError as error:
            self._on_moved(self._receipt("load", component.label, began, error=str(error), job_id=job_id))
            raise
        elapsed = self._clock() - began
        self._on_moved(
            self._receipt(
                "load",
                component.label,
                began,
                loaded_bytes=component.bytes,
                steps=(ReceiptStep(name="copy", bytes=component.bytes, elapsed_s=elapsed),),
                job_id=job_id,
            )
        )

    def _fill(self, component: Component, moved: Moved) -> None:
        """Load, and on a refusal of the device once more after everything idle is gone."""
        self._announce(component, state="loading")
        began = self._clock()
        failure = self._try_fill(component, moved)
        if isinstance(failure, OutOfMemory):
            idle = [item for item in self._components() if item.arena.resident and not item.leases]
            for item in idle:
                self._unload(item, reason=f"the device had no room for {component.label}")
            if idle:
                failure = self._try_fill(component, moved)
        if failure is not None:
            self._announce(component)
            raise failure
        component.last_used = self._clock()
        self._recount()
        self._announce(component, load_s=component.last_used - began)

    def _try_fill(self, component: Component, moved: Moved) -> EngineError | None:
        done = 0

        def count(num_bytes: int) -> None:
            nonlocal done
            done += num_bytes
            moved(component, done, component.bytes)

        failure: EngineError | None = None
        try:
            component.load(self._backend, count)
        except EngineError as error:
            failure = error
        except Exception as error:
            failure = as_engine_error(
                error, self._backend, f"loading {component.label} ({size_text(component.bytes)})"
            )
            forget(error)
        return failure

    def _drop(self, component: Component) -> int:
        """Unload, recount, announce; returns the bytes that it had."""
        if not component.arena.resident:
            return 0
        component.arena.unload()
        self._recount()
        self._announce(component)
        return component.bytes

    def _unload(self, component: Component, *, reason: str, job_id: int | None = None) -> None:
        """An eviction, with its receipt; `reason` becomes the name of its first step."""
        began = self._clock()
        self._backend.free_cache()  # or its bytes would count as the component's
        before = self._backend.held_bytes()
        expected = self._drop(component)
        dropped = self._clock()
        returned = self._returned_since(before)
        self._on_moved(
            self._receipt(
                "unload",
                component.label,
                began,
                expected_bytes=expected,
                returned_bytes=returned,
                steps=(
                    ReceiptStep(name=f"drop: {reason}", bytes=expected, elapsed_s=dropped - began),
                    ReceiptStep(name="verify", bytes=returned, elapsed_s=self._clock() - dropped),
                ),
                job_id=job_id,
            )
        )

    def _give_back(
        self, action: Literal["unload", "free"], target: str, chosen: Sequence[Component]
    ) -> Receipt:
        began = self._clock()
        if action == "unload":
            self._backend.free_cache()  # or its bytes would count as the components'
        before = self._backend.held_bytes()
        expected = 0
        steps = []
        for component in chosen:
            since = self._clock()
            expected += self._drop(component)
            steps.append(
                ReceiptStep(
                    name=f"drop {component.label}", bytes=component.bytes, elapsed_s=self._clock() - since
                )
            )
        since = self._clock()
        self._backend.free_cache()
        returned = self._returned_since(before)
        steps.append(ReceiptStep(name="verify", bytes=returned, elapsed_s=self._clock() - since))
        return self._receipt(
            action,
            target,
            began,
            expected_bytes=expected,
            returned_bytes=returned,
            steps=tuple(steps),
        )

    def _bring_back(
        self,
        arrived: Sequence[Component],
        previous: Sequence[Component],
        failure: str,
        stepped: Callable[[str, int | None, float], None],
    ) -> str:
        """After a failed switch: drop what it loaded and load what was there; the error to report."""
        for item in arrived:
            self._drop(item)
        for item in previous:
            since = self._clock()
            try:
                self._fill(item, _ignore_moved)
            except EngineError as error:
                return f"{failure}; and {item.label} could not be brought back: {error}"
            stepped(f"bring back {item.label}", item.bytes, since)
        return failure

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
            for item in self._components()
            if item.arena.resident
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
                        self._unload(item, reason="its folder changed")
                del self._models[key]

    def _recount(self) -> None:
        weights: dict[str, int] = {}
        for item in self._components():
            if item.arena.resident:
                weights[item.label] = item.bytes
                if item.arena.outside_bytes:
                    weights[f"{item.label}:tables"] = item.arena.outside_bytes
        self._weights = weights

    def _announce(
        self, component: Component, *, state: ComponentState | None = None, load_s: float | None = None
    ) -> None:
        self._on_component(
            ComponentChanged(
                model=component.model,
                component=component.name,
                bytes=component.bytes,
                state=state or ("resident" if component.arena.resident else "absent"),
                leased=component.leases > 0,
                load_s=load_s,
            )
        )

    def _returned_since(self, before: int) -> int:
        """What this process gave back; on cpu its heap moves as well, so it may be more than expected."""
        return max(0, before - self._backend.held_bytes())

    def _receipt(
        self,
        action: ReceiptAction,
        target: str,
        began: float,
        *,
        error: str | None = None,
        expected_bytes: int = 0,
        returned_bytes: int | None = None,
        loaded_bytes: int = 0,
        steps: tuple[ReceiptStep, ...] = (),
        job_id: int | None = None,
    ) -> Receipt:
        residue = None if returned_bytes is None else max(0, expected_bytes - returned_bytes)
        return Receipt(
            action=action,
            target=target,
            ok=error is None,
            error=error,
            expected_bytes=expected_bytes,
            returned_bytes=returned_bytes,
            residue_bytes=residue,
            residue=(self._backend.residue_name,) if residue else (),
            loaded_bytes=loaded_bytes,
            elapsed_s=self._clock() - began,
            proof=self._backend.proof,
            proof_reason=self._proof_reason(job_id),
            steps=steps,
            at=self._wall_clock(),
            job_id=job_id,
        )

    def _proof_reason(self, job_id: int | None) -> str:
        """Why this is not the driver's own word; the daemon replaces it where it has looked."""
        if self._backend.kind == "cpu":
            return "there is no GPU: the worker's own memory as the kernel counts it"
        return "inside a job" if job_id is not None else "the worker's own allocator"


def _what_fits(model: Model, budget_bytes: int) -> list[Component]:
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
