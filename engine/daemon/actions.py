"""What a person may ask of the worker's memory, each with a receipt that the probe has proved.

Unload, free, warm and drop may be asked at any time, also under a running job, which serves them
between two steps. A switch has the device to itself, as has what ends the worker: see
`engine.daemon.switches`. Event loop's thread only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from engine.daemon.cleanup import Cleanup
from engine.daemon.host_files import drop_files
from engine.daemon.kept import KeptWarm, not_remembered
from engine.daemon.logbook import LogBook
from engine.daemon.memory import MemoryView
from engine.daemon.probe import Probe
from engine.daemon.proofs import Proofs
from engine.daemon.receipt_book import ReceiptBook
from engine.daemon.receipts import nothing_to_do
from engine.daemon.steps import Steps
from engine.daemon.supervisor import Supervisor
from engine.daemon.switches import Switches
from engine.daemon.threads import in_thread
from engine.daemon.wanted import wanted_of
from engine.errors import NotFound, NotNow
from engine.models.model import Model
from engine.wire import Receipt, ReceiptAction
from engine.worker.channel import (
    FREED,
    DropWarm,
    Free,
    ToWorker,
    Unload,
    Wanted,
    Warm,
)
from engine.worker.tidy import TIDIED, Tidy, TidyWhat


class Actions:
    """Unload, free, warm, park and cleanup, one receipt each; and the switches."""

    def __init__(
        self,
        supervisor: Supervisor,
        probe: Probe,
        memory: MemoryView,
        logbook: LogBook,
        receipts: ReceiptBook,
        *,
        find: Callable[[str], Model],
        models: Callable[[], Sequence[Model]],
        running: Callable[[], int | None],
        kept_file: Path,
    ) -> None:
        """`find` gives a model by its name, `models` all of them, `running` the job that has the device,
        started or not yet; `kept_file` remembers what a person wants warm.
        """
        self._running = running
        supervisor.on_ready = self.warm_again
        self._supervisor = supervisor
        self._receipts = receipts
        self._proofs = Proofs(probe)
        self._find = find
        self._models = models
        self.switches = Switches(supervisor, probe, memory, logbook, receipts, proofs=self._proofs, find=find)
        self._cleanup = Cleanup(supervisor, memory, self._proofs, self.switches, receipts, find=find)
        self._kept = KeptWarm(kept_file)

    # ----------------------------------------------------------------- weights on the device

    async def unload(self, model: str | None, component: str | None) -> Receipt:
        """Give back what is resident and not in use; with no worker nothing is, and that is a receipt too."""
        target = "everything" if model is None else model if component is None else f"{model}/{component}"
        if self._supervisor.worker is None:
            return self._receipts.issue(nothing_to_do("unload", target))
        if model is not None and not self._supervisor.residents.of_model(model):
            # The worker may never have opened it, and would not know its name.
            return self._receipts.issue(nothing_to_do("unload", target, "nothing of it is on the device"))
        return await self._give_back(
            "unload",
            target,
            lambda action_id: Unload(action_id=action_id, model=model, component=component),
            expected=lambda: self._supervisor.residents.resident_bytes(model, component),
        )

    async def free(self, *, idle: bool = True, cache_bytes: int = 0) -> Receipt:
        """Give back the allocator's cache and, where `idle`, the components that nobody uses.

        `cache_bytes` is what is known of the cache, to be proved from outside.
        """
        if self._supervisor.worker is None:
            return self._receipts.issue(nothing_to_do("free", FREED[idle]))
        return await self._give_back(
            "free",
            FREED[idle],
            lambda action_id: Free(action_id=action_id, idle=idle),
            expected=lambda: cache_bytes + (self._supervisor.residents.resident_bytes() if idle else 0),
        )

    async def tidy(self, what: TidyWhat, expected_bytes: int = 0) -> Receipt:
        """Have the worker look for cycles, or give back pinned blocks or free pages of its heap."""
        supervisor, target = self._supervisor, TIDIED[what]
        if supervisor.worker is None:
            return self._receipts.issue(nothing_to_do(what, target))

        def message(action_id: int) -> ToWorker:
            return Tidy(action_id=action_id, what=what)

        if what == "collect":
            return await self._give_back(what, target, message, expected=lambda: expected_bytes)
        # Host memory beside a GPU: the driver's list of processes knows nothing of it.
        receipt = await supervisor.ask(what, target, message)
        if receipt.ok:
            residue = max(0, expected_bytes - (receipt.returned_bytes or 0))
            receipt = replace(receipt, expected_bytes=expected_bytes, residue_bytes=residue)
        supervisor.used_at = time.monotonic()
        return self._receipts.issue(receipt)

    async def _give_back(
        self,
        action: ReceiptAction,
        target: str,
        message: Callable[[int], ToWorker],
        *,
        expected: Callable[[], int],
    ) -> Receipt:
        """A job serves it between two steps; what loads beside it, a switch say, ends first.

        Else what is read before would be compared with what that has loaded meanwhile.
        """
        supervisor = self._supervisor
        if (job := self._running()) is not None:
            worker = await supervisor.ensure_worker()
            receipt = await supervisor.ask(action, target, message)
            if receipt.ok:
                receipt = await self._proofs.of_return(worker, receipt, None, 0, running_job=job)
            supervisor.used_at = time.monotonic()
            return self._receipts.issue(receipt)
        # Before those who wait: a job that waits for the switch, too, must not keep a person waiting.
        await supervisor.device_lock.acquire(first=True)
        try:
            if supervisor.worker is None:
                return self._receipts.issue(nothing_to_do(action, target))
            worker = await supervisor.ensure_worker()
            # Read now: the last reading may be from before the bytes came that this shall give back.
            held = await self._proofs.held_by(worker)
            expected_bytes = expected()
            receipt = await supervisor.ask(action, target, message)
            if receipt.ok:
                receipt = await self._proofs.of_return(
                    worker, receipt, held, expected_bytes, running_job=None
                )
            supervisor.used_at = time.monotonic()
            return self._receipts.issue(receipt)
        finally:
            supervisor.device_lock.release()

    # ----------------------------------------------------------------- the worker as a whole

    async def park(self) -> Receipt:
        """Everything out, the context too: the worker ends, and the next work starts another.

        Raises:
            NotNow: a job runs.
        """
        supervisor = self._supervisor
        if (job := self._running()) is not None:
            raise NotNow(f"job {job} runs; cancel it, or wait for its end to park")
        async with supervisor.device_lock:
            worker = supervisor.worker
            if worker is None:
                return self._receipts.issue(nothing_to_do("park", "everything"))
            steps = Steps(lambda step: self._receipts.stepped("park", "worker", step))
            held = await self._proofs.held_by(worker)
            if supervisor.worker is not worker:
                raise NotNow(f"worker {worker.pid} was replaced meanwhile; park again")
            await supervisor.retire("everything leaves the device")
            return self._receipts.issue(await self._proofs.of_end("park", worker, held, steps))

    async def cleanup(self, *, reload: bool) -> Receipt:
        """End the worker, whatever it does, and start a fresh one; see `Cleanup`."""
        return await self._cleanup.run(reload=reload)

    # ----------------------------------------------------------------- host memory

    async def warm(self, model: Model, component: str | None) -> Receipt:
        """Keep weight files in host memory, registered where the driver can; remembered."""
        wanted = wanted_of(model, component)
        forgotten = await self._kept.add(_names(wanted))
        await self._supervisor.ensure_worker()
        target = model.name if component is None else f"{model.name}/{component}"
        receipt = await self._supervisor.ask(
            "warm",
            target,
            lambda action_id: Warm(action_id=action_id, wanted=wanted, kept=self._all_kept()),
        )
        return self._receipts.issue(not_remembered(receipt, forgotten))

    async def drop_warm(self, models: Sequence[Model] | None, component: str | None) -> Receipt:
        """Let go of weight files in host memory, of these models or (None) of all.

        A worker knows what it holds of them; without one the daemon lets the page cache go itself.
        """
        wanted: tuple[Wanted, ...] | None = None
        if models is not None:
            wanted = tuple(item for model in models for item in wanted_of(model, component))
        forgotten = await self._kept.remove(None if wanted is None else _names(wanted))
        if self._supervisor.worker is None:
            receipt = await self._drop_without_worker(models, component)
        else:
            receipt = await self._supervisor.ask(
                "drop_warm",
                "weight files",
                lambda action_id: DropWarm(action_id=action_id, wanted=wanted, kept=self._all_kept()),
            )
        return self._receipts.issue(not_remembered(receipt, forgotten))

    async def _drop_without_worker(self, models: Sequence[Model] | None, component: str | None) -> Receipt:
        components = [
            (f"{model.name}/{part.name}", part)
            for model in (self._models() if models is None else models)
            for part in model.components
            if component in (None, part.name)
        ]
        target = "all weight files" if models is None else ", ".join(label for label, _ in components)
        return await in_thread(
            partial(drop_files, target or "nothing", [part for _, part in components]), name="drop-warm"
        )

    def warm_again(self) -> None:
        """Tell a fresh worker what a person wants warm; it registers that beside everything else."""
        kept = self._all_kept()
        if kept:
            task = asyncio.create_task(
                self._supervisor.ask(
                    "warm", "kept files", lambda action_id: Warm(action_id=action_id, wanted=kept, kept=kept)
                )
            )
            task.add_done_callback(lambda done: done.cancelled() or done.exception())

    def _all_kept(self) -> tuple[Wanted, ...]:
        found = []
        for name, component in sorted(self._kept.names):
            try:
                model = self._find(name)
            except NotFound:
                continue
            if model.problem is None:
                found += [item for item in wanted_of(model, None) if item.component == component]
        return tuple(found)


def _names(wanted: Sequence[Wanted]) -> list[tuple[str, str]]:
    return [(item.model.name, item.component) for item in wanted]
