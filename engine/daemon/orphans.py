"""Ends what an engine that is gone left behind and that holds no card: one process, and never another.

What is on a card is ended by `engine.daemon.kill`, which proves that by the driver's list. Here the proof
is a check of this very moment: it must find the process an orphan of ours, with the start that was shown.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress

from engine.daemon.checks import Checks
from engine.daemon.kill import has_ended
from engine.daemon.proofs import Proofs
from engine.daemon.receipt_book import ReceiptBook
from engine.errors import NotNow, Refused
from engine.telemetry.procfs import read_stat, read_uid, same_start
from engine.wire import Receipt

GRACE_S = 2.0
PATIENCE_S = 5.0
LOOK_S = 0.02


class Orphans:
    """Event loop's thread only."""

    def __init__(self, checks: Checks, proofs: Proofs, receipts: ReceiptBook) -> None:
        self._checks = checks
        self._proofs = proofs
        self._receipts = receipts

    async def end(self, pid: int, start_time: float | None) -> Receipt:
        """SIGTERM, then SIGKILL, and the receipt of the host memory that came back.

        Raises:
            NotNow: it is no orphan of ours, any more or at all.
            Refused: the kernel does not let us hold or signal it.
        """
        report = await self._checks.check()
        found = any(
            finding.kind == "orphan"
            and finding.pid == pid
            and finding.start_time is not None
            and start_time is not None
            and same_start(finding.start_time, start_time)
            for finding in report.findings
        )
        if not found or start_time is None:
            raise NotNow(f"process {pid} is no worker that an engine left behind; look again: turbotui check")
        began = time.monotonic()
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            raise NotNow(f"process {pid} has ended by itself or cannot be held: {error.strerror}") from None
        try:
            held = await self._proofs.held_on(pid, ("cpu",))
            for number, patience_s in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, PATIENCE_S)):
                self._signal(pidfd, pid, start_time, number)
                if await _gone(pidfd, patience_s):
                    break
            gone = has_ended(pidfd)
            left = 0 if gone else await self._proofs.held_on(pid, ("cpu",))
            return self._receipts.issue(
                Receipt(
                    action="kill",
                    target=str(pid),
                    ok=gone,
                    error=None if gone else f"process {pid} has not ended within {PATIENCE_S:g} s of SIGKILL",
                    expected_bytes=held or 0,
                    returned_bytes=None if held is None or left is None else max(0, held - left),
                    residue_bytes=left,
                    elapsed_s=round(time.monotonic() - began, 4),
                    proof="process-rss" if held is not None else "process-exit",
                    proof_reason="it held no card: its resident set is the proof",
                )
            )
        finally:
            os.close(pidfd)

    def _signal(self, pidfd: int, pid: int, start_time: float, number: signal.Signals) -> None:
        """Nothing is awaited between the look and the signal."""
        stat = read_stat(pid)
        if stat is None or stat.ended:
            return
        if not same_start(stat.start_time, start_time) or read_uid(pid) != os.getuid():
            raise NotNow(f"process {pid} is not the one that was shown; nothing was sent")
        try:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, number)
        except PermissionError:
            raise Refused(
                f"the kernel does not let us signal process {pid} (EPERM); root may end it"
            ) from None


async def _gone(pidfd: int, patience_s: float) -> bool:
    deadline = time.monotonic() + patience_s
    while not has_ended(pidfd):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(LOOK_S)
    return True
