"""Switches: one model takes the place of the others, after the running job, unless a person gives it up.

Each is proved between unload and load. A worker that keeps too much is replaced before the load;
then the daemon brings back what the fresh worker cannot know. Event loop's thread only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from engine.daemon.cancel import Cancel
from engine.daemon.logbook import LogBook
from engine.daemon.memory import MemoryView
from engine.daemon.probe import Probe
from engine.daemon.proofs import Proofs
from engine.daemon.receipts import given_up, slack
from engine.daemon.supervisor import Supervisor
from engine.daemon.wanted import files_of, names_of, resident_now
from engine.daemon.worker import WorkerProcess
from engine.errors import JobCancelled, NotNow, WorkerReplaced
from engine.models.model import Model
from engine.telemetry.samples import Traced
from engine.units import size_text
from engine.wire import Receipt, ReceiptStep
from engine.worker.channel import Proceed, Restore, SwitchTo, Unloaded, Wanted

SWITCH_PROOF_TIMEOUT_S = 0.05
"""How long a switch looks for the bytes that it has given back before it loads: the driver has them
already, so what is not seen at once is residue."""
RESIDUE_BOUND = 256 * 2**20
"""A switch that leaves more than this behind replaces the worker before it loads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UnderWay:
    """A switch that has the device."""

    target: str
    previous: tuple[Wanted, ...]
    """What was there before it."""


class Switches:
    """Those under way, and those that wait for their turn."""

    def __init__(
        self,
        supervisor: Supervisor,
        probe: Probe,
        memory: MemoryView,
        logbook: LogBook,
        *,
        proofs: Proofs,
        find: Callable[[str], Model],
    ) -> None:
        """`find` gives a model by its name."""
        self._supervisor = supervisor
        self._probe = probe
        self._memory = memory
        self._logbook = logbook
        self._proofs = proofs
        self._find = find
        self.under_way: UnderWay | None = None
        self._cancels: list[Cancel] = []
        """Of the switches that were asked for and have no receipt yet."""

    async def switch(self, model: Model, *, reserve_bytes: int) -> Receipt:
        """Make `model` the loaded one, after the running job; `reserve_bytes` stay free for its work.

        Refused or given up it has a receipt too, which is not ok.

        Raises:
            EngineError: the worker died.
        """
        began = time.monotonic()
        lock, cancel = self._supervisor.device_lock, Cancel(model.name)
        self._cancels.append(cancel)
        try:
            await cancel.unless(lock.acquire())
            try:
                worker = await cancel.unless(self._supervisor.ensure_worker())
                receipt = await self._switch(worker, model, reserve_bytes, cancel)
            finally:
                lock.release()
        except JobCancelled as cancelled:
            receipt = given_up("switch", model.name, cancelled, time.monotonic() - began)
        finally:
            self._cancels.remove(cancel)
        return self._supervisor.issue(receipt)

    def cancel(self, model: str | None) -> tuple[str, ...]:
        """Give up the switches to `model`, or (None) all of them, or else a cleanup's reload; their targets.

        Each ends with a receipt of its own, which says what came back.

        Raises:
            NotNow: there is none.
        """
        chosen = [cancel for cancel in self._cancels if model in (None, cancel.target)]
        for cancel in chosen:
            cancel.ask()
        if chosen:
            return tuple(cancel.target for cancel in chosen)
        # Not beside a switch: what brings the previous model back is a reload as well.
        reloads = self._supervisor.cancel_reloads() if model is None and not self._cancels else []
        if not reloads:
            what = "no switch or reload" if model is None else f"no switch to {model}"
            raise NotNow(f"{what} is under way, so there is nothing to give up")
        return tuple(reloads)

    async def _switch(
        self, worker: WorkerProcess, model: Model, reserve_bytes: int, cancel: Cancel
    ) -> Receipt:
        """The caller holds the device lock."""
        supervisor = self._supervisor
        budget = self._memory.budget()
        if budget is None:
            raise NotNow("the device has not been read yet; try again in a second")

        def message(action_id: int) -> SwitchTo:
            return SwitchTo(
                action_id=action_id,
                model=files_of(model),
                budget_bytes=budget.now_bytes,
                reserve_bytes=reserve_bytes,
            )

        supervisor.busy("loading")
        try:
            previous = resident_now(supervisor.residents, self._find)
            self.under_way = UnderWay(target=model.name, previous=previous)
            held = await self._proofs.held_by(worker)
            if supervisor.worker is not worker:
                raise WorkerReplaced(f"worker {worker.pid} was ended before the switch began")
            look = _Look(supervisor, self._probe, self._memory, self._logbook, held)
            try:
                receipt = await supervisor.ask(
                    "switch", model.name, message, on_unloaded=look.begin, cancel=cancel
                )
            except WorkerReplaced:
                if not look.replaced:
                    raise
                await look.ended()  # until the old one is gone: its memory may be needed
                receipt = await supervisor.ask("switch", model.name, message, cancel=cancel)
                return await self._by_another(receipt, look, previous)
            return look.proved(receipt, await look.ended())
        except WorkerReplaced as error:
            raise WorkerReplaced(f"{error}; `turbotui switch {model.name}` asks for it again") from None
        finally:
            self.under_way = None
            supervisor.used_at = time.monotonic()
            supervisor.busy("idle")

    async def _by_another(self, receipt: Receipt, look: _Look, previous: tuple[Wanted, ...]) -> Receipt:
        """The receipt of a switch whose worker was replaced half way."""
        steps = (ReceiptStep(name="hard cleanup", bytes=look.residue, elapsed_s=0.0), *receipt.steps)
        if not receipt.ok:
            return await self._bring_back(replace(receipt, steps=steps), previous)
        # Everything is gone, the residue too: what was expected came back by the kernel.
        return replace(
            receipt,
            expected_bytes=look.held or 0,
            returned_bytes=look.held,
            residue_bytes=0,
            residue=(),
            steps=steps,
            proof_reason="the worker was replaced: the kernel gave back all that it held",
        )

    async def _bring_back(self, receipt: Receipt, previous: tuple[Wanted, ...]) -> Receipt:
        """Load what was there before a worker that has never seen it."""
        if not previous:
            return receipt
        back = await self._supervisor.ask(
            "load", "what was resident", lambda action_id: Restore(action_id=action_id, wanted=previous)
        )
        names = names_of(previous)
        how = f"not all could be brought back: {back.error}" if back.error else f"{names} is loaded again"
        step = ReceiptStep(name=f"bring back {names}", bytes=back.loaded_bytes, elapsed_s=back.elapsed_s)
        return replace(receipt, error=f"{receipt.error}; and {how}", steps=(*receipt.steps, step))


class _Look:
    """The look from outside at what a switch has given back, between its unload and its load."""

    def __init__(
        self,
        supervisor: Supervisor,
        probe: Probe,
        memory: MemoryView,
        logbook: LogBook,
        held: int | None,
    ) -> None:
        """`held` is what the worker's process had before, where that is known."""
        self.held = held
        self.residue = 0
        self.replaced = False
        self._supervisor = supervisor
        self._probe = probe
        self._memory = memory
        self._logbook = logbook
        self._task: asyncio.Task[Traced | None] | None = None

    def begin(self, worker: WorkerProcess, told: Unloaded) -> None:
        self._task = asyncio.create_task(self._look(worker, told))

    async def ended(self) -> Traced | None:
        """What was seen; None where nobody looked."""
        return None if self._task is None else await self._task

    def proved(self, receipt: Receipt, traced: Traced | None) -> Receipt:
        """`receipt` with the proof that was seen, where it was."""
        if not receipt.ok or self.held is None or traced is None or traced.end_bytes is None:
            return receipt
        on_cpu = self._memory.device_id == "cpu"
        return replace(
            receipt,
            proof="process-rss" if on_cpu else "nvml-process",
            proof_reason="no GPU: the worker's resident set is the proof" if on_cpu else None,
            residue=("held by the worker's process beyond its weights",) if receipt.residue_bytes else (),
        )

    async def _look(self, worker: WorkerProcess, told: Unloaded) -> Traced | None:
        began = time.monotonic()
        held = self.held
        traced = None
        if held is not None:
            traced = await self._probe.trace(
                worker.pid,
                worker.device_id,
                until_bytes=held - told.expected_bytes - told.cache_bytes + slack(told.expected_bytes),
                timeout_s=SWITCH_PROOF_TIMEOUT_S,
            )
        returned = None
        if held is not None and traced is not None and traced.end_bytes is not None:
            returned = max(0, held - traced.end_bytes - told.cache_bytes)
            self.residue = max(0, told.expected_bytes - returned)
        if self.residue > RESIDUE_BOUND and worker.device_id != "cpu":
            await self._replace(worker)
        else:
            worker.send(
                Proceed(action_id=told.action_id, returned_bytes=returned, elapsed_s=time.monotonic() - began)
            )
        return traced

    async def _replace(self, worker: WorkerProcess) -> None:
        text = f"{size_text(self.residue)} did not come back; the worker is replaced before the load"
        self._logbook.write("cleanup", text, level="warning", memory=True)
        self.replaced = True
        gone = self._supervisor.let_go(text)
        if gone is not None:
            gone.kill(text)
            await gone.wait_gone()
