"""Whether the worker that a row names still lives: boot id, pid and kernel start time together.

A pid alone is reused, and a name survives a restart; all three together cannot mean somebody else.
"""

from __future__ import annotations

import os
from pathlib import Path

from engine.jobs.model import Owner

_TICKS = os.sysconf("SC_CLK_TCK")


def read_boot_id(proc: Path = Path("/proc")) -> str:
    """This boot's id, or an empty string where the kernel does not show one."""
    try:
        return (proc / "sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def read_start_time(pid: int, proc: Path = Path("/proc")) -> float | None:
    """Seconds since boot at which `pid` started, or None when there is no such process or it is a zombie."""
    try:
        stat = (proc / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    # The name in parentheses may itself hold spaces and parentheses.
    fields = stat[stat.rindex(b")") + 2 :].split()
    if fields[0] in (b"Z", b"X"):
        return None
    return int(fields[19]) / _TICKS


def is_alive(owner: Owner, proc: Path = Path("/proc")) -> bool:
    """Whether the worker of `owner` runs; False when it never got one."""
    if owner.worker_pid is None or owner.boot_id != read_boot_id(proc):
        return False
    started = read_start_time(owner.worker_pid, proc)
    if started is None:
        return False
    return owner.worker_start_time is None or abs(started - owner.worker_start_time) < 0.5 / _TICKS
