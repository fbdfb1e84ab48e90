"""Who a pid on a GPU is: user, name, command line, start and container, as /proc shows them to us."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import psutil

from engine.telemetry.procfs import NAME_LIMIT, clean, holds_gpu_file, read_container, read_stat

COMMAND_LIMIT = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessIdentity:
    """A process by name; all unknown where /proc does not show it."""

    user: str | None = None
    name: str = ""
    command: str = ""
    started_at: float | None = None
    """Wall-clock seconds, for display only."""
    start_time: float | None = None
    """Seconds since boot by the kernel's clock: with the pid, who it is."""
    container: str | None = None


class ProcessTable:
    """Keeps what is known of pids, so that a name is read once and not ten times a second."""

    def __init__(self) -> None:
        self._known: dict[int, ProcessIdentity] = {}

    def refresh(self, pids: Iterable[int]) -> None:
        """Read new pids, read again those that are somebody else by now, forget the rest."""
        self._known = {pid: self._read(pid) for pid in pids}

    def knows(self, pid: int) -> bool:
        """Whether the last `refresh` looked at `pid`."""
        return pid in self._known

    def get(self, pid: int) -> ProcessIdentity:
        """What the last `refresh` found."""
        return self._known.get(pid, ProcessIdentity())

    def _read(self, pid: int) -> ProcessIdentity:
        known = self._known.get(pid)
        stat = read_stat(pid)
        if stat is None:
            return ProcessIdentity()
        if known is not None and known.start_time == stat.start_time:
            return known
        try:
            process = psutil.Process(pid)
            started_at = process.create_time()
            if holds_gpu_file(pid) is False:
                # Some drivers give pids of the host's namespace, which here belong to somebody else.
                return ProcessIdentity()
            with process.oneshot():
                name = clean(process.name(), NAME_LIMIT)
                user = clean(process.username(), NAME_LIMIT)
                command = _read_command(process)
        except (psutil.Error, OSError, ValueError):
            return ProcessIdentity()
        identity = ProcessIdentity(
            user=user,
            name=name,
            command=command,
            started_at=started_at,
            start_time=stat.start_time,
            container=read_container(pid),
        )
        # The pid may have gone to somebody else between two of these looks.
        again = read_stat(pid)
        return identity if again is not None and again.start_time == stat.start_time else ProcessIdentity()


def _read_command(process: psutil.Process) -> str:
    try:
        # A program that was given on the command line has lines of its own; here they are one.
        return clean(" ".join(" ".join(process.cmdline()).split()), COMMAND_LIMIT)
    except psutil.Error:
        return ""
