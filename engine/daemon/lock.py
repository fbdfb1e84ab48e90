"""The lock that makes one engine per state directory, and names who holds it.

flock is the only thing that counts: it ends with the process, however that ends. What is
written into the file (wire.LockHolder) tells clients where the socket is and people whom to ask.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import msgspec

from engine.errors import EngineUnavailable, StorageUnusable
from engine.wire import LockHolder

TRIES, GLANCE_S = 5, 0.01
"""A client that looks whether anybody holds the lock has it for a moment itself."""


class EngineLock:
    """Held from `acquire` until the process ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take the lock without waiting.

        Raises:
            EngineUnavailable: another engine holds it; the message names that one.
            StorageUnusable: the file cannot be made.
        """
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StorageUnusable(
                f"{self.path} cannot be made: {error.strerror}; "
                "set TURBOTUI_HOME to a folder that can be written"
            ) from error
        for _ in range(TRIES):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(GLANCE_S)
                continue
            self._fd = fd
            return
        holder = os.pread(fd, 4096, 0)
        os.close(fd)
        raise EngineUnavailable(_held_by(holder))

    def still_held(self) -> bool:
        """Whether our lock is on the file that clients see: somebody may have removed the folder."""
        assert self._fd is not None, "still_held before acquire"
        try:
            return os.path.samestat(os.fstat(self._fd), self.path.stat())
        except OSError:
            return False

    def publish(self, holder: LockHolder) -> None:
        """Write who holds it; clients find the socket here."""
        assert self._fd is not None, "publish before acquire"
        data = msgspec.json.encode(holder)
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, data, 0)


def _held_by(raw: bytes) -> str:
    try:
        holder = msgspec.json.decode(raw, type=LockHolder)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return "another engine is starting on this state directory; try again in a second"
    return (
        f"an engine runs already: pid {holder.pid}, socket {holder.socket}; "
        "use it, or end it with `turbotui engine stop`"
    )
