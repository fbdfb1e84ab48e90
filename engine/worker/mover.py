"""Moves components' weights onto the device and off it, tells of each move, and writes its receipt.

A receipt says what this process counted itself; the daemon completes it by what it sees from
outside.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Literal, TypeAlias

from engine.errors import EngineError, OutOfMemory
from engine.units import size_text
from engine.wire import ComponentState, Receipt, ReceiptStep
from engine.worker.backend import Backend
from engine.worker.channel import ComponentChanged
from engine.worker.components import Component
from engine.worker.faults import as_engine_error, forget

ReceiptAction: TypeAlias = Literal["load", "unload", "switch", "free"]
Moved: TypeAlias = Callable[[Component, int, int], None]
"""(component, bytes so far, bytes in all) while it loads; may raise to give up."""


def ignore_moved(component: Component, done: int, total: int) -> None:
    """Where nobody wants to know."""


class Mover:
    """Loads and unloads components; its callers take turns by the store's lock.

    Callbacks run on the thread that called.
    """

    def __init__(
        self,
        backend: Backend,
        components: Callable[[], Iterable[Component]],
        *,
        on_component: Callable[[ComponentChanged], None],
        on_moved: Callable[[Receipt], None],
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        """`components()` are all that there are, resident or not."""
        self.backend = backend
        self.clock = clock
        self._components = components
        self._on_component = on_component
        self._on_moved = on_moved
        self._wall_clock = wall_clock
        self._weights: dict[str, int] = {}

    def weights(self) -> dict[str, int]:
        """`model/component` to resident bytes; never waits, also not for a load."""
        return self._weights

    def residents(self) -> list[Component]:
        """All components whose weights are there."""
        return [item for item in self._components() if item.arena.resident]

    def idle(self) -> list[Component]:
        """Those that nothing uses."""
        return [item for item in self.residents() if not item.leases]

    def load(self, component: Component, *, moved: Moved, job_id: int | None) -> None:
        """Make it resident, with a receipt also where that fails.

        Raises:
            OutOfMemory, DeviceFault: the device refused, or its context broke.
            ModelUnusable: a weight file changed or cannot be read.
        """
        began = self.clock()
        try:
            self.fill(component, moved)
        except EngineError as error:
            self._on_moved(self.receipt("load", component.label, began, error=str(error), job_id=job_id))
            raise
        elapsed = self.clock() - began
        self._on_moved(
            self.receipt(
                "load",
                component.label,
                began,
                loaded_bytes=component.bytes,
                steps=(ReceiptStep(name="copy", bytes=component.bytes, elapsed_s=elapsed),),
                job_id=job_id,
            )
        )

    def fill(self, component: Component, moved: Moved, *, keep: Collection[Component] = ()) -> None:
        """Load, and on a refusal of the device once more after everything idle is gone.

        What is in `keep` stays, idle or not.

        Raises:
            OutOfMemory, DeviceFault, ModelUnusable: as `load`.
        """
        self.announce(component, state="loading")
        began = self.clock()
        failure = self._try_fill(component, moved)
        if isinstance(failure, OutOfMemory):
            idle = [item for item in self.idle() if item not in keep]
            for item in idle:
                self.unload(item, reason=f"the device had no room for {component.label}")
            if idle:
                failure = self._try_fill(component, moved)
        if failure is not None:
            self.announce(component)
            raise failure
        component.last_used = self.clock()
        self._recount()
        self.announce(component, load_s=component.last_used - began)

    def _try_fill(self, component: Component, moved: Moved) -> EngineError | None:
        done = 0

        def count(num_bytes: int) -> None:
            nonlocal done
            done += num_bytes
            moved(component, done, component.bytes)

        failure: EngineError | None = None
        try:
            component.load(self.backend, count)
        except EngineError as error:
            failure = error
        except Exception as error:  # an arena that cannot be filled must be dropped, whatever it was
            failure = as_engine_error(
                error, self.backend, f"loading {component.label} ({size_text(component.bytes)})"
            )
            forget(error)
        return failure

    def drop(self, component: Component) -> int:
        """Unload, recount, announce; returns the bytes that it had."""
        if not component.arena.resident:
            return 0
        component.arena.unload()
        self._recount()
        self.announce(component)
        return component.bytes

    def unload(self, component: Component, *, reason: str, job_id: int | None = None) -> None:
        """An eviction, with its receipt; `reason` becomes the name of its first step."""
        began = self.clock()
        self.backend.free_cache()  # or its bytes would count as the component's
        before = self.backend.held_bytes()
        expected = self.drop(component)
        dropped = self.clock()
        returned = self.returned_since(before)
        self._on_moved(
            self.receipt(
                "unload",
                component.label,
                began,
                expected_bytes=expected,
                returned_bytes=returned,
                steps=(
                    ReceiptStep(name=f"drop: {reason}", bytes=expected, elapsed_s=dropped - began),
                    ReceiptStep(name="verify", bytes=returned, elapsed_s=self.clock() - dropped),
                ),
                job_id=job_id,
            )
        )

    def give_back(
        self, action: Literal["unload", "free"], target: str, chosen: Sequence[Component]
    ) -> Receipt:
        began = self.clock()
        if action == "unload":
            self.backend.free_cache()  # or its bytes would count as the components'
        before = self.backend.held_bytes()
        expected = 0
        steps = []
        for component in chosen:
            since = self.clock()
            expected += self.drop(component)
            steps.append(
                ReceiptStep(
                    name=f"drop {component.label}", bytes=component.bytes, elapsed_s=self.clock() - since
                )
            )
        since = self.clock()
        self.backend.free_cache()
        returned = self.returned_since(before)
        steps.append(ReceiptStep(name="verify", bytes=returned, elapsed_s=self.clock() - since))
        return self.receipt(
            action,
            target,
            began,
            expected_bytes=expected,
            returned_bytes=returned,
            steps=tuple(steps),
        )

    def _recount(self) -> None:
        weights: dict[str, int] = {}
        for item in self.residents():
            weights[item.label] = item.bytes
            if item.arena.outside_bytes:
                weights[f"{item.label}:tables"] = item.arena.outside_bytes
        self._weights = weights

    def announce(
        self, component: Component, *, state: ComponentState | None = None, load_s: float | None = None
    ) -> None:
        """Tell how the component is now."""
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

    def returned_since(self, before: int) -> int:
        """What this process gave back; on cpu its heap moves as well, so it may be more than expected."""
        return max(0, before - self.backend.held_bytes())

    def receipt(
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
            residue=(self.backend.residue_name,) if residue else (),
            loaded_bytes=loaded_bytes,
            elapsed_s=self.clock() - began,
            proof=self.backend.proof,
            proof_reason=self._proof_reason(job_id),
            steps=steps,
            at=self._wall_clock(),
            job_id=job_id,
        )

    def _proof_reason(self, job_id: int | None) -> str:
        """Why this is not the driver's own word; the daemon replaces it where it has looked."""
        if self.backend.kind == "cpu":
            return "there is no GPU: the worker's own memory as the kernel counts it"
        return "inside a job" if job_id is not None else "the worker's own allocator"
