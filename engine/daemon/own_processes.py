"""Our own processes set aside: worker, nursery and probe ended and proved gone, and brought back after.

Whoever does this has the device to himself, and no worker starts meanwhile. Event loop's thread only.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from engine.daemon.nursery import Nursery
from engine.daemon.probe import Probe
from engine.daemon.proofs import Proofs
from engine.daemon.receipt_book import ReceiptBook
from engine.daemon.steps import Steps
from engine.daemon.supervisor import Supervisor
from engine.daemon.worker import WorkerProcess
from engine.jobs.liveness import read_start_time
from engine.wire import Receipt

GONE_S = 5.0
"""What an ended process gets to leave: the kernel takes half a second to unpin 43 GB."""


class OwnProcesses:
    """The processes of this engine that hold a GPU, or could."""

    def __init__(
        self,
        supervisor: Supervisor,
        nursery: Nursery,
        probe: Probe,
        receipts: ReceiptBook,
    ) -> None:
        self._supervisor = supervisor
        self._nursery = nursery
        self._probe = probe
        self._receipts = receipts
        self._ends = False
        self._closures: dict[object, str] = {}
        """Why no worker may start, by who has closed the device; each opens only what it has closed."""

    def pids(self) -> dict[str, int]:
        """Those that live, by role; the daemon itself among them."""
        found = {
            "daemon": os.getpid(),
            "probe": self._probe.pid,
            "nursery": self._nursery.pid,
            "worker": self._supervisor.pid,
        }
        return {role: pid for role, pid in found.items() if pid is not None}

    def role_of(self, pid: int) -> str | None:
        """Of a process of ours; None for anybody else's."""
        return next((role for role, ours in self.pids().items() if ours == pid), None)

    @property
    def worker(self) -> WorkerProcess | None:
        return self._supervisor.worker

    @property
    def job_id(self) -> int | None:
        """Of the job that runs on the worker."""
        return self._supervisor.running_job

    @asynccontextmanager
    async def device(self, why: str) -> AsyncIterator[asyncio.Future[bool]]:
        """The device to oneself, before all who wait for it; no worker starts until the block ends.

        Gives what to await, once the worker is ended, until whoever had the device has let go of it.
        """
        supervisor = self._supervisor
        waiting = asyncio.ensure_future(supervisor.device_lock.acquire(first=True))
        await asyncio.sleep(0)  # in the line before an ended job lets go
        self._close(waiting, why)
        try:
            yield waiting
        finally:
            self._close(waiting, None)
            if waiting.done() and not waiting.cancelled():
                supervisor.device_lock.release()
            else:
                waiting.cancel()

    async def end_clients(self, why: str, steps: Steps) -> list[str]:
        """End worker, nursery and probe, in that order; the roles that would not go.

        A running job is interrupted and queued again.
        """
        ended = {role: pid for role, pid in self.pids().items() if role != "daemon"}
        self._supervisor.end(why)
        self._nursery.rest()
        await self._probe.stop()
        left = await _wait_gone(ended)
        steps.ended(f"{', '.join(sorted(set(ended) - set(left))) or 'nothing of ours'} ended")
        return [f"{role} {ended[role]}" for role in left]

    async def end_worker(self, why: str, proofs: Proofs) -> Receipt | None:
        """End the worker, whatever it does, within `device`; None where there is none. No other is started.

        A running job ends as interrupted; `turbotui job retry` runs it again.
        """
        supervisor = self._supervisor
        if (worker := supervisor.worker) is None:
            supervisor.end(why)  # one that is only starting
            return None
        steps = Steps(lambda step: self._receipts.stepped("park", "worker", step))
        held = await proofs.held_by(worker)
        if supervisor.let_go(why) is None:
            return None
        worker.kill(why)
        return await proofs.of_end("park", worker, held, steps)

    def bring_back(self) -> None:
        """Start what `end_clients` has ended; the worker comes with the next work."""
        if self._ends:
            return
        self._probe.start()
        self._nursery.start()

    def close(self) -> None:
        """The engine ends: nothing is brought back any more."""
        self._ends = True

    def keep_away(self, why: str | None) -> None:
        """Let no worker start, also after `device`, nor a nursery, until this is called with None."""
        if why is not None:
            self._nursery.rest()
        self._close(self, why)

    def _close(self, who: object, why: str | None) -> None:
        self._closures.pop(who, None)
        if why is not None:
            self._closures[who] = why
        # The oldest: the others wait for it.
        self._supervisor.closed = next(iter(self._closures.values()), None)

    async def renew_nursery(self, steps: Steps) -> None:
        """End the nursery and start a fresh one."""
        pid = self._nursery.pid
        if pid is None:
            return
        self._nursery.rest()
        await _wait_gone({"nursery": pid})
        self._nursery.start()
        steps.ended("nursery replaced")


async def _wait_gone(pids: Mapping[str, int]) -> list[str]:
    """The roles whose process has not ended in time; a zombie has."""
    deadline = time.monotonic() + GONE_S
    while True:
        left = [role for role, pid in pids.items() if read_start_time(pid) is not None]
        if not left or time.monotonic() >= deadline:
            return left
        await asyncio.sleep(0.005)
