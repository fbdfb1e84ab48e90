"""The hard cleanup: the worker ends, whatever it does, and a fresh one takes its place.

The order is what makes it quick. Ending a worker that holds 43 GB of registered pages takes the
kernel half a second, in which nobody else gets a context; so, where there is room for it beside the
old one, the fresh worker makes its context first, while the old one is stopped. Its weights travel
while the old one dies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

from engine.daemon.cancel import Cancel
from engine.daemon.memory import MemoryView
from engine.daemon.proofs import Proofs
from engine.daemon.receipt_book import ReceiptBook
from engine.daemon.receipts import nothing_to_do
from engine.daemon.steps import Steps
from engine.daemon.supervisor import Supervisor
from engine.daemon.switch_course import SwitchCourse
from engine.daemon.switches import Switches
from engine.daemon.wanted import NOTHING, Resident, resident_now
from engine.daemon.worker import WorkerProcess
from engine.errors import EngineError, JobCancelled, NotFound, NotNow
from engine.models.model import Model
from engine.wire import Receipt
from engine.worker.channel import Preload, Restore, Wanted

CONTEXT_ROOM_BYTES = 2 * 2**30
"""What a fresh worker takes before it loads anything, with some to spare."""
CONTEXT_S = 0.6
"""How long the old worker waits, stopped, for the fresh one's context: it takes 0.2 to 0.3 s."""
WHY = "a hard cleanup was asked for"


class Cleanup:
    """Ends workers; who asks the same while one is under way gets its receipt. Event loop's thread only."""

    def __init__(
        self,
        supervisor: Supervisor,
        memory: MemoryView,
        proofs: Proofs,
        switches: Switches,
        receipts: ReceiptBook,
        *,
        find: Callable[[str], Model],
    ) -> None:
        """`find` gives a model by its name."""
        self._supervisor = supervisor
        self._memory = memory
        self._proofs = proofs
        self._switches = switches
        self._receipts = receipts
        self._find = find
        self._running: asyncio.Task[Receipt] | None = None
        self._reloads = False

    async def run(self, *, reload: bool) -> Receipt:
        """End the worker, prove that its memory is back, and start a fresh one.

        Under a job, which ends as interrupted, and with a worker that hangs, as well. With `reload`
        what was resident is loaded again while the fresh worker's libraries warm up.

        Raises:
            NotNow: one is under way that does not do the same.
        """
        if self._running is None or self._running.done():
            self._reloads = reload
            self._running = asyncio.create_task(self._run(reload=reload))
        elif self._reloads and not reload:
            raise NotNow(
                "a cleanup with a reload is under way; `turbotui cancel-switch` gives its reload up, "
                "or ask again once it has ended"
            )
        elif reload and not self._reloads:
            raise NotNow("a cleanup without a reload is under way; ask again once it has ended")
        return await asyncio.shield(self._running)

    async def _run(self, *, reload: bool) -> Receipt:
        supervisor = self._supervisor
        cancel = Cancel("what was resident")
        # Before the queue and before switches that wait: they would load beside what is brought back.
        waiting = asyncio.ensure_future(supervisor.device_lock.acquire(first=True))
        await asyncio.sleep(0)  # in the line before the killed job lets go
        try:
            if supervisor.worker is None and not supervisor.starting:
                await waiting
            while supervisor.starting and supervisor.worker is None:
                await asyncio.sleep(0.01)  # one that starts for a job: it is ended as soon as it is there
            if supervisor.worker is None:
                return self._receipts.issue(nothing_to_do("cleanup", "worker"))
            looked_at = supervisor.worker
            seen = await self._proofs.held_by(looked_at)
            steps = Steps(lambda step: self._receipts.stepped("cleanup", "worker", step))
            # Read in the same moment as the worker is let go: a switch may have ended while the probe looked.
            cut_off = self._switches.under_way
            resident = self._to_come_back(cut_off) if reload else NOTHING
            wanted = resident.wanted
            why = WHY if cut_off is None else f"{WHY}, which {_promise(resident)}"
            worker = supervisor.let_go(why)
            if worker is None:  # it ended by itself while the probe looked
                await waiting
                return self._receipts.issue(nothing_to_do("cleanup", "worker"))
            try:
                starting = await self._start_beside(worker, wanted, steps)
            finally:
                worker.kill(WHY)
            self._switches.reloads += [cancel] if wanted else []
            preloading = asyncio.ensure_future(self._preload(worker, starting, wanted, cancel))
            held = seen if worker is looked_at else None
            receipt = await self._proofs.of_end("cleanup", worker, held, steps)
            await waiting
            # What is gone is gone, and proved, whatever becomes of the fresh one.
            back = await self._start_again(
                starting, preloading, resident, cancel, steps, _reload_name(cut_off)
            )
            lost = f"did not come back: {'; '.join(resident.lost)}" if resident.lost else None
            error = "; ".join(filter(None, (receipt.error, back.error, lost)))
            receipt = replace(
                receipt,
                ok=not error,
                error=error or None,
                error_code=back.error_code if receipt.ok else None,
                loaded_bytes=back.loaded_bytes,
                elapsed_s=steps.elapsed_s,
                steps=tuple(steps.taken),
            )
            return self._receipts.issue(receipt)
        finally:
            if cancel in self._switches.reloads:
                self._switches.reloads.remove(cancel)
            if waiting.done() and not waiting.cancelled():
                supervisor.device_lock.release()
            else:
                waiting.cancel()

    def _to_come_back(self, cut_off: SwitchCourse | None) -> Resident:
        """What is resident now; in the middle of a switch what was before it, not the half of both."""
        if cut_off is not None:
            return cut_off.previous
        return resident_now(self._supervisor.residents, self._find)

    async def _start_beside(
        self, stopped: WorkerProcess, wanted: tuple[Wanted, ...], steps: Steps
    ) -> asyncio.Future[WorkerProcess]:
        """A fresh worker, under way; it has its context where that fits beside the stopped one."""
        supervisor = self._supervisor
        beside = self._memory.has_room(CONTEXT_ROOM_BYTES)
        if not beside:
            stopped.kill(WHY)
            await stopped.wait_gone()
        starting = asyncio.ensure_future(supervisor.ensure_worker(opened=wanted))
        if beside:
            connected = await supervisor.connected(starting, timeout_s=CONTEXT_S)
            steps.ended("fresh context" if connected else "no fresh context in time")
        return starting

    async def _preload(
        self,
        dying: WorkerProcess,
        starting: asyncio.Future[WorkerProcess],
        wanted: tuple[Wanted, ...],
        cancel: Cancel,
    ) -> bool:
        """Let weights travel at once, or as soon as the dying worker's have made room; whether they do."""
        if not wanted:
            return False
        if not self._memory.has_room(CONTEXT_ROOM_BYTES + sum(map(self._bytes, wanted))):
            await dying.wait_gone()
        try:
            worker = await self._supervisor.forked(starting)
        except EngineError:  # said by the one who waits for its start
            return False
        if cancel.asked:
            return False
        worker.send(Preload(wanted=wanted))
        return True

    def _bytes(self, wanted: Wanted) -> int:
        try:
            return self._find(wanted.model.name).component(wanted.component).bytes
        except NotFound:  # its folder went just now: the worker says so
            return 0

    async def _start_again(
        self,
        starting: asyncio.Future[WorkerProcess],
        preloading: asyncio.Future[bool],
        resident: Resident,
        cancel: Cancel,
        steps: Steps,
        reload_name: str,
    ) -> _Back:
        """Wait for the fresh worker, and for what was resident to be loaded again."""
        wanted = resident.wanted
        way_out = (
            f"`turbotui switch {wanted[0].model.name}` loads it" if wanted else "the next work starts one"
        )
        try:
            worker = await starting
        except EngineError as error:
            await preloading
            steps.ended("wait for a fresh worker")
            return _Back(error=f"no fresh worker became ready: {error}; {way_out}")
        # It began its start long before: what it took of the cleanup's time is what was left of that.
        steps.ended(f"wait until worker {worker.pid} is ready")
        if not wanted:
            return _Back()
        if not await preloading and cancel.asked:
            return _Back(error="cancelled; nothing of it is loaded", error_code=JobCancelled.code)
        try:
            receipt = await self._supervisor.ask(
                "load",
                cancel.target,
                lambda action_id: Restore(action_id=action_id, wanted=wanted),
                cancel=cancel,
            )
        except EngineError as error:
            steps.ended(reload_name, 0)
            return _Back(error=f"{resident.names} did not come back: {error}; {way_out}")
        steps.ended(reload_name, receipt.loaded_bytes)
        return _Back(error=receipt.error, error_code=receipt.error_code, loaded_bytes=receipt.loaded_bytes)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Back:
    """What a fresh worker has of what was resident."""

    error: str | None = None
    error_code: str | None = None
    loaded_bytes: int = 0


def _promise(resident: Resident) -> str:
    return f"brings back {resident.names}" if resident.wanted else "loads nothing again"


def _reload_name(cut_off: SwitchCourse | None) -> str:
    return "reload" if cut_off is None else f"reload what was there before the switch to {cut_off.target}"
