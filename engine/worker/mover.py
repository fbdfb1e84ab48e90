"""Moves components' weights onto the device and off it, tells of each move, and writes its receipt.

A receipt says what this process counted itself; the daemon completes it by what it sees from
outside.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Literal, TypeAlias

from engine.errors import EngineError, JobCancelled, OutOfMemory, from_code
from engine.units import size_text
from engine.wire import ComponentState, Receipt, ReceiptAction, ReceiptStep
from engine.worker.backend import Backend
from engine.worker.channel import CACHE_STEP, ComponentChanged, Ledgered
from engine.worker.components import Component
from engine.worker.faults import as_engine_error, forget
from engine.worker.loading import Carrier, Loading
from engine.worker.memory_ledger import MemoryLedger, tell_nobody
from engine.worker.receipts import ReceiptWriter
from engine.worker.warm import WarmTier

Moved: TypeAlias = Callable[[Component, int, int], None]
"""(component, bytes so far, bytes in all) while it loads; may raise to give up."""


def ignore_moved(component: Component, done: int, total: int) -> None:
    """Where nobody wants to know."""


class Mover:
    """Loads and unloads components; its callers take turns by the store's lock.

    Callbacks run on the thread that called; those of a load that was begun, on the carrier's.
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
        warm: WarmTier | None,
        on_failed: Callable[[], None],
        on_line: Callable[[Ledgered], None] = tell_nobody,
    ) -> None:
        """`components()` are all that there are, resident or not.

        `on_failed()` asks for a `drop_broken` soon: a load that nobody waited for has failed.
        """
        self.backend = backend
        self.clock = clock
        self.warm = warm
        self.carrier = Carrier()
        self._on_failed = on_failed
        self._components = components
        self._on_component = on_component
        self._on_moved = on_moved
        self._receipts = ReceiptWriter(backend.proof, clock=clock, wall_clock=wall_clock)
        self._weights: dict[str, int] = {}
        shares_files = (lambda: False) if warm is None else warm.maps_shared
        self.ledger = MemoryLedger(backend, self.weights, on_line, shares_files=shares_files)

    def weights(self) -> dict[str, int]:
        """`model/component` to resident bytes; never waits, also not for a load."""
        return self._weights

    def residents(self) -> list[Component]:
        """All components that have device memory, their weights there or on their way."""
        return [item for item in self._components() if item.arena.attached]

    def idle(self) -> list[Component]:
        """Those that nothing uses."""
        return [item for item in self.residents() if not item.leases]

    def load(
        self,
        component: Component,
        *,
        moved: Moved,
        job_id: int | None,
        keep: Collection[Component] = (),
    ) -> None:
        """Make it resident, with a receipt also where that fails, but not where `moved` gives it up.

        Raises:
            OutOfMemory, DeviceFault: the device refused, or its context broke.
            ModelUnusable: a weight file changed or cannot be read.
        """
        began = self.clock()
        try:
            with self.ledger.line("load", component.label, model=component.model, job_id=job_id):
                self.fill(component, moved, keep=keep)
        except JobCancelled:
            raise  # by a person, who knows
        except EngineError as error:
            self.tell("load", component.label, began, error=error, job_id=job_id)
            raise
        self._tell_loaded(component, began, "copy", job_id)

    def begin(self, component: Component, *, job_id: int | None, keep: Collection[Component] = ()) -> None:
        """Give it its memory and let its weights travel while others compute; tells of the end.

        Raises:
            OutOfMemory, DeviceFault: there is no memory for it; a receipt says so too.
        """
        began = self.clock()
        line = self.ledger.begin("load", component.label, model=component.model, job_id=job_id)

        def ended(loading: Loading) -> None:
            line.end(ok=loading.failure is None)
            if loading.failure is None:
                self._tell_loaded(component, began, "copy under compute", job_id)
                self.announce(component, load_s=self.clock() - began)
            elif not isinstance(loading.failure, JobCancelled):
                self.tell("load", component.label, began, error=loading.failure, job_id=job_id)
                self._on_failed()

        try:
            loading = self._attach(component, began, ended, keep)
        except EngineError as error:
            line.end(ok=False)
            self.tell("load", component.label, began, error=error, job_id=job_id)
            raise
        self.carrier.carry(loading)

    def fill(self, component: Component, moved: Moved, *, keep: Collection[Component] = ()) -> None:
        """Load on this thread; all weights are there on return.

        Where the device refuses, once more after everything idle is gone; what is in `keep` stays,
        idle or not.

        Raises:
            OutOfMemory, DeviceFault, ModelUnusable: as `load`.
        """
        began = self.clock()
        loading = self._attach(component, began, lambda _loading: None, keep)
        loading.run(lambda _num_bytes: moved(component, loading.done_bytes, component.bytes))
        if loading.failure is not None:
            self.drop(component)
            raise loading.failure
        component.last_used = self.clock()
        self.announce(component, load_s=component.last_used - began)

    def finish(self, component: Component, moved: Moved) -> None:
        """Wait for weights that were begun before; all of them are there on return.

        Raises:
            OutOfMemory, DeviceFault, ModelUnusable: they cannot be had; the component is absent.
        """
        loading = component.loading
        assert loading is not None, "nothing was begun"
        loading.wait(lambda: moved(component, loading.done_bytes, component.bytes))
        if loading.failure is not None:
            self.drop(component)
            raise from_code(loading.failure.code, str(loading.failure))
        self.announce(component)

    def adopt(self, component: Component) -> bool:
        """Let it have the device memory of an idle component with the same weights, if there is one.

        Models of one family share their text encoder and VAE: nothing has to travel for those.
        """
        if component.arena.attached:
            return False
        twin = next((item for item in self.idle() if item.resident and item.same_weights(component)), None)
        if twin is None:
            return False
        component.adopt(twin)
        self.recount()
        self.announce(twin)
        self.announce(component)
        return True

    def drop_broken(self) -> None:
        """Give back the memory of loads that failed while nobody waited for them."""
        for item in self.residents():
            if item.broken and not item.leases:
                self.drop(item)

    def _attach(
        self,
        component: Component,
        began: float,
        on_end: Callable[[Loading], None],
        keep: Collection[Component],
    ) -> Loading:
        self.announce(component, state="loading")
        loading = self._try_attach(component, began, on_end)
        if isinstance(loading, OutOfMemory):
            idle = [item for item in self.idle() if item not in keep]
            for item in idle:
                self.unload(item, reason=f"the device had no room for {component.label}")
            if idle:
                loading = self._try_attach(component, began, on_end)
        if isinstance(loading, EngineError):
            self.announce(component)
            raise loading
        self.recount()
        return loading

    def _try_attach(
        self, component: Component, began: float, on_end: Callable[[Loading], None]
    ) -> Loading | EngineError:
        failure: EngineError
        try:
            return component.begin_load(self.backend, self.warm, began, on_end)
        except Exception as error:  # an arena that cannot be attached is absent, whatever it was
            failure = as_engine_error(
                error, self.backend, f"loading {component.label} ({size_text(component.bytes)})"
            )
            forget(error)
        return failure

    def _tell_loaded(self, component: Component, began: float, step: str, job_id: int | None) -> None:
        took = self.clock() - began
        self.tell(
            "load",
            component.label,
            began,
            loaded_bytes=component.bytes,
            steps=((step, component.bytes, took),),
            job_id=job_id,
        )

    def tell(
        self,
        action: ReceiptAction,
        target: str,
        began: float,
        *,
        error: EngineError | None = None,
        loaded_bytes: int = 0,
        steps: tuple[tuple[str, int, float], ...] = (),
        job_id: int | None = None,
    ) -> None:
        """Issue the receipt of a move inside a job; `steps` are (name, bytes, seconds)."""
        self._on_moved(
            self.receipt(
                action,
                target,
                began,
                error=error,
                loaded_bytes=loaded_bytes,
                steps=tuple(
                    ReceiptStep(name=name, bytes=num_bytes, elapsed_s=took) for name, num_bytes, took in steps
                ),
                job_id=job_id,
            )
        )

    def drop(self, component: Component) -> int:
        """Unload, recount, announce; returns the bytes that it had."""
        if not component.arena.attached:
            return 0
        component.unload()
        self.recount()
        self.announce(component)
        return component.bytes

    def unload(self, component: Component, *, reason: str, job_id: int | None = None) -> None:
        """An eviction, with its receipt; `reason` becomes the name of its first step."""
        began = self.clock()
        with self.ledger.line("unload", component.label, model=component.model, job_id=job_id):
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
        steps: list[ReceiptStep] = []
        before = self.backend.held_bytes()
        if action == "unload":
            self.backend.free_cache()  # or its bytes would count as the components'
            cached, before = before, self.backend.held_bytes()
            if cached > before:
                steps.append(
                    ReceiptStep(name=CACHE_STEP, bytes=cached - before, elapsed_s=self.clock() - began)
                )
        expected = 0
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

    def answer(self, action: ReceiptAction, target: str, act: Callable[[], Receipt]) -> Receipt:
        """The receipt of what a person asked for, also where it is refused."""
        began = self.clock()
        try:
            return act()
        except EngineError as error:
            return self.receipt(action, target, began, error=error)

    def recount(self) -> None:
        """Bring `weights` up to date."""
        weights: dict[str, int] = {}
        for item in self.residents():
            weights[item.label] = item.arena.held_bytes
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
                state=state or _state_of(component),
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
        error: EngineError | None = None,
        expected_bytes: int = 0,
        returned_bytes: int | None = None,
        loaded_bytes: int = 0,
        steps: tuple[ReceiptStep, ...] = (),
        job_id: int | None = None,
    ) -> Receipt:
        return self._receipts.write(
            action,
            target,
            began,
            error=error,
            expected_bytes=expected_bytes,
            returned_bytes=returned_bytes,
            residue=self.backend.residue_name,
            loaded_bytes=loaded_bytes,
            proof_reason=self._proof_reason(job_id),
            steps=steps,
            job_id=job_id,
        )

    def _proof_reason(self, job_id: int | None) -> str:
        """Why this is not the driver's own word; the daemon replaces it where it has looked."""
        if self.backend.kind == "cpu":
            return "there is no GPU: the worker's own memory as the kernel counts it"
        return "inside a job" if job_id is not None else "the worker's own allocator"


def _state_of(component: Component) -> ComponentState:
    if component.resident:
        return "resident"
    return "loading" if component.arena.attached and not component.broken else "absent"
