"""One switch that has the device, from the worker that is asked to the receipt.

A worker that keeps too much of its unload is replaced before the load, and one may be killed at any
time; then the daemon brings back what the fresh worker cannot know. Event loop's thread only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from engine.daemon.cancel import Cancel
from engine.daemon.look import Look
from engine.daemon.proofs import Proofs
from engine.daemon.receipt_book import ReceiptBook
from engine.daemon.steps import Steps
from engine.daemon.supervisor import Supervisor
from engine.daemon.wanted import Resident
from engine.daemon.worker import WorkerProcess
from engine.errors import EngineError, JobCancelled, WorkerDied, WorkerReplaced, WorkerStopped
from engine.wire import Receipt
from engine.worker.channel import Restore, SwitchTo


class SwitchCourse:
    """A switch under way; the caller holds the device lock."""

    def __init__(
        self,
        supervisor: Supervisor,
        receipts: ReceiptBook,
        proofs: Proofs,
        look: Look,
        cancel: Cancel,
        *,
        message: Callable[[int], SwitchTo],
        previous: Resident,
    ) -> None:
        self.target = cancel.target
        self.previous = previous
        """What was there before it."""
        self._supervisor = supervisor
        self._proofs = proofs
        self._look = look
        self._cancel = cancel
        self._message = message
        self._steps = Steps(lambda step: receipts.stepped("switch", self.target, step))

    async def run(self, worker: WorkerProcess) -> Receipt:
        """Its receipt, also where the worker died under it.

        Raises:
            WorkerReplaced: a hard cleanup ended the worker.
            WorkerStopped: the engine ends.
        """
        supervisor = self._supervisor
        supervisor.busy("loading")
        try:
            return await self._run(worker)
        except WorkerReplaced as error:
            raise WorkerReplaced(f"{error}; `turbotui switch {self.target}` asks for it again") from None
        finally:
            supervisor.used_at = time.monotonic()
            supervisor.busy("idle")

    async def _run(self, worker: WorkerProcess) -> Receipt:
        look = self._look
        look.held = await self._proofs.held_by(worker)
        try:
            self._check_alive(worker)
            receipt = await self._ask()
        except WorkerReplaced:
            if not look.replaced:
                raise
            return await self._by_another(worker)
        except WorkerStopped:
            raise
        except WorkerDied as died:
            return await self._after_death(worker, died, look.held)
        return look.proved(receipt, await look.ended())

    def _check_alive(self, worker: WorkerProcess) -> None:
        """Nobody but this worker may be asked: another one has something else to load first."""
        if self._supervisor.worker is worker:
            return
        if worker.exit is not None and worker.exit.reason is None:
            raise WorkerDied(worker.exit.sentence())
        raise WorkerReplaced(f"worker {worker.pid} was ended before the switch began")

    async def _ask(self, *, looks: bool = True) -> Receipt:
        return await self._supervisor.ask(
            "switch",
            self.target,
            self._message,
            on_unloaded=self._look.begin if looks else None,
            on_step=self._steps.took,
            cancel=self._cancel,
        )

    async def _by_another(self, worker: WorkerProcess) -> Receipt:
        """The receipt of a switch whose worker is replaced half way."""
        look, steps = self._look, self._steps
        await look.ended()
        steps.ended("verify, and replace the worker", look.residue)
        # Until its bytes are gone, which may be needed; with them goes the residue.
        ended = await self._proofs.of_end("switch", worker, look.held, steps)
        try:
            fresh = await self._fresh_worker()
        except (WorkerReplaced, WorkerStopped):
            raise
        except EngineError as error:  # what is gone is gone, and proved
            return await self._bring_back(
                replace(ended, target=self.target, ok=False, error=str(error), error_code=error.code)
            )
        try:
            receipt = await self._ask(looks=False)
        except (WorkerReplaced, WorkerStopped):
            raise
        except WorkerDied as died:
            return await self._after_death(fresh, died, None)
        receipt = replace(receipt, elapsed_s=steps.elapsed_s, steps=tuple(steps.taken))
        if not receipt.ok:
            # It says what this worker had before, which is nothing.
            cancelled = receipt.error_code == JobCancelled.code
            return await self._bring_back(replace(receipt, error="cancelled") if cancelled else receipt)
        return replace(
            receipt,
            expected_bytes=ended.expected_bytes,
            returned_bytes=ended.returned_bytes,
            residue_bytes=ended.residue_bytes,
            residue=ended.residue,
            proof=ended.proof,
            proof_reason=ended.proof_reason or "the worker was replaced: all that it held was to come back",
        )

    async def _after_death(self, worker: WorkerProcess, died: WorkerDied, held: int | None) -> Receipt:
        """The receipt of a switch whose worker, which `held` so much, died; brings back what was there."""
        receipt = await self._proofs.of_end("switch", worker, held, self._steps)
        return await self._bring_back(
            replace(receipt, target=self.target, ok=False, error=str(died), error_code=died.code)
        )

    async def _fresh_worker(self) -> WorkerProcess:
        worker = await self._supervisor.ensure_worker()
        self._supervisor.busy("loading")
        self._steps.ended(f"worker {worker.pid} ready")
        return worker

    async def _bring_back(self, receipt: Receipt) -> Receipt:
        """Load what was there before, on a worker that has never seen it; asks nobody."""
        if self.previous.lost:
            lost = "; ".join(self.previous.lost)
            receipt = replace(receipt, error=f"{receipt.error}; and what cannot come back is {lost}")
        names, steps, wanted = self.previous.names, self._steps, self.previous.wanted
        if not wanted:
            nothing = "" if self.previous.lost else "; nothing was loaded before it"
            return replace(receipt, error=f"{receipt.error}{nothing}")
        try:
            if self._supervisor.worker is None:
                await self._fresh_worker()
            back = await self._supervisor.ask(
                "load", "what was resident", lambda action_id: Restore(action_id=action_id, wanted=wanted)
            )
            steps.ended(f"bring back {names}", back.loaded_bytes)
            failure = back.error
        except (WorkerReplaced, WorkerStopped):
            raise
        except EngineError as error:
            failure = str(error)
        how = f"{names} is loaded again"
        if failure is not None:
            way_out = f"`turbotui switch {wanted[0].model.name}` loads it"
            how = f"not all of {names} could be brought back: {failure}; {way_out}"
        return replace(
            receipt,
            error=f"{receipt.error}; and {how}",
            elapsed_s=steps.elapsed_s,
            steps=tuple(steps.taken),
        )
