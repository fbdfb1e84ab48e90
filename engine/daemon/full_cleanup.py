"""Back to the baseline in one action: what is ours ends, and of others what the person picked, one by one.

Every part has its own receipt and the whole has one, which ends with what is still held and by whom.
Nothing is deleted: videos and logs are moved aside where that is asked for. Event loop's thread only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

from engine.daemon.aside import Aside, is_aside
from engine.daemon.audit import Asker, AuditLog
from engine.daemon.kill import Kill
from engine.daemon.logbook import LogBook
from engine.daemon.memory import MemoryView
from engine.daemon.outputs import list_outputs, move_outputs
from engine.daemon.own_processes import OwnProcesses
from engine.daemon.proofs import Proofs
from engine.daemon.receipt_book import ReceiptBook
from engine.daemon.reset import Reset
from engine.daemon.steps import Steps
from engine.daemon.threads import in_thread
from engine.daemon.victims import Victims
from engine.errors import EngineError, NotNow, Refused, StorageUnusable
from engine.jobs.store import JobStore
from engine.paths import user_name
from engine.units import size_text
from engine.wire import (
    NOBODYS,
    CleanupCandidate,
    DeviceProcess,
    DeviceStatus,
    FullCleanupPlan,
    FullCleanupRequest,
    KillRequest,
    Proof,
    Receipt,
)

WHY = "a full cleanup was asked for"
HELD = "a full cleanup was asked for, so that nothing is loaded again at once; resume the queue to go on"
FRESH_S = 1.0
"""How long a reading from after the last deed is waited for: the probe reads ten times a second."""
OURS = "everything of ours"
WEAKEST_FIRST: tuple[Proof, ...] = (
    "process-exit",
    "device-delta",
    "allocator",
    "page-cache",
    "process-rss",
    "nvml-process",
)


class FullCleanup:
    """One at a time."""

    def __init__(
        self,
        own: OwnProcesses,
        memory: MemoryView,
        proofs: Proofs,
        victims: Victims,
        kill: Kill,
        reset: Reset,
        store: JobStore,
        receipts: ReceiptBook,
        logbook: LogBook,
        audit: AuditLog,
        *,
        output_dir: Path,
        hold_queue: Callable[[str], str | None],
    ) -> None:
        self._own = own
        self._memory = memory
        self._proofs = proofs
        self._victims = victims
        self._kill = kill
        self._reset = reset
        self._store = store
        self._logbook = logbook
        self._audit = audit
        self._output_dir = output_dir
        self._receipts = receipts
        self._hold_queue = hold_queue
        self._running: asyncio.Task[Receipt] | None = None

    # ----------------------------------------------------------------- looking

    async def plan(self) -> FullCleanupPlan:
        """What it would do now; changes nothing."""
        outputs = await in_thread(partial(list_outputs, self.folders(), busy=self.busy()), name="outputs")
        logs = self._logs()
        worker, pids = self._own.worker, self._own.pids()
        nursery = pids.get("nursery")
        held = None
        if worker is not None:
            held = await self._proofs.held_by(worker)
        return FullCleanupPlan(
            worker_pid=None if worker is None else worker.pid,
            worker_bytes=held,
            job_id=self._own.job_id,
            waiting=self._store.count_waiting(),
            nursery_pid=nursery,
            nursery_bytes=None if nursery is None else self._memory.rss_bytes(nursery),
            candidates=tuple(self._candidates()),
            device_id=self._memory.device_id,
            videos=len(outputs.videos),
            videos_bytes=sum(video.bytes for video in outputs.videos),
            logs=len(logs),
            logs_bytes=sum(path.stat().st_size for path in logs),
        )

    def folders(self) -> list[Path]:
        """Where videos of ours lie: the engine's folder, and those that jobs named; none moved aside."""
        named = {Path(job.output).parent for job in self._store.list_jobs(None) if job.output}
        return sorted({self._output_dir, *(folder for folder in named if not is_aside(folder))})

    def busy(self) -> frozenset[str]:
        """Videos that are being written."""
        jobs = self._store.list_jobs(None)
        return frozenset(job.output for job in jobs if job.status == "running" and job.output)

    def _candidates(self) -> list[CleanupCandidate]:
        found: dict[int, list[tuple[DeviceStatus, DeviceProcess]]] = {}
        for device in self._memory.statuses():
            if device.kind == "cuda":
                for process in device.processes:
                    if process.ours is None:
                        found.setdefault(process.pid, []).append((device, process))
        return [self._candidate(listed) for _pid, listed in sorted(found.items())]

    def _candidate(self, listed: Sequence[tuple[DeviceStatus, DeviceProcess]]) -> CleanupCandidate:
        process = listed[0][1]
        sizes = [there.bytes for _device, there in listed]
        refusal = None
        try:
            self._victims.check(KillRequest(pid=process.pid, start_time=process.start_time, other_user=True))
        except Refused as refused:
            refusal = str(refused)
        return CleanupCandidate(
            process=process,
            device_ids=tuple(device.id for device, _ in listed),
            bytes=None if None in sizes else sum(size or 0 for size in sizes),
            mine=process.user == user_name(),
            refusal=refusal,
        )

    def _logs(self) -> list[Path]:
        folder = self._logbook.path.parent
        return sorted(path for path in folder.iterdir() if path.is_file() and not path.is_symlink())

    # ----------------------------------------------------------------- doing

    async def run(self, request: FullCleanupRequest, *, asker: Asker | None) -> Receipt:
        """Do it; goes on when the caller is gone.

        Raises:
            Refused: nothing was done, and why.
        """
        others = "".join(f", {self._victims.named(kill)}" for kill in request.also)
        work = partial(self._alone, request, asker)
        return await self._audit.deed("full_cleanup", f"{OURS}{others}", asker, work)

    async def _alone(self, request: FullCleanupRequest, asker: Asker | None) -> Receipt:
        if self._running is not None and not self._running.done():
            raise NotNow("a full cleanup is already under way; its receipt will tell")
        self._running = asyncio.create_task(self._run(request, asker))
        return await asyncio.shield(self._running)

    async def _run(self, request: FullCleanupRequest, asker: Asker | None) -> Receipt:
        # What cannot be moved is found before anything has ended.
        logs = self._logbook.path.parent
        places = [
            None
            if place is None
            else await in_thread(
                partial(Aside, place, kind, never_within=(*self.folders(), logs)), name="aside"
            )
            for place, kind in ((request.move_outputs, "outputs"), (request.move_logs, "logs"))
        ]
        target = " and ".join((OURS, *(f"process {kill.pid}" for kill in request.also)))
        whole = _Whole(target, Steps(lambda step: self._receipts.stepped("full_cleanup", target, step)))
        if self._store.count_waiting() or self._own.job_id is not None:
            whole.noted(self._hold_queue(HELD))
        await asyncio.gather(self._end_ours(whole), *(self._end(kill, whole, asker) for kill in request.also))
        if request.reset is not None:
            await whole.part("GPU reset", self._reset.run(request.reset, asker=asker))
        outputs, moved_logs = places
        if outputs is not None:
            move = partial(move_outputs, self.folders(), outputs, busy=self.busy())
            await in_thread(move, name="aside")
            whole.moved("videos", outputs)
            self._tell_jobs(whole, outputs)
        if moved_logs is not None:
            await in_thread(partial(self._move_logs, moved_logs), name="aside")
            whole.moved("logs", moved_logs)
        whole.notes += await self._still_held()
        whole.steps.ended("looked who holds what")
        return self._receipts.issue(whole.receipt())

    async def _end_ours(self, whole: _Whole) -> None:
        async with self._own.device("a full cleanup is under way; ask again when it has ended") as turn:
            ending = self._own.end_worker(WHY, self._proofs)
            await whole.part("our worker ended", ending, self._receipts.issue)
            await turn
            await self._own.renew_nursery(whole.steps)

    async def _end(self, kill: KillRequest, whole: _Whole, asker: Asker | None) -> None:
        work = partial(self._kill.run, kill, asked_by=str(asker or "?"))
        deed = self._audit.deed("kill", self._victims.named(kill), asker, work)
        await whole.part(f"process {kill.pid} ended", deed)

    def _tell_jobs(self, whole: _Whole, aside: Aside) -> None:
        """Let jobs name their videos where they lie now."""
        try:
            self._store.relocate(aside.places)
        except StorageUnusable as error:
            whole.notes.append(f"jobs still name their videos' old places: {error}")

    def _move_logs(self, aside: Aside) -> None:
        self._logbook.turn_over()
        for path in self._logs():
            if path.suffix == ".log":
                aside.take(path)
            elif path != self._logbook.path:
                aside.move(path)

    async def _still_held(self) -> list[str]:
        """Who holds what of each GPU, by a reading that is newer than the last deed."""
        since = time.monotonic()
        gpus: list[DeviceStatus] = []
        while time.monotonic() - since < FRESH_S:
            gpus = [device for device in self._memory.statuses() if device.kind == "cuda"]
            if all(gpu.age_s is not None and gpu.age_s < time.monotonic() - since for gpu in gpus):
                break
            await asyncio.sleep(0.02)
        if not gpus:
            return ["no GPU is read here, so who holds one is not known"]
        return [line for gpu in gpus for line in _held_on(gpu)]


def _held_on(gpu: DeviceStatus) -> list[str]:
    name = f"GPU {gpu.index}"
    lines = [
        f"{name}: process {process.pid} of {process.user or 'an unknown user'} still holds "
        f"{'unknown bytes' if process.bytes is None else size_text(process.bytes)}: "
        f"{process.command or process.name or '?'}"
        for process in gpu.processes
    ]
    parts = gpu.balance.parts if gpu.balance is not None else ()
    lines += [
        f"{name}: {size_text(part.bytes)} are counted by the driver and belong to nobody that can be seen"
        for part in parts
        if part.kind in NOBODYS and part.bytes
    ]
    return lines or [f"{name}: nobody holds anything of it"]


class _Whole:
    """What the parts of one full cleanup came to."""

    def __init__(self, target: str, steps: Steps) -> None:
        self.target = target
        self.steps = steps
        self.receipts: list[Receipt] = []
        self.failures: list[str] = []
        self.notes: list[str] = []

    async def part(
        self,
        name: str,
        work: Awaitable[Receipt | None],
        issue: Callable[[Receipt], Receipt] = lambda receipt: receipt,
    ) -> Receipt | None:
        """Wait for one part; what it is refused or fails with does not keep the others from going on."""
        try:
            receipt = await work
        except EngineError as error:
            self.failures.append(str(error))
            self.steps.ended(f"{name}: refused")
            return None
        if receipt is None:
            return None
        receipt = issue(receipt)
        self.receipts.append(receipt)
        if not receipt.ok:
            self.failures.append(receipt.error or f"{name}: failed")
        self.steps.ended(name if receipt.ok else f"{name}: failed", receipt.returned_bytes)
        return receipt

    def noted(self, text: str | None) -> None:
        if text is not None:
            self.notes.append(text)

    def moved(self, what: str, aside: Aside) -> None:
        self.notes.append(f"{aside.moved} files of {what}, {size_text(aside.bytes)}, are in {aside.folder}")
        self.failures += aside.problems
        self.steps.ended(f"{what} moved aside", aside.bytes)

    def _proof(self) -> tuple[Proof, str | None]:
        """The weakest of all parts, and which part is proved by what where they differ."""
        if not self.receipts:
            return "device-delta", "nothing was ended"
        proof = min((receipt.proof for receipt in self.receipts), key=WEAKEST_FIRST.index)
        if len(self.receipts) == 1:
            return proof, self.receipts[0].proof_reason
        if all(receipt.proof_reason is None for receipt in self.receipts):
            return proof, None
        told = (
            f"{receipt.target} by {receipt.proof}"
            + (f" ({receipt.proof_reason})" if receipt.proof_reason else "")
            for receipt in self.receipts
        )
        return proof, "; ".join(told)

    def receipt(self) -> Receipt:
        proof, proof_reason = self._proof()
        returned = [receipt.returned_bytes for receipt in self.receipts]
        residue = [receipt.residue_bytes or 0 for receipt in self.receipts]
        return Receipt(
            action="full_cleanup",
            target=self.target,
            ok=not self.failures,
            error="; ".join(self.failures) or None,
            expected_bytes=sum(receipt.expected_bytes for receipt in self.receipts),
            returned_bytes=None if None in returned else sum(size or 0 for size in returned),
            residue_bytes=sum(residue),
            residue=tuple(name for receipt in self.receipts for name in receipt.residue),
            elapsed_s=self.steps.elapsed_s,
            proof=proof,
            proof_reason=proof_reason,
            steps=tuple(self.steps.taken),
            notes=tuple(self.notes),
        )
