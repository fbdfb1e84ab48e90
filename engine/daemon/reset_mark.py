"""The note of a reset that runs: an engine that is started meanwhile keeps away from the GPUs as well."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from engine.daemon.disk_line import DiskLine
from engine.jobs.liveness import read_boot_id
from engine.telemetry.procfs import PROC, read_stat, same_start

RETRY_S = 1.0
"""Between two tries to keep it on a disk that is full."""


class ResetMark(msgspec.Struct, frozen=True, kw_only=True):
    """One reset's process, and what is owed after it."""

    pid: int
    start_time: float
    """Seconds since boot by the kernel's clock: with boot and pid, an identity."""
    boot_id: str
    device_id: str
    index: int
    persistence: bool
    """Persistence mode was on before, and has to be switched on again."""

    def runs(self, proc: Path = PROC) -> bool:
        """Whether that very process lives."""
        if self.boot_id != read_boot_id(proc):
            return False
        stat = read_stat(self.pid, proc)
        if stat is not None:
            return not stat.ended and same_start(stat.start_time, self.start_time)
        return _hidden(self.pid)

    def of_this_boot(self, proc: Path = PROC) -> bool:
        """Whether the host was not restarted since."""
        return self.boot_id == read_boot_id(proc)


class ResetMarks:
    """The file `path` that has it, or none. Event loop's thread only; what is kept is written in a thread."""

    def __init__(self, path: Path, *, log: Callable[[str], None]) -> None:
        """`log` hears once why it could not be kept; the reset goes on, and so do the tries."""
        self._path = path
        self._wanted: ResetMark | None = None
        self._refused = False
        self._log = log
        self._disk = DiskLine("reset-mark")

    def read(self) -> ResetMark | None:
        """Of an engine before this one."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=ResetMark)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            self._log(f"{self._path} cannot be read, so whether a reset still runs is not known: {error}")
            return None

    def keep(self, pid: int, device_id: str, index: int, *, persistence: bool) -> None:
        """Note the process of a reset that has just begun."""
        stat = read_stat(pid)
        if stat is None or stat.ended:
            return
        self._wanted = ResetMark(
            pid=pid,
            start_time=stat.start_time,
            boot_id=read_boot_id(),
            device_id=device_id,
            index=index,
            persistence=persistence,
        )
        self._keep()

    def clear(self) -> None:
        """It has ended, and nothing is owed any more."""
        self._wanted = None
        self._disk.put(lambda: self._path.unlink(missing_ok=True), told=self._told)

    async def written(self, timeout_s: float) -> bool:
        """Wait for what was kept or cleared; False where the disk does not answer in time."""
        return await self._disk.done(timeout_s)

    def _keep(self) -> None:
        if (mark := self._wanted) is not None:
            self._disk.put(lambda: self._write(mark), told=self._told)

    def _write(self, mark: ResetMark) -> None:
        fresh = self._path.with_name(self._path.name + ".new")
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(fd, "wb") as file:
            file.write(msgspec.json.encode(mark))
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, self._path)

    def _told(self, error: OSError | None) -> None:
        if error is not None:
            if not self._refused:
                self._log(f"an engine that is started meanwhile would not know of the reset: {error}")
            asyncio.get_running_loop().call_later(RETRY_S, self._keep)
        self._refused = error is not None


def _hidden(pid: int) -> bool:
    """Whether there is such a process of another user's whom /proc does not show us."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return False
