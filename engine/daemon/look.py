"""The look from outside at what a switch has given back, between its unload and its load."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from engine.daemon.logbook import LogBook
from engine.daemon.memory import MemoryView
from engine.daemon.probe import Probe
from engine.daemon.receipts import slack, uncertain
from engine.daemon.supervisor import Supervisor
from engine.daemon.worker import WorkerProcess
from engine.telemetry.samples import Traced
from engine.units import size_text
from engine.wire import Receipt
from engine.worker.channel import Proceed, Unloaded

SWITCH_PROOF_TIMEOUT_S = 0.05
"""How long a switch looks for the bytes that it has given back before it loads: the driver has them
already, so what is not seen at once is residue."""
RESIDUE_BOUND = 256 * 2**20
"""A switch that leaves more than this behind replaces the worker before it loads."""


class Look:
    """One switch's. Event loop's thread only."""

    def __init__(self, supervisor: Supervisor, probe: Probe, memory: MemoryView, logbook: LogBook) -> None:
        self.held: int | None = None
        """What the worker's process had before, where that is known."""
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
        if receipt.residue_bytes and receipt.residue_bytes <= self._uncertain(receipt.expected_bytes):
            receipt = replace(receipt, residue_bytes=0, residue=(), within_bytes=receipt.residue_bytes)
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
        if held is not None and worker.device_id == "cpu":
            # Opening the model that comes has made the process larger since it was looked at.
            held = told.held_bytes
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
            self.residue = max(0, told.expected_bytes - returned)
        if self._supervisor.worker is not worker:
            return traced  # it ended meanwhile: what is there now belongs to others
        if self.residue > RESIDUE_BOUND and worker.device_id != "cpu":
            self._replace(worker)
        else:
            worker.send(
                Proceed(action_id=told.action_id, returned_bytes=returned, elapsed_s=time.monotonic() - began)
            )
        return traced

    def _replace(self, worker: WorkerProcess) -> None:
        text = f"{size_text(self.residue)} did not come back; the worker is replaced before the load"
        self._logbook.write("cleanup", text, level="warning", memory=True)
        self.replaced = True
        self._supervisor.let_go(text)
        worker.kill(text)

    def _uncertain(self, expected_bytes: int) -> int:
        on_host = self._memory.device_id == "cpu"
        return max(_slack(expected_bytes), uncertain(expected_bytes) if on_host else 0)


def _slack(expected_bytes: int) -> int:
    """What may be missing where all counts as given back: less than what a worker is replaced for."""
    return min(slack(expected_bytes), RESIDUE_BOUND)
