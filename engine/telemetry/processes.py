"""Who a pid on a GPU is: user, name, command line and start, as /proc shows them to us.

What other users put into their command lines is hostile text until it is cleaned here.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

COMMAND_LIMIT = 300
NAME_LIMIT = 64
ELLIPSIS = "…"
REPLACEMENT = "\ufffd"
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_GPU_FILES = ("/dev/nvidia", "/dev/dxg")


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessIdentity:
    """A process by name; all unknown where /proc does not show it."""

    user: str | None = None
    name: str = ""
    command: str = ""
    started_at: float | None = None
    """Wall-clock seconds, for display only."""


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
        try:
            process = psutil.Process(pid)
            started_at = process.create_time()
            if known is not None and known.started_at == started_at:
                return known
            if holds_gpu_file(pid) is False:
                # Some drivers give pids of the host's namespace, which here belong to somebody else.
                return ProcessIdentity()
            with process.oneshot():
                name = clean(process.name(), NAME_LIMIT)
                user = clean(process.username(), NAME_LIMIT)
                command = _read_command(process)
        except (psutil.Error, OSError, ValueError):
            return ProcessIdentity()
        return ProcessIdentity(user=user, name=name, command=command, started_at=started_at)


def holds_gpu_file(pid: int, proc: Path = Path("/proc")) -> bool | None:
    """Whether `pid` has a GPU's device file open; None where we may not look."""
    try:
        entries = list((proc / str(pid) / "fd").iterdir())
    except OSError:
        return None
    return any(_link(entry).startswith(_GPU_FILES) for entry in entries)


def _link(entry: Path) -> str:
    try:
        return os.readlink(entry)
    except OSError:
        return ""  # closed since it was listed


def clean(text: str, limit: int) -> str:
    """`text` as one line of at most `limit` characters with nothing that acts on a terminal."""
    shown = "".join(REPLACEMENT if unicodedata.category(c) in _HIDDEN else c for c in text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 1] + ELLIPSIS


def _read_command(process: psutil.Process) -> str:
    try:
        return clean(" ".join(process.cmdline()), COMMAND_LIMIT)
    except psutil.Error:
        return ""
