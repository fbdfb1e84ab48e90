"""Whether the worker that a row names still lives: boot id, pid and kernel start time together.

A pid alone is reused, and a name survives a restart; all three together cannot mean somebody else.
"""

from __future__ import annotations

from pathlib import Path

from engine.jobs.model import Owner
from engine.telemetry.procfs import read_stat, same_start


def read_boot_id(proc: Path = Path("/proc")) -> str:
    """This boot's id, or an empty string where the kernel does not show one."""
    try:
        return (proc / "sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def read_start_time(pid: int, proc: Path = Path("/proc")) -> float | None:
    """Seconds since boot at which `pid` started, or None when there is no such process or it is a zombie."""
    stat = read_stat(pid, proc)
    return None if stat is None or stat.ended else stat.start_time


def is_alive(owner: Owner, proc: Path = Path("/proc")) -> bool:
    """Whether the worker of `owner` runs; False when it never got one."""
    if owner.worker_pid is None or owner.boot_id != read_boot_id(proc):
        return False
    started = read_start_time(owner.worker_pid, proc)
    if started is None:
        return False
    return owner.worker_start_time is None or same_start(started, owner.worker_start_time)
