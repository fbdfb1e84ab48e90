"""The hard cleanup: the worker ends, whatever it does, and a fresh one takes its place.

The order is what makes it quick. Ending a worker that holds 43 GB of registered pages takes the
kernel half a second, in which nobody else gets a context; so, where there is room for it beside the
old one, the fresh worker makes its context first, while the old one is stopped. Its weights travel
while the old one dies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from engine.daemon.memory import MemoryView
from engine.daemon.proofs import Proofs
from engine.daemon.receipts import nothing_to_do
from engine.daemon.steps import Steps
from engine.daemon.supervisor import Supervisor
from engine.daemon.switches import Switches
from engine.daemon.switching import Switching
from engine.daemon.wanted import names_of, resident_now
from engine.daemon.worker import WorkerProcess
from engine.errors import EngineError
from engine.models.model import Model
from engine.wire import Receipt
from engine.worker.channel import Preload, Restore, Wanted

CONTEXT_ROOM_BYTES = 2 * 2**30
"""What a fresh worker takes before it loads anything, with some to spare."""
CONTEXT_S = 0.6
"""How long the old worker waits, stopped, for the fresh one's context: it takes 0.2 to 0.3 s."""
WHY = "a hard cleanup was asked for"


class Cleanup:
    """Ends workers; who asks while one is under way gets that one's receipt. Event loop's thread only."""

    def __init__(
        self,
        supervisor: Supervisor,
        memory: MemoryView,
        proofs: Proofs,
        switches: Switches,
        *,
        find: Callable[[str], Model],
    ) -> None:
        """`find` gives a model by its name."""
        self._supervisor = supervisor
        self._memory = memory
        self._proofs = proofs
        self._switches = switches
        self._find = find
        self._running: asyncio.Task[Receipt] | None = None

    async def run(self, *, reload: bool) -> Receipt:
        """End the worker, prove that its memory is back, and start a fresh one.

        Under a job, which ends as interrupted, and with a worker that hangs, as well. With `reload`
        what was resident is loaded again while the fresh worker's libraries warm up.
        """
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run(reload=reload))
        return await asyncio.shield(self._running)

    async def _run(self, *, reload: bool) -> Receipt:
        supervisor = self._supervisor
        # Before the queue and before switches that wait: they would load beside what is brought back.
        waiting = asyncio.ensure_future(supervisor.device_lock.acquire(first=True))
        await asyncio.sleep(0)  # in the line before the killed job lets go
        try:
            if supervisor.worker is None and not supervisor.starting:
                await waiting
            while supervisor.starting and supervisor.worker is None:
                await asyncio.sleep(0.01)  # one that starts for a job: it is ended as soon as it is there
            if supervisor.worker is None:
                return supervisor.issue(nothing_to_do("cleanup", "worker"))
            held = await self._proofs.held_by(supervisor.worker)
            steps = Steps(lambda step: supervisor.stepped("cleanup", "worker", step))
            # Read in the same moment as the worker is let go: a switch may have ended while the probe looked.
            cut_off = self._switches.under_way
            wanted = self._to_come_back(cut_off) if reload else ()
            why = WHY if cut_off is None else f"{WHY}, which {_promise(wanted)}"
            worker = supervisor.let_go(why)
            if worker is None:  # it ended by itself while the probe looked
                await waiting
                return supervisor.issue(nothing_to_do("cleanup", "worker"))
            try:
                starting = await self._start_beside(worker, wanted, steps)
            finally:
                worker.kill(WHY)
            preloading = asyncio.ensure_future(self._preload(worker, starting, wanted))
            receipt = await self._proofs.of_end("cleanup", worker, held, steps)
            await waiting
            try:
                await preloading
                receipt = await self._start_again(receipt, starting, wanted, _reload_name(cut_off), steps)
            except EngineError as error:
                # What is gone is gone, and proved; only the fresh one failed.
                receipt = replace(receipt, ok=False, error=f"no fresh worker could be started: {error}")
            receipt = replace(receipt, elapsed_s=steps.elapsed_s, steps=tuple(steps.taken))
            return supervisor.issue(receipt)
        finally:
            if waiting.done() and not waiting.cancelled():
                supervisor.device_lock.release()
            else:
                waiting.cancel()

    def _to_come_back(self, cut_off: Switching | None) -> tuple[Wanted, ...]:
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
        self, dying: WorkerProcess, starting: asyncio.Future[WorkerProcess], wanted: Sequence[Wanted]
    ) -> None:
        """Let weights travel at once, or as soon as the dying worker's have made room."""
        if not wanted:
            return
        sizes = [self._find(item.model.name).component(item.component).bytes for item in wanted]
        if not self._memory.has_room(CONTEXT_ROOM_BYTES + sum(sizes)):
            await dying.wait_gone()
        (await self._supervisor.forked(starting)).send(Preload(wanted=tuple(wanted)))

    async def _start_again(
        self,
        receipt: Receipt,
        starting: asyncio.Future[WorkerProcess],
        wanted: tuple[Wanted, ...],
        reload_name: str,
        steps: Steps,
    ) -> Receipt:
        """Wait for the fresh worker, and for what was resident to be loaded again."""
        worker = await starting
        # It began its start long before: what it took of the cleanup's time is what was left of that.
        steps.ended(f"wait until worker {worker.pid} is ready")
        loaded, error = 0, receipt.error
        if wanted:
            back = await self._supervisor.ask(
                "load", "what was resident", lambda action_id: Restore(action_id=action_id, wanted=wanted)
            )
            loaded, error = back.loaded_bytes, error or back.error
            steps.ended(reload_name, loaded)
        return replace(receipt, ok=error is None, error=error, loaded_bytes=loaded)


def _promise(wanted: Sequence[Wanted]) -> str:
    return f"brings back {names_of(wanted)}" if wanted else "loads nothing again"


def _reload_name(cut_off: Switching | None) -> str:
    return "reload" if cut_off is None else f"reload what was there before the switch to {cut_off.target}"
