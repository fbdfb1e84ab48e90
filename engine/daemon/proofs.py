"""What the probe saw of a process's memory, as the proof of an action's receipt. Event loop's thread only."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from engine.daemon.probe import Probe
from engine.daemon.receipts import proved, slack, uncertain
from engine.daemon.steps import Steps
from engine.daemon.worker import WorkerProcess
from engine.wire import Proof, Receipt, ReceiptAction
from engine.worker.channel import CACHE_STEP

PROOF_TIMEOUT_S = 2.0
"""Memory that has not come back by then is residue, and said to be."""
LOOK_TIMEOUT_S = 0.2
"""The probe reads a process at once; an answer that takes longer will not come."""


class Proofs:
    """Looks at processes from outside."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe

    async def held_by(self, worker: WorkerProcess) -> int | None:
        """What the worker's process holds on its device at this moment."""
        return await self.held_on(worker.pid, (worker.device_id,))

    async def held_on(self, pid: int, device_ids: Sequence[str]) -> int | None:
        """What any process holds on these devices together at this moment."""
        traces = (
            self._probe.trace(pid, device_id, until_bytes=2**62, timeout_s=LOOK_TIMEOUT_S)
            for device_id in device_ids
        )
        return _sum([None if seen is None else seen.start_bytes for seen in await asyncio.gather(*traces)])

    async def left_on(self, pid: int, device_ids: Sequence[str], *, ended: bool) -> int | None:
        """What the driver still counts for a process; one that has `ended` is watched until it is nothing."""
        timeout_s = PROOF_TIMEOUT_S if ended else LOOK_TIMEOUT_S
        traces = (
            self._probe.trace(pid, device_id, until_bytes=0, timeout_s=timeout_s) for device_id in device_ids
        )
        return _sum([None if seen is None else seen.end_bytes for seen in await asyncio.gather(*traces)])

    async def of_return(
        self,
        worker: WorkerProcess,
        receipt: Receipt,
        held: int | None,
        expected_bytes: int,
        *,
        running_job: int | None,
    ) -> Receipt:
        """`receipt` completed by what is seen of the process, where it is seen; it `held` so much before."""
        if held is None:
            why = "a job runs, whose memory moves meanwhile" if running_job else "the probe does not see it"
            return replace(receipt, proof_reason=f"the worker's own count: {why}")
        expected = max(receipt.expected_bytes, expected_bytes)
        if expected == 0:
            return receipt
        on_cpu = worker.device_id == "cpu"
        # Cache that went first is not what the weights gave back.
        cached = sum(step.bytes or 0 for step in receipt.steps if step.name == CACHE_STEP)
        until = held - cached - expected + slack(expected)
        if on_cpu:
            # The heap takes pages of its cache anew while it answers: they would be waited for in vain.
            until = held - expected + max(slack(expected), uncertain(expected))
        traced = await self._probe.trace(
            worker.pid, worker.device_id, until_bytes=until, timeout_s=PROOF_TIMEOUT_S
        )
        return proved(receipt, traced, held=held, expected=expected, cached=cached, on_cpu=on_cpu)

    async def of_end(
        self,
        action: ReceiptAction,
        worker: WorkerProcess,
        held: int | None,
        steps: Steps,
    ) -> Receipt:
        """The receipt of a worker's end, once its bytes are gone; it `held` so much before `steps` began."""
        gone = await worker.wait_gone()
        steps.ended("worker ended", held)
        traced = await self._probe.trace(
            worker.pid, worker.device_id, until_bytes=0, timeout_s=PROOF_TIMEOUT_S
        )
        left = None if traced is None else traced.end_bytes
        on_cpu = worker.device_id == "cpu"
        steps.ended("gone" if on_cpu else "gone from NVML", left)
        proof: Proof = "process-rss" if on_cpu else "nvml-process"
        unseen = None
        if held is None:
            unseen = "the probe did not see the worker's bytes before its end"
        elif left is None:
            unseen = "the probe did not answer after the worker's end"
        return Receipt(
            action=action,
            target="worker and everything on it",
            ok=gone,
            error=None if gone else f"worker {worker.pid} would not die",
            expected_bytes=held or 0,
            returned_bytes=None if held is None or left is None else max(0, held - left),
            residue_bytes=left,
            residue=("the driver still counts them for a process that has ended",) if left else (),
            elapsed_s=steps.elapsed_s,
            proof=proof if held is not None and left is not None else "process-exit",
            proof_reason=unseen or ("no GPU: the worker's resident set is the proof" if on_cpu else None),
            steps=tuple(steps.taken),
        )


def _sum(sizes: Sequence[int | None]) -> int | None:
    """All of them together; None where one is unknown."""
    return None if None in sizes else sum(size or 0 for size in sizes)
