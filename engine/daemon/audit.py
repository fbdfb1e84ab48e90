"""The audit log: who had processes ended, GPUs reset and files moved, kept apart from the engine's chatter.

One JSON object a line, appended before and after the deed, so that the asking is on record also
where the engine or the host ends in between. 0600, never through a link, bounded by turning over.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from engine.errors import EngineError
from engine.telemetry.procfs import clean
from engine.wire import Receipt

MAX_BYTES = 4 * 2**20
"""Of one file; the one before it is kept as well."""
MAX_TEXT = 1000


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


class Deed:
    """One that is under way."""

    def __init__(self) -> None:
        self.result = "its end is not known"

    def ended(self, receipt: Receipt) -> Receipt:
        """Take the receipt as its end."""
        self.result = "done" if receipt.ok else f"failed: {receipt.error}"
        return receipt


class AuditLog:
    """Appends to the file at `path`. Event loop's thread only."""

    def __init__(
        self, path: Path, *, max_bytes: int = MAX_BYTES, on_problem: Callable[[str], None] = lambda text: None
    ) -> None:
        """`on_problem` hears why a line could not be kept; the deed goes on all the same."""
        self.path = path
        self._max_bytes = max_bytes
        self._on_problem = on_problem
        self._encoder = msgspec.json.Encoder()

    def write(self, action: str, target: str, result: str, asker: Asker | None) -> None:
        """Keep one line; whatever is in the texts cannot forge another."""
        entry = AuditEntry(
            at=time.time(),
            uid=None if asker is None else asker.uid,
            pid=None if asker is None else asker.pid,
            action=action,
            target=clean(target, MAX_TEXT),
            result=clean(result, MAX_TEXT),
        )
        line = self._encoder.encode(entry) + b"\n"
        try:
            self._turn_over(len(line))
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            fd = os.open(self.path, flags, 0o600)
            try:
                os.fchmod(fd, 0o600)
                os.write(fd, line)
            finally:
                os.close(fd)
        except OSError as error:
            self._on_problem(f"{self.path} cannot be written: {error.strerror}; not kept: {line.decode()}")

    @contextmanager
    def deed(self, action: str, target: str, asker: Asker | None) -> Iterator[Deed]:
        """Keeps the asking, and how the block ended: by its receipt, or by what it raised."""
        self.write(action, target, "asked", asker)
        deed = Deed()
        try:
            yield deed
        except EngineError as error:
            deed.result = f"{error.code}: {error}"
            raise
        finally:
            self.write(action, target, deed.result, asker)

    def _turn_over(self, more: int) -> None:
        try:
            size = os.lstat(self.path).st_size
        except FileNotFoundError:
            return
        if size + more > self._max_bytes:
            os.replace(self.path, self.path.with_name(self.path.name + ".1"))
