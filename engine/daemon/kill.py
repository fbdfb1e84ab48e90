"""Ends one process that holds a GPU: SIGTERM, a countdown, SIGKILL, and the proof of what came back.

Never by name and never a tree: one pid, held by a pidfd that is opened once, and looked at again
before each signal. A process whose end waits in the kernel is said to be one; nothing is promised.
"""

from __future__ import annotations

import asyncio
import math
import os
import select
import signal
import time
from collections.abc import Callable

from engine.daemon.logbook import LogBook
from engine.daemon.proofs import Proofs
from engine.daemon.receipt_book import ReceiptBook
from engine.daemon.victims import Victim, Victims
from engine.errors import InvalidRequest, NotFound, NotNow, Refused
from engine.wire import KillRequest, Receipt, ReceiptStep

MAX_GRACE_S = 600.0
PATIENCE_S = 5.0
"""What SIGKILL gets: the kernel takes half a second to unpin 43 GB, and seconds where it swaps."""
COUNT_S = 1.0
"""How often the countdown is told."""


class Kill:
    """Ends processes that a person picked, each once at a time. Event loop's thread only."""

    def __init__(
        self,
        victims: Victims,
        proofs: Proofs,
        logbook: LogBook,
        receipts: ReceiptBook,
        *,
        open_pidfd: Callable[[int], int] = os.pidfd_open,
        send: Callable[[int, signal.Signals], None] = signal.pidfd_send_signal,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._victims = victims
        self._proofs = proofs
        self._logbook = logbook
        self._receipts = receipts
        self._open = open_pidfd
        self._send = send
        self._patience_s = patience_s
        self._ending: dict[int, asyncio.Task[Receipt]] = {}
        self._courses: dict[int, _Course] = {}

    async def run(self, request: KillRequest, *, asked_by: str) -> Receipt:
        """End the process; goes on when the caller is gone.

        Raises:
            Refused: no signal was sent, and why.
        """
        pid = request.pid
        try:
            if not 0 <= request.grace_s <= MAX_GRACE_S:
                raise InvalidRequest(
                    f"a grace of {request.grace_s:g} s is not possible; give 0 to {MAX_GRACE_S:g}"
                )
            if pid in self._ending:
                raise NotNow(f"the end of process {pid} is already under way; its receipt will tell")
            self._victims.check(request)
            task = asyncio.create_task(self._run(request, asked_by))
            self._ending[pid] = task
            task.add_done_callback(lambda done: self._ended(pid, done))
            return await asyncio.shield(task)
        except Refused as refusal:
            self._logbook.write(
                "audit", f"kill of process {pid}, asked by {asked_by}, is refused: {refusal}", level="warning"
            )
            raise

    def spare(self, pid: int) -> None:
        """Send no SIGKILL to a process whose countdown runs; SIGTERM is not taken back.

        Raises:
            NotNow: no countdown runs for it.
        """
        course = self._courses.get(pid)
        if course is None or not course.spare():
            raise NotNow(f"no countdown runs for process {pid}, so there is nothing to stop")
        self._logbook.write("audit", f"the countdown for process {pid} is stopped: no SIGKILL is sent")

    def _ended(self, pid: int, task: asyncio.Task[Receipt]) -> None:
        self._ending.pop(pid, None)
        if not task.cancelled():
            task.exception()  # the caller has it, where there still is one

    async def _run(self, request: KillRequest, asked_by: str) -> Receipt:
        pidfd = self._opened(request.pid)
        try:
            victim = self._victims.check(request)
            # Read now: the newest reading may be from before its last allocation.
            held = await self._proofs.held_on(request.pid, victim.device_ids)
            if held is None:
                held = victim.bytes
            course = self._courses[request.pid] = _Course(self, request, pidfd, held)
            began = time.monotonic()
            victim = self._signal(pidfd, request, signal.SIGTERM)
            self._logbook.write("audit", f"SIGTERM, asked by {asked_by}, to {victim.sentence()}")
            course.step(victim, "SIGTERM", held, began)
            error = await self._finish(course, victim, asked_by)
            return self._receipts.issue(await self._receipt(course, victim, error, began))
        finally:
            self._courses.pop(request.pid, None)
            os.close(pidfd)

    async def _finish(self, course: _Course, victim: Victim, asked_by: str) -> str | None:
        """Wait out the grace and then make it end; why it has not, or None."""
        since = time.monotonic()
        gone = await course.wait(course.request.grace_s, lambda left: course.count(victim, left))
        course.step(victim, "waited", None, since)
        if gone:
            return None
        if not course.end_countdown():
            return "after SIGTERM it runs on, and SIGKILL was not sent: the countdown was stopped"
        since = time.monotonic()
        try:
            victim = self._signal(course.pidfd, course.request, signal.SIGKILL)
        except Refused as refusal:
            if await course.wait(0.0):
                return None  # it ended between the last wait and the look
            return f"after SIGTERM it runs on, and SIGKILL was not sent: {refusal}"
        self._logbook.write("audit", f"SIGKILL, asked by {asked_by}, to {victim.sentence()}")
        gone = await course.wait(self._patience_s)
        course.step(victim, "SIGKILL", None, since)
        return None if gone else self._stuck(course.request.pid)

    def _opened(self, pid: int) -> int:
        try:
            return self._open(pid)
        except ProcessLookupError:
            raise NotFound(f"process {pid} has ended by itself; nothing was sent") from None
        except OSError as error:
            raise Refused(
                f"process {pid} cannot be held by a pidfd ({error.strerror}), without which a signal "
                "might reach another; end it by hand"
            ) from error

    def _signal(self, pidfd: int, request: KillRequest, number: signal.Signals) -> Victim:
        """Send `number` if everything still holds; nothing is awaited between the look and the signal."""
        victim = self._victims.check(request)
        try:
            self._send(pidfd, number)
        except ProcessLookupError:
            raise NotFound(f"process {request.pid} has ended by itself before {number.name}") from None
        except PermissionError:
            raise Refused(
                f"the kernel does not let us signal process {request.pid} of "
                f"{victim.process.user or 'another user'} (EPERM); its owner or root may end it"
            ) from None
        return victim

    def _stuck(self, pid: int) -> str:
        if (where := self._victims.stuck_in(pid)) is not None:
            return (
                f"process {pid} cannot be ended now: it waits in the kernel (state D, in {where}), where no "
                "signal reaches it. SIGKILL stays pending; it may end later, or only with a reset of the "
                "GPU or a restart of the host"
            )
        return (
            f"process {pid} has not ended within {self._patience_s:g} s of SIGKILL, which stays pending; "
            "`turbotui ps` shows whether it still does"
        )

    async def _receipt(self, course: _Course, victim: Victim, error: str | None, began: float) -> Receipt:
        since = time.monotonic()
        held, pid = course.held, course.request.pid
        left = await self._proofs.left_on(pid, victim.device_ids, ended=error is None)
        if error is None:
            course.step(victim, "gone from NVML", left, since)
            why = "the driver still counts them for a process that has ended"
        else:
            course.step(victim, "still in NVML", left, since)
            why = f"process {pid} still holds them"
        seen = held is not None and left is not None
        return Receipt(
            action="kill",
            target=victim.target,
            ok=error is None,
            error=error,
            expected_bytes=held or 0,
            returned_bytes=max(0, held - left) if held is not None and left is not None else None,
            residue_bytes=left,
            residue=(why,) if left else (),
            elapsed_s=time.monotonic() - began,
            proof="nvml-process" if seen else "process-exit",
            proof_reason=None if seen else "the probe did not see the process's bytes",
            steps=tuple(course.steps),
        )

    def tell(self, victim: Victim, step: ReceiptStep) -> None:
        """A step of a kill, for the viewers."""
        self._receipts.stepped("kill", victim.target, step)


class _Course:
    """One kill under way: its pidfd, what was held before, and its steps."""

    def __init__(self, kill: Kill, request: KillRequest, pidfd: int, held: int | None) -> None:
        self.request = request
        self.pidfd = pidfd
        self.held = held
        self.steps: list[ReceiptStep] = []
        self._kill = kill
        self._began = time.monotonic()
        self._counts = True
        self._spared = asyncio.Event()

    def step(self, victim: Victim, name: str, num_bytes: int | None, since: float) -> None:
        self.steps.append(ReceiptStep(name=name, bytes=num_bytes, elapsed_s=time.monotonic() - since))
        self._kill.tell(victim, self.steps[-1])

    def spare(self) -> bool:
        """Stop the countdown; False where it is over."""
        if self._counts:
            self._spared.set()
        return self._counts

    def end_countdown(self) -> bool:
        """The grace is over; False where the countdown was stopped before."""
        self._counts = False
        return not self._spared.is_set()

    def count(self, victim: Victim, left_s: float) -> None:
        """Tell how long it has until SIGKILL."""
        name = f"SIGKILL in {math.ceil(left_s)} s"
        elapsed_s = time.monotonic() - self._began
        # The total is what marks a step under way, which the next one replaces.
        step = ReceiptStep(name=name, bytes=0, elapsed_s=elapsed_s, total_bytes=self.held or 0)
        self._kill.tell(victim, step)

    async def wait(self, timeout_s: float, tell: Callable[[float], None] = lambda left_s: None) -> bool:
        """Until the process has ended; False where it has not in time. `tell` hears what time is left."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        ended = asyncio.Event()
        loop.add_reader(self.pidfd, ended.set)
        try:
            while not ended.is_set() and (left_s := deadline - loop.time()) > 0:
                if self._counts and self._spared.is_set():
                    break
                tell(left_s)
                try:
                    await asyncio.wait_for(ended.wait(), min(COUNT_S, left_s))
                except TimeoutError:
                    continue
        finally:
            loop.remove_reader(self.pidfd)
        return ended.is_set() or has_ended(self.pidfd)


def has_ended(pidfd: int) -> bool:
    """Whether the process is gone, or a zombie, at this moment."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))
