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

from engine.daemon.logbook import LogBook
from engine.daemon.memory import MemoryView
from engine.daemon.probe import Probe
from engine.daemon.receipts import nothing_to_do, proved
from engine.daemon.supervisor import Supervisor
from engine.daemon.worker import WorkerProcess
from engine.errors import EngineError, NotFound, NotNow, WorkerReplaced
from engine.models.model import Model
from engine.telemetry.samples import Traced
from engine.units import size_text
from engine.wire import Proof, Receipt, ReceiptAction, ReceiptStep
from engine.worker.channel import (
    CACHE_STEP,
    DropWarm,
    Free,
    ModelFiles,
    Preload,
    Proceed,
    Restore,
    SwitchTo,
    ToWorker,
    Unload,
    Unloaded,
    Wanted,
    Warm,
)

PROOF_TIMEOUT_S = 2.0
"""Memory that has not come back by then is residue, and said to be."""
SWITCH_PROOF_TIMEOUT_S = 0.05
"""How long a switch looks for the bytes that it has given back before it loads: the driver has them
already, so what is not seen at once is residue."""
LOOK_TIMEOUT_S = 0.2
"""The probe reads a process at once; an answer that takes longer will not come."""
PROOF_SLACK = 0.03
"""A process that is within this share of the expected bytes has given them back."""
CONTEXT_ROOM_BYTES = 2 * 2**30
"""What a fresh worker takes before it loads anything, with some to spare."""
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
        self._memory = memory
        self._logbook = logbook
        self._find = find
        self._kept_file = kept_file
        self._cleaning: asyncio.Task[Receipt] | None = None
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
                held = await self._held_by(worker)
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
                    until_bytes=held - told.expected_bytes - told.cache_bytes + _slack(told.expected_bytes),
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
        held = None if self._supervisor.running_job is not None else await self._held_by(worker)
        receipt = await self._supervisor.ask(action, target, message)
        if receipt.ok:
            receipt = await self._prove(worker, receipt, held, expected_bytes)
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
            held = await self._held_by(worker)
            if supervisor.worker is not worker:
                raise NotNow(f"worker {worker.pid} was replaced meanwhile; park again")
            await supervisor.retire("everything leaves the device")
            receipt = await self._proved_gone("park", worker, held, began)
            return supervisor.issue(receipt)

    async def cleanup(self, *, reload: bool) -> Receipt:
        """End the worker, whatever it does, prove that its memory is back, and start a fresh one.

        Under a job, which ends as interrupted, and with a worker that hangs, as well. With `reload`
        what was resident is loaded again while the fresh worker's libraries warm up. Who asks while
        another one is under way gets that one's receipt.
        """
        if self._cleaning is None or self._cleaning.done():
            self._cleaning = asyncio.create_task(self._cleanup(reload=reload))
        return await asyncio.shield(self._cleaning)

    async def _cleanup(self, *, reload: bool) -> Receipt:
        supervisor = self._supervisor
        waiting = asyncio.ensure_future(supervisor.device_lock.acquire())
        await asyncio.sleep(0)  # in the line before the queue, which a killed job lets go
        try:
            if supervisor.worker is None and not supervisor.starting:
                await waiting
            while supervisor.starting and supervisor.worker is None:
                await asyncio.sleep(0.01)  # one that starts for a job: it is ended as soon as it is there
            if supervisor.worker is None:
                return supervisor.issue(nothing_to_do("cleanup", "worker"))
            wanted = self._resident_now() if reload else ()
            held = await self._held_by(supervisor.worker)
            began = time.monotonic()
            worker = supervisor.let_go("a hard cleanup was asked for")
            if worker is None:  # it ended by itself while the probe looked
                await waiting
                return supervisor.issue(nothing_to_do("cleanup", "worker"))
            # The fresh one makes its context and warms its libraries while the old one dies.
            starting = asyncio.ensure_future(self._start_beside(worker, wanted))
            receipt = await self._proved_gone("cleanup", worker, held, began)
            await waiting
            try:
                receipt = await self._start_again(receipt, starting, wanted, began)
            except EngineError as error:
                # What is gone is gone, and proved; only the fresh one failed.
                receipt = replace(receipt, ok=False, error=f"no fresh worker could be started: {error}")
            return supervisor.issue(receipt)
        finally:
            if waiting.done() and not waiting.cancelled():
                supervisor.device_lock.release()
            else:
                waiting.cancel()

    async def _start_beside(self, dying: WorkerProcess, wanted: tuple[Wanted, ...]) -> WorkerProcess:
        """A fresh worker; at once where its context fits beside what the dying one still holds.

        Where the weights fit as well they travel at once, too.
        """
        supervisor = self._supervisor
        if not self._memory.has_room(CONTEXT_ROOM_BYTES):
            await dying.wait_gone()
        starting = asyncio.ensure_future(supervisor.ensure_worker(opened=wanted))
        sizes = [self._find(item.model.name).component(item.component).bytes for item in wanted]
        if not self._memory.has_room(CONTEXT_ROOM_BYTES + sum(sizes)):
            await dying.wait_gone()
        if wanted:
            (await supervisor.forked(starting)).send(Preload(wanted=wanted))
        return await starting

    async def _proved_gone(
        self, action: ReceiptAction, worker: WorkerProcess, held: int | None, began: float
    ) -> Receipt:
        """The receipt of a worker's end, once its bytes are gone; `held` are those it had."""
        steps: list[ReceiptStep] = []
        gone = await worker.wait_gone()
        self._step(action, steps, "worker ended", held, began)
        since = time.monotonic()
        traced = await self._probe.trace(
            worker.pid, worker.device_id, until_bytes=0, timeout_s=PROOF_TIMEOUT_S
        )
        left = None if traced is None else traced.end_bytes
        on_cpu = worker.device_id == "cpu"
        self._step(action, steps, "gone" if on_cpu else "gone from NVML", left, since)
        proof: Proof = "process-rss" if on_cpu else "nvml-process"
        return Receipt(
            action=action,
            target="worker and everything on it",
            ok=gone,
            error=None if gone else f"worker {worker.pid} would not die",
            expected_bytes=held or 0,
            returned_bytes=None if held is None or left is None else max(0, held - left),
            residue_bytes=left,
            residue=("the driver still counts them for a process that has ended",) if left else (),
            elapsed_s=time.monotonic() - began,
            proof=proof if held is not None and left is not None else "device-delta",
            proof_reason=None if held is not None else "the probe did not see the worker's bytes",
            steps=tuple(steps),
        )

    async def _start_again(
        self,
        receipt: Receipt,
        starting: asyncio.Future[WorkerProcess],
        wanted: tuple[Wanted, ...],
        began: float,
    ) -> Receipt:
        """Wait for the fresh worker, and for what was resident to be loaded again."""
        supervisor = self._supervisor
        steps = list(receipt.steps)
        since = time.monotonic()
        worker = await starting
        self._step("cleanup", steps, f"worker {worker.pid} ready", None, since)
        loaded, error = 0, receipt.error
        if wanted:
            since = time.monotonic()
            back = await supervisor.ask(
                "load", "what was resident", lambda action_id: Restore(action_id=action_id, wanted=wanted)
            )
            loaded, error = back.loaded_bytes, error or back.error
            self._step("cleanup", steps, "reload", loaded, since)
        return replace(
            receipt,
            ok=error is None,
            error=error,
            loaded_bytes=loaded,
            elapsed_s=time.monotonic() - began,
            steps=tuple(steps),
        )

    def _step(
        self, action: ReceiptAction, steps: list[ReceiptStep], name: str, num_bytes: int | None, since: float
    ) -> None:
        steps.append(ReceiptStep(name=name, bytes=num_bytes, elapsed_s=time.monotonic() - since))
        self._supervisor.stepped(action, "worker", steps[-1])

    def _resident_now(self) -> tuple[Wanted, ...]:
        found = []
        for name, component in self._supervisor.residents.present():
            try:
                with_model = self._find(name)
            except NotFound:  # its folder went from the disk: it cannot come back
                continue
            if with_model.problem is None:
                found.append(Wanted(model=files_of(with_model), component=component))
        return tuple(found)

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

    # ----------------------------------------------------------------- proofs

    async def _prove(
        self, worker: WorkerProcess, receipt: Receipt, held: int | None, expected_bytes: int
    ) -> Receipt:
        """Complete a receipt by what the probe sees of the process, where it sees it."""
        if held is None:
            job = self._supervisor.running_job
            why = "a job runs, whose memory moves meanwhile" if job else "the probe does not see it"
            return replace(receipt, proof_reason=f"the worker's own count: {why}")
        expected = max(receipt.expected_bytes, expected_bytes)
        if expected == 0:
            return receipt
        # Cache that went first is not what the weights gave back.
        held -= sum(step.bytes or 0 for step in receipt.steps if step.name == CACHE_STEP)
        traced = await self._probe.trace(
            worker.pid,
            worker.device_id,
            until_bytes=held - expected + _slack(expected),
            timeout_s=PROOF_TIMEOUT_S,
        )
        return proved(receipt, traced, held=held, expected=expected, on_cpu=worker.device_id == "cpu")

    async def _held_by(self, worker: WorkerProcess) -> int | None:
        """What the worker's process holds on its device at this moment."""
        seen = await self._probe.trace(
            worker.pid, worker.device_id, until_bytes=2**62, timeout_s=LOOK_TIMEOUT_S
        )
        return seen.start_bytes if seen is not None else None


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


def _slack(num_bytes: int) -> int:
    return int(num_bytes * PROOF_SLACK)


def _read_kept(path: Path) -> set[tuple[str, str]]:
    try:
        return set(msgspec.json.decode(path.read_bytes(), type=list[tuple[str, str]]))
    except (OSError, msgspec.MsgspecError):
        return set()
