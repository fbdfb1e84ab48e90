"""The audit log: who had processes ended, GPUs reset and files moved, kept apart from the engine's chatter.

One JSON object a line, appended before and after the deed, so that the asking is on record also
where the engine or the host ends in between. 0600, never through a link, bounded by turning over.
Written in a thread: a disk that hangs holds no deed for longer than `KEPT_S`, and the event loop never.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from engine.daemon.disk_line import DiskLine
from engine.errors import EngineError
from engine.telemetry.procfs import clean, read_stat, read_terminal
from engine.wire import Receipt

MAX_BYTES = 4 * 2**20
"""Of one file; the one before it is kept as well."""
MAX_TEXT = 1000
KEPT_S = 1.0
"""What a disk gets to take the asking, before the deed is done without it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asker:
    """The process that asked, as the kernel names it at the socket's other end."""

    uid: int
    pid: int

    def __str__(self) -> str:
        return f"uid:{self.uid}, pid {self.pid}"


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One line."""

    at: float
    """Wall clock, for people."""
    uid: int | None
    pid: int | None
    action: str
    target: str
    result: str
    """`asked` before the deed; after it `done`, or why not."""
    program: str | None = None
    """What asked, as the kernel calls it, and the terminal that it runs in."""
    terminal: str | None = None
    bytes: int | None = None
    """What came back, by the deed's receipt."""
    elapsed_s: float | None = None


class AuditLog:
    """Appends to the file at `path`, in the order of asking. Event loop's thread only."""

    def __init__(
        self, path: Path, *, max_bytes: int = MAX_BYTES, on_problem: Callable[[str], None] = lambda text: None
    ) -> None:
        """`on_problem` hears once why lines cannot be kept, with the first, and when they are again; the
        deeds go on all the same.
        """
        self.path = path
        self._max_bytes = max_bytes
        self._on_problem = on_problem
        self._encoder = msgspec.json.Encoder()
        self._disk = DiskLine("audit")
        self._lost = 0
        self._late = False

    def write(
        self, action: str, target: str, result: str, asker: Asker | None, receipt: Receipt | None = None
    ) -> None:
        """Keep one line, soon; whatever is in the texts cannot forge another."""
        process = None if asker is None else read_stat(asker.pid)
        entry = AuditEntry(
            at=time.time(),
            uid=None if asker is None else asker.uid,
            pid=None if asker is None else asker.pid,
            action=action,
            target=clean(target, MAX_TEXT),
            result=clean(result, MAX_TEXT),
            program=None if process is None else process.name,
            terminal=None if asker is None else read_terminal(asker.pid),
            bytes=None if receipt is None else receipt.returned_bytes,
            elapsed_s=None if receipt is None else receipt.elapsed_s,
        )
        line = self._encoder.encode(entry) + b"\n"
        append = partial(append_line, self.path, line, max_bytes=self._max_bytes)
        if not self._disk.put(append, told=lambda error: self._told(error, line)):
            self._failed("its disk does not answer", line)

    async def kept(self) -> bool:
        """Wait until all that was written is on the disk, for `KEPT_S` at most; whether it is."""
        kept = await self._disk.done(KEPT_S)
        if not kept and not self._late:
            self._on_problem(f"{self.path} is not written within {KEPT_S:g} s; what is done goes on")
        self._late = not kept
        return kept

    async def asked(self, action: str, target: str, asker: Asker | None) -> None:
        """Have the asking on the disk before the deed begins."""
        self.write(action, target, "asked", asker)
        await self.kept()

    async def deed(
        self, action: str, target: str, asker: Asker | None, work: Callable[[], Awaitable[Receipt]]
    ) -> Receipt:
        """Do `work` with its asking and its end on record, a refusal too, also when the caller is gone.

        Raises:
            EngineError: what `work` raises.
        """
        task = asyncio.create_task(self._deed(action, target, asker, work))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)

    async def _deed(
        self, action: str, target: str, asker: Asker | None, work: Callable[[], Awaitable[Receipt]]
    ) -> Receipt:
        result, receipt = "its end is not known", None
        await self.asked(action, target, asker)
        try:
            receipt = await work()
            result = end_of(receipt)
            return receipt
        except EngineError as error:
            result = f"{error.code}: {error}"
            raise
        finally:
            self.write(action, target, result, asker, receipt)

    def _told(self, error: OSError | None, line: bytes) -> None:
        if error is not None:
            self._failed(error.strerror, line)
        elif self._lost:
            self._on_problem(f"{self.path} is written again; {self._lost} lines before it are not kept")
            self._lost = 0

    def _failed(self, reason: str | None, line: bytes) -> None:
        self._lost += 1
        if self._lost == 1:
            self._on_problem(f"{self.path} cannot be written: {reason}; not kept: {line.decode().rstrip()}")


def end_of(receipt: Receipt) -> str:
    """A receipt as a line's result."""
    return "done" if receipt.ok else f"failed: {receipt.error}"


def append_line(path: Path, line: bytes, *, max_bytes: int) -> None:
    """All of `line` at the end of the file and on the disk, or nothing of it; blocks.

    What a host that died left half written there gets an end of its own, so that nothing is glued to it.

    Raises:
        OSError: it could not be.
    """
    _turn_over(path, len(line), max_bytes)
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    fd = os.open(path, flags, 0o600)
    try:
        os.fchmod(fd, 0o600)
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            line = b"\n" + line
        try:
            written = 0
            while written < len(line):
                written += os.write(fd, line[written:])
            os.fsync(fd)
        except OSError:
            os.ftruncate(fd, size)
            raise
    finally:
        os.close(fd)


def _turn_over(path: Path, more: int, max_bytes: int) -> None:
    try:
        size = os.lstat(path).st_size
    except FileNotFoundError:
        return
    if size + more > max_bytes:
        os.replace(path, path.with_name(path.name + ".1"))
