"""Switches: one model takes the place of the others, after the running job, unless a person gives it up.

What one does that has the device is in `engine.daemon.switch_course`. Event loop's thread only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from engine.daemon.cancel import Cancel
from engine.daemon.logbook import LogBook
from engine.daemon.look import Look
from engine.daemon.memory import MemoryView
from engine.daemon.probe import Probe
from engine.daemon.proofs import Proofs
from engine.daemon.readiness import FirstReading
from engine.daemon.receipt_book import ReceiptBook
from engine.daemon.receipts import given_up
from engine.daemon.supervisor import Supervisor
from engine.daemon.switch_course import SwitchCourse
from engine.daemon.wanted import files_of, resident_now
from engine.daemon.worker import WorkerProcess
from engine.errors import DoesNotFit, JobCancelled, NotNow
from engine.models.model import Model
from engine.wire import Receipt
from engine.worker.channel import SwitchTo


class Switches:
    """Those under way, and those that wait for their turn."""

    def __init__(
        self,
        supervisor: Supervisor,
        probe: Probe,
        memory: MemoryView,
        logbook: LogBook,
        receipts: ReceiptBook,
        *,
        proofs: Proofs,
        find: Callable[[str], Model],
    ) -> None:
        """`find` gives a model by its name."""
        self._supervisor = supervisor
        self._probe = probe
        self._memory = memory
        self._logbook = logbook
        self._receipts = receipts
        self._proofs = proofs
        self._find = find
        self.under_way: SwitchCourse | None = None
        """The one that has the device."""
        self.reloads: list[Cancel] = []
        """Of the cleanups whose weights travel."""
        self._cancels: list[Cancel] = []
        """Of the switches that were asked for and have no receipt yet."""

    async def switch(
        self, model: Model, *, reserve: Callable[[Model], int], device_read: FirstReading
    ) -> Receipt:
        """Make `model` the loaded one, after the running job and not before the device was read.

        `reserve(model)` bytes stay free for its work.

        Refused, given up, or with a worker that died under it, it has a receipt too, which is not ok.

        Raises:
            EngineError: no worker could be started, or a hard cleanup ended it.
        """
        began = time.monotonic()
        lock, cancel = self._supervisor.device_lock, Cancel(model.name)
        self._cancels.append(cancel)
        try:
            await cancel.unless(device_read.wait())
            await cancel.unless(lock.acquire())
            try:
                worker = await cancel.unless(self._supervisor.ensure_worker())
                receipt = await self._switch(worker, model, reserve(model), cancel)
            finally:
                lock.release()
        except JobCancelled as cancelled:
            receipt = given_up("switch", model.name, cancelled, time.monotonic() - began)
        finally:
            self._cancels.remove(cancel)
        return self._receipts.issue(receipt)

    def cancel(self, model: str | None) -> tuple[str, ...]:
        """Give up the switches to `model`, or (None) all of them, or else a cleanup's reload; their targets.

        Each ends with a receipt of its own, which says what came back.

        Raises:
            NotNow: there is none.
        """
        chosen = [cancel for cancel in self._cancels if model in (None, cancel.target)]
        if model is None and not chosen:
            chosen = list(self.reloads)
        if not chosen:
            what = "no switch or reload" if model is None else f"no switch to {model}"
            raise NotNow(f"{what} is under way, so there is nothing to give up")
        for cancel in chosen:
            cancel.ask()
        return tuple(cancel.target for cancel in chosen)

    async def _switch(
        self, worker: WorkerProcess, model: Model, reserve_bytes: int, cancel: Cancel
    ) -> Receipt:
        """The caller holds the device lock."""
        supervisor = self._supervisor
        budget = self._memory.budget()
        if budget is None:
            raise NotNow("the device has not been read yet; try again in a second")
        files, budget_bytes = files_of(model), budget.now_bytes
        self.under_way = SwitchCourse(
            supervisor,
            self._receipts,
            self._proofs,
            Look(supervisor, self._probe, self._memory, self._logbook),
            cancel,
            message=lambda action_id: SwitchTo(
                action_id=action_id, model=files, budget_bytes=budget_bytes, reserve_bytes=reserve_bytes
            ),
            previous=resident_now(supervisor.residents, self._find),
        )
        try:
            receipt = await self.under_way.run(worker)
        finally:
            self.under_way = None
        if receipt.error_code == DoesNotFit.code:  # the worker knows how much there is, and not why
            receipt = replace(receipt, error=f"{receipt.error}; {budget.held_by}")
        return receipt
