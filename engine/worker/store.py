"""The worker's weights: which components are resident, who leases them, and how they come and go.

Every load and unload passes here, is planned by `engine.planning.residency` and leaves a
receipt. One lock guards what is there; it is held while a load is planned and begun, and through
one that its caller waits for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from torch import nn

from engine.errors import EngineError, JobCancelled, NotNow, from_code
from engine.planning.residency import Needed, Resident, Stage, plan_stage, swaps_in_place
from engine.wire import Receipt, ReceiptStep, Residency, VaePrecision
from engine.worker.backend import Backend
from engine.worker.cancels import Cancels
from engine.worker.channel import FREED, ComponentChanged, Ledgered, ModelFiles
from engine.worker.components import Component, Model, component_named
from engine.worker.expert_swap import ExpertSwap
from engine.worker.memory_ledger import tell_nobody
from engine.worker.model_switch import Stepped, Unloaded, look_at_nothing, switch_to
from engine.worker.mover import Moved, Mover, ignore_moved
from engine.worker.opened import OpenedModels
from engine.worker.restoring import restore_all
from engine.worker.warm import WarmTier


def _ignore_step(step: ReceiptStep) -> None:
    """Where nobody wants to know."""


def _ignore_wait() -> None:
    """Where no lease waits for weights, and nobody gives up."""


def _needed(component: Component) -> Needed:
    return Needed(model=component.model, component=component.name, bytes=component.bytes)


class ComponentStore:
    """Opens models, leases their components, and gives their bytes back.

    Any thread may call it. Callbacks run under the lock on the thread that called, but for the end of
    a load that nobody waited for: that is told by the thread that carried it, without the lock.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        on_component: Callable[[ComponentChanged], None],
        on_moved: Callable[[Receipt], None],
        on_failed: Callable[[], None] = lambda: None,
        warm: WarmTier | None = None,
        vae_precision: VaePrecision = "auto",
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        on_line: Callable[[Ledgered], None] = tell_nobody,
    ) -> None:
        """`on_failed()` runs when a load that nobody waits for has failed: `settle` cleans up."""
        self._backend = backend
        self._clock = clock
        self._lock = threading.RLock()
        self._opened = OpenedModels(backend, vae_precision)
        self._begins = True
        self.cancels = Cancels()
        """Of the actions below, by the number that the worker was given for each."""
        self._mover = Mover(
            backend,
            self._opened.components,
            on_component=on_component,
            on_moved=on_moved,
            clock=clock,
            wall_clock=wall_clock,
            warm=warm,
            on_failed=on_failed,
            on_line=on_line,
        )
        self.ledger = self._mover.ledger
        """What is held before and after all that moves weights, and jobs."""

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
            return self._opened.open(files, self._mover)

    def files(self) -> dict[str, list[Path]]:
        """`model/component` to its weight files, of every opened model; never waits."""
        return self._opened.files()

    def components(self) -> list[Component]:
        """All of every opened model; never waits."""
        return self._opened.components()

    def component(self, files: ModelFiles, name: str) -> Component:
        """One component of a model, which is opened first.

        Raises:
            ModelUnusable, NotFound: its files are damaged; it has no component of that name.
        """
        return component_named(self.open(files), name)

    def begin(self, files: ModelFiles, name: str) -> None:
        """Let a component's weights travel; others may compute meanwhile.

        What begins so is waited for by a `restore`; once that was given up nothing begins any more.

        Raises:
            ModelUnusable, NotFound, OutOfMemory: it cannot be had.
        """
        with self._lock:
            component = self.component(files, name)
            if self._begins and not component.arena.attached and not self._mover.adopt(component):
                # What is there belongs to the same reload: one of it must not make room for another.
                self._mover.begin(component, job_id=None, keep=self._mover.residents())

    def restore(
        self, wanted: Sequence[tuple[ModelFiles, str]], *, check: Callable[[], None] = _ignore_wait
    ) -> Receipt:
        """Make these components resident beside what is there; the receipt is not ok where one is not.

        `check` may raise JobCancelled at any time: then none of them is there, nor will be.
        """
        with self._lock:
            receipt = restore_all(
                wanted, self._mover, open_one=self.component, bring=self._bring_and_wait, check=check
            )
            if receipt.error_code == JobCancelled.code:
                self._begins = False
            return receipt

    def _bring_and_wait(self, component: Component, moved: Moved, keep: Collection[Component]) -> None:
        try:
            self._bring(component, False, moved, None, keep=keep)
        finally:
            component.arena.poll = _ignore_wait

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
        later: Sequence[Stage] = (),
        mode: Residency = "auto",
        under_compute: bool = False,
        job_id: int | None = None,
        moved: Moved = ignore_moved,
    ) -> Iterator[dict[str, nn.Module]]:
        """The modules of `names`, resident and not evictable until the block ends, however it ends.

        Loads what is missing and evicts what must go for it and for `stage_bytes` of working
        memory. With `under_compute` the weights still travel when the block begins; a forward
        waits for each block of them, and `moved` is called meanwhile.

        Raises:
            DoesNotFit, OutOfMemory: no room within `budget_bytes`, or the device refused.
            ModelUnusable: a weight file changed or cannot be read.
            DeviceFault: the device context broke.
        """
        leased: list[Component] = []
        whole = False
        try:
            with self._lock:
                self._mover.drop_broken()
                wanted = [component_named(model, name) for name in names]
                for component in wanted:
                    self._mover.adopt(component)
                plan = plan_stage(
                    self._residents(),
                    [_needed(item) for item in wanted],
                    stage=stage,
                    working_bytes=stage_bytes,
                    budget_bytes=budget_bytes,
                    later=later,
                    mode=mode,
                )
                for component in wanted:
                    component.leases += 1
                    leased.append(component)
                for eviction in plan.evictions:
                    victim = self._opened.find(eviction.model, eviction.component)
                    self._mover.unload(victim, reason=eviction.reason, job_id=job_id)
                for component in wanted:
                    self._bring(component, under_compute, moved, job_id)
            yield {component.name: component.module for component in wanted}
            whole = True
        finally:
            with self._lock:
                for component in leased:
                    component.leases -= 1
                    component.last_used = self._clock()
                    if not component.leases:
                        component.arena.poll = _ignore_wait
                    useless = component.broken or not (whole or component.resident)
                    if useless and not component.leases:
                        self._mover.drop(component)
                    self._mover.announce(component)

    def _bring(
        self,
        component: Component,
        under_compute: bool,
        moved: Moved,
        job_id: int | None,
        *,
        keep: Collection[Component] = (),
    ) -> None:
        """See that its weights are there, or on their way where that will do; none of `keep` goes for it."""
        if not component.arena.attached:
            if under_compute:
                self._mover.begin(component, job_id=job_id)
            else:
                self._mover.load(component, moved=moved, job_id=job_id, keep=keep)
        else:
            self._mover.announce(component)
        loading = component.loading
        if loading is None or loading.ok:
            return
        component.arena.poll = lambda: moved(component, loading.done_bytes, component.bytes)
        component.arena.poll()  # also where it will be there before anything waits for it
        if not under_compute:
            loading.wait(component.arena.poll)
            if loading.failure is not None:
                raise from_code(loading.failure.code, str(loading.failure))

    def load_ahead(
        self,
        model: Model,
        names: Collection[str],
        *,
        now: Stage,
        later: Sequence[Stage],
        budget_bytes: int,
        mode: Residency = "auto",
        job_id: int | None = None,
    ) -> None:
        """Begin to load those of `names` that later stages need and that fit beside the running one.

        Never evicts anything, and never fails: what cannot be had now is loaded when its stage comes.
        """
        with self._lock, suppress(EngineError):
            self._mover.drop_broken()
            plan = plan_stage(
                self._residents(),
                now.needed,
                stage=now.name,
                working_bytes=now.working_bytes,
                budget_bytes=budget_bytes,
                later=later,
                mode=mode,
            )
            for load in plan.ahead:
                if load.needed.component in names:
                    component = component_named(model, load.needed.component)
                    if self._mover.adopt(component):
                        continue
                    self._mover.begin(component, job_id=job_id, keep=self._mover.residents())

    def begin_swap(
        self, model: Model, outgoing: str, incoming: str, *, job_id: int | None
    ) -> ExpertSwap | None:
        """Let `incoming` take the bytes of `outgoing`, which is leased, under its next forward.

        None where it has bytes of its own already or the two are laid out differently.
        """
        with self._lock:
            self._mover.drop_broken()
            first, second = component_named(model, outgoing), component_named(model, incoming)
            if (
                second.arena.attached
                or not first.arena.attached
                or not swaps_in_place(outgoing, incoming)
                or first.arena.layout != second.arena.layout
            ):
                return None
            return ExpertSwap(first, second, self._mover, job_id=job_id)

    @contextmanager
    def hold(self, model: Model, name: str) -> Iterator[None]:
        """Nothing takes the component for idle until the block ends, whoever else leases it."""
        component = component_named(model, name)
        with self._lock:
            component.leases += 1
        try:
            yield
        finally:
            with self._lock:
                component.leases -= 1

    def end_swap(self, swap: ExpertSwap, *, finished: bool) -> None:
        """The pass under which it ran has ended, or has failed so that both experts go."""
        with self._lock:
            if finished:
                swap.finish()
            else:
                swap.abort()

    def drop(self, model: Model, name: str) -> None:
        """Give the component's bytes back, whatever state its load is in; leased or not."""
        with self._lock:
            self._mover.drop(component_named(model, name))

    def settle(self) -> None:
        """Give back the memory of loads that failed while nobody waited for them."""
        with self._lock:
            self._mover.drop_broken()

    # ----------------------------------------------------------------- actions a person asks for
    # A refusal is a receipt, too: not ok, with its code, and nothing was changed.

    def unload(self, model: str | None = None, component: str | None = None) -> Receipt:
        """Give back one component's, one model's or all weights.

        Refused where nothing of that name was ever opened here, or some of it is in use.
        """
        target = "/".join(part for part in (model, component) if part) or "all"

        def unload() -> Receipt:
            chosen = self._opened.choose(model, component)
            busy = [item.label for item in chosen if item.leases]
            if busy:
                raise NotNow(f"{', '.join(busy)} is in use by the running job; cancel it or wait for its end")
            return self._mover.give_back("unload", target, [item for item in chosen if item.arena.attached])

        with self._lock, self.ledger.line("unload", target, model=model) as line:
            receipt = self._mover.answer("unload", target, unload)
            line.end(ok=receipt.ok)
            return receipt

    def free(self, *, idle: bool = True) -> Receipt:
        """Give back the allocator's cache and, where `idle`, what is not in use; also in a job."""
        with self._lock, self.ledger.line("unload", FREED[idle]):
            return self._mover.give_back("free", FREED[idle], self._mover.idle() if idle else ())

    def switch(
        self,
        files: ModelFiles,
        budget_bytes: int,
        *,
        reserve_bytes: int = 0,
        on_step: Stepped = _ignore_step,
        moved: Moved = ignore_moved,
        unloaded: Unloaded = look_at_nothing,
        check: Callable[[], None] = _ignore_wait,
    ) -> Receipt:
        """Make `files` the one loaded model, in the order in which a job needs its components.

        Where the budget is too small for all of it, what fits is loaded and a job swaps the rest.
        A load that fails, or a `check` that raises JobCancelled, brings the previous model back; the
        receipt then is not ok and says why. Refused where it can never be loaded, or a component is in use.
        """

        def switch() -> Receipt:
            return switch_to(
                self.open(files),
                self._mover,
                budget_bytes,
                reserve_bytes=reserve_bytes,
                on_step=on_step,
                moved=moved,
                unloaded=unloaded,
                check=check,
            )

        with self._lock, self.ledger.line("switch", files.name, model=files.name, peak=True) as line:
            receipt = self._mover.answer("switch", files.name, switch)
            line.end(ok=receipt.ok)
            return receipt

    # ----------------------------------------------------------------- bookkeeping, under the lock

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
