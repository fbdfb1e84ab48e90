"""What a person may ask of the worker's memory, each with a receipt that the probe has proved.

Unload, free, warm and drop may be asked at any time, also under a running job, which serves them
between two steps. A switch has the device to itself, as has what ends the worker. Event loop's
thread only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from engine.daemon.cleanup import Cleanup
from engine.daemon.logbook import LogBook
from engine.daemon.memory import MemoryView
from engine.daemon.probe import Probe
from engine.daemon.proofs import Proofs, slack
from engine.daemon.receipts import nothing_to_do
from engine.daemon.supervisor import Supervisor
from engine.daemon.worker import WorkerProcess
from engine.errors import NotFound, NotNow, WorkerReplaced
from engine.models.model import Model
from engine.telemetry.samples import Traced
from engine.units import size_text
from engine.wire import Receipt, ReceiptAction, ReceiptStep
from engine.worker.channel import (
    DropWarm,
    Free,
    ModelFiles,
    Proceed,
    SwitchTo,
    ToWorker,
    Unload,
    Unloaded,
    Wanted,
    Warm,
)

SWITCH_PROOF_TIMEOUT_S = 0.05
"""How long a switch looks for the bytes that it has given back before it loads: the driver has them
already, so what is not seen at once is residue."""
RESIDUE_BOUND = 256 * 2**20
"""A switch that leaves more than this behind replaces the worker before it loads."""


class Actions:
    """Switch, unload, free, warm, park and cleanup, one receipt each."""

    def __init__(
        self,
        supervisor: Supervisor,
        probe: Probe,
        memory: MemoryView,
        logbook: LogBook,
        *,
        find: Callable[[str], Model],
        running: Callable[[], int | None],
        kept_file: Path,
    ) -> None:
        """`find` gives a model by its name, `running` the job that has the device, started or not yet;
        `kept_file` remembers what a person wants warm.
        """
        self._running = running
        supervisor.on_ready = self.warm_again
        self._supervisor = supervisor
        self._probe = probe
        self._proofs = Proofs(probe)
        self._cleanup = Cleanup(supervisor, memory, self._proofs, find=find)
        self._memory = memory
        self._logbook = logbook
        self._find = find
        self._kept_file = kept_file
        self._kept = _read_kept(kept_file)

    # ----------------------------------------------------------------- weights on the device

    async def switch(self, model: Model, *, reserve_bytes: int) -> Receipt:
        """Make `model` the loaded one, after the running job; `reserve_bytes` stay free for its work.

        Raises:
            DoesNotFit: it can never run here; nothing was unloaded.
            EngineError: the worker died.
        """
        supervisor = self._supervisor
        async with supervisor.device_lock:
            worker = await supervisor.ensure_worker()
            budget = self._memory.budget()
            if budget is None:
                raise NotNow("the device has not been read yet; try again in a second")
            supervisor.busy("loading")
            try:
                held = await self._proofs.held_by(worker)
                return supervisor.issue(await self._switch(model, budget.now_bytes, reserve_bytes, held))
            finally:
                supervisor.used_at = time.monotonic()
                supervisor.busy("idle")

    async def _switch(self, model: Model, budget_bytes: int, reserve_bytes: int, held: int | None) -> Receipt:
        looks: list[asyncio.Task[Traced | None]] = []
        residue, replaced = 0, False

        def message(action_id: int) -> SwitchTo:
            return SwitchTo(
                action_id=action_id,
                model=files_of(model),
                budget_bytes=budget_bytes,
                reserve_bytes=reserve_bytes,
            )

        def unloaded(worker: WorkerProcess, told: Unloaded) -> None:
            looks.append(asyncio.create_task(look(worker, told)))

        async def look(worker: WorkerProcess, told: Unloaded) -> Traced | None:
            nonlocal residue, replaced
            began = time.monotonic()
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
                residue = max(0, told.expected_bytes - returned)
            if residue > RESIDUE_BOUND and worker.device_id != "cpu":
                text = f"{size_text(residue)} did not come back; the worker is replaced before the load"
                self._logbook.write("cleanup", text, level="warning", memory=True)
                replaced = True
                gone = self._supervisor.let_go(text)
                if gone is not None:
                    gone.kill(text)
                    await gone.wait_gone()
            else:
                worker.send(
                    Proceed(
                        action_id=told.action_id,
                        returned_bytes=returned,
                        elapsed_s=time.monotonic() - began,
                    )
                )
            return traced

        try:
            receipt = await self._supervisor.ask("switch", model.name, message, on_unloaded=unloaded)
        except WorkerReplaced:
            if not replaced:
                raise
            await looks[0]  # until the old one is gone: its memory may be needed
            # Everything is gone now, the residue too: what was expected came back by the kernel.
            receipt = await self._supervisor.ask("switch", model.name, message)
            return replace(
                receipt,
                expected_bytes=held or 0,
                returned_bytes=held,
                residue_bytes=0,
                residue=(),
                steps=(ReceiptStep(name="hard cleanup", bytes=residue, elapsed_s=0.0), *receipt.steps),
                proof_reason="the worker was replaced: the kernel gave back all that it held",
            )
        traced = await looks[0] if looks else None
        if receipt.ok and held is not None and traced is not None and traced.end_bytes is not None:
            on_cpu = self._memory.device_id == "cpu"
            receipt = replace(
                receipt,
                proof="process-rss" if on_cpu else "nvml-process",
                proof_reason="no GPU: the worker's resident set is the proof" if on_cpu else None,
                residue=("held by the worker's process beyond its weights",) if receipt.residue_bytes else (),
            )
        return receipt

    async def unload(self, model: str | None, component: str | None) -> Receipt:
        """Give back what is resident and not in use; with no worker nothing is, and that is a receipt too."""
        target = "everything" if model is None else model if component is None else f"{model}/{component}"
        if self._supervisor.worker is None:
            return self._supervisor.issue(nothing_to_do("unload", target))
        return await self._give_back(
            "unload",
            target,
            lambda action_id: Unload(action_id=action_id, model=model, component=component),
            expected_bytes=self._supervisor.residents.resident_bytes(model, component),
        )

    async def free(self) -> Receipt:
        """Give back the allocator's cache and idle components."""
        if self._supervisor.worker is None:
            return self._supervisor.issue(nothing_to_do("free", "cache and idle components"))
        return await self._give_back(
            "free",
            "cache and idle components",
            lambda action_id: Free(action_id=action_id),
            expected_bytes=self._supervisor.residents.resident_bytes(),
        )

    async def _give_back(
        self,
        action: ReceiptAction,
        target: str,
        message: Callable[[int], ToWorker],
        *,
        expected_bytes: int,
    ) -> Receipt:
        worker = await self._supervisor.ensure_worker()
        # Read now: the last reading may be from before the bytes came that this shall give back.
        held = None if self._supervisor.running_job is not None else await self._proofs.held_by(worker)
        receipt = await self._supervisor.ask(action, target, message)
        if receipt.ok:
            receipt = await self._proofs.of_return(
                worker, receipt, held, expected_bytes, running_job=self._supervisor.running_job
            )
        self._supervisor.used_at = time.monotonic()
        return self._supervisor.issue(receipt)

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
                return supervisor.issue(nothing_to_do("park", "everything"))
            began = time.monotonic()
            held = await self._proofs.held_by(worker)
            if supervisor.worker is not worker:
                raise NotNow(f"worker {worker.pid} was replaced meanwhile; park again")
            await supervisor.retire("everything leaves the device")
            receipt = await self._proofs.of_end(
                "park", worker, held, began, lambda step: supervisor.stepped("park", "worker", step)
            )
            return supervisor.issue(receipt)

    async def cleanup(self, *, reload: bool) -> Receipt:
        """End the worker, whatever it does, and start a fresh one; see `Cleanup`."""
        return await self._cleanup.run(reload=reload)

    # ----------------------------------------------------------------- host memory

    async def warm(self, model: Model, component: str | None) -> Receipt:
        """Keep weight files in host memory, registered where the driver can; remembered."""
        wanted = wanted_of(model, component)
        self._keep({*self._kept, *((item.model.name, item.component) for item in wanted)})
        await self._supervisor.ensure_worker()
        target = model.name if component is None else f"{model.name}/{component}"
        receipt = await self._supervisor.ask(
            "warm",
            target,
            lambda action_id: Warm(action_id=action_id, wanted=wanted, kept=self._all_kept()),
        )
        return self._supervisor.issue(receipt)

    async def drop_warm(self, models: Sequence[Model] | None, component: str | None) -> Receipt:
        """Let go of weight files in host memory, of these models or (None) of all that were opened."""
        wanted: tuple[Wanted, ...] | None = None
        if models is None:
            self._keep(set())
        else:
            wanted = tuple(item for model in models for item in wanted_of(model, component))
            self._keep(self._kept - {(item.model.name, item.component) for item in wanted})
        if self._supervisor.worker is None:
            return self._supervisor.issue(nothing_to_do("drop_warm", "weight files"))
        receipt = await self._supervisor.ask(
            "drop_warm",
            "weight files",
            lambda action_id: DropWarm(action_id=action_id, wanted=wanted, kept=self._all_kept()),
        )
        return self._supervisor.issue(receipt)

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

    def _keep(self, kept: set[tuple[str, str]]) -> None:
        self._kept = kept
        try:
            self._kept_file.write_bytes(msgspec.json.encode(sorted(kept)))
        except OSError as error:
            self._logbook.write("warm", f"{self._kept_file} cannot be written: {error.strerror}")

    def _all_kept(self) -> tuple[Wanted, ...]:
        found = []
        for name, component in sorted(self._kept):
            try:
                model = self._find(name)
            except NotFound:
                continue
            if model.problem is None:
                found += [item for item in wanted_of(model, None) if item.component == component]
        return tuple(found)


def files_of(model: Model) -> ModelFiles:
    """What a worker needs to open `model`."""
    return ModelFiles(name=model.name, kind=model.kind, path=str(model.path))


def wanted_of(model: Model, component: str | None) -> tuple[Wanted, ...]:
    """The components of `model`, or one of them.

    Raises:
        NotFound: it has none of that name.
    """
    names = [item.name for item in model.components]
    if component is not None:
        names = [model.component(component).name]
    return tuple(Wanted(model=files_of(model), component=name) for name in names)


def _read_kept(path: Path) -> set[tuple[str, str]]:
    try:
        return set(msgspec.json.decode(path.read_bytes(), type=list[tuple[str, str]]))
    except (OSError, msgspec.MsgspecError):
        return set()
