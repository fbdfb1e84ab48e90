"""Who holds one GPU: every process with its device file open, or on the driver's lists of it.

A reset fails as long as anybody does, a mere monitor too. Processes whose open files we may not see
are counted and said to be unknown, never taken for none. Blocks; asked from a thread.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engine.paths import user_name
from engine.telemetry.procfs import PROC, Stat, clean, read_stat, read_uid, same_start
from engine.wire import DeviceProcess, ResetHolder

COMMAND_CHARS = 200
PERSISTENCED = "nvidia-persiste"
"""nvidia-persistenced, as the kernel cuts its name: it lets go when persistence mode is switched off."""
PERSISTENCED_USERS = ("nvidia-persistenced", "nvpd")
"""Whom distributions let it run as, where that is not root. Anybody may give his process its name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Holders:
    """What was found."""

    known: tuple[ResetHolder, ...]
    hidden: int
    """Processes whose open files only root, or their owner, may see."""
    minor: int | None
    """The N of the GPU's /dev/nvidiaN; None where the driver does not tell, and any GPU's counts then."""

    @property
    def foreign(self) -> tuple[ResetHolder, ...]:
        """Those that are not this engine's."""
        return tuple(holder for holder in self.known if holder.ours is None)


def find_holders(
    bus_id: str | None, listed: Iterable[DeviceProcess], ours: Mapping[str, int], *, proc: Path = PROC
) -> Holders:
    """Who holds the GPU at `bus_id`; `listed` is on the driver's lists of it, `ours` has our pids by role."""
    minor = read_minor(bus_id, proc)
    roles = {pid: role for role, pid in ours.items()}
    parents = {pid for role, pid in ours.items() if role in ("daemon", "nursery")}
    by_list = {process.pid: process for process in listed}
    daemons = _persistence_uids()
    found: dict[int, ResetHolder] = {}
    hidden = 0
    for pid in _pids(proc):
        holds = _holds(proc / str(pid), minor)
        if holds is None and pid not in by_list:
            hidden += 1
        stat = read_stat(pid, proc)
        if not holds and not _is_listed(by_list.get(pid), stat):
            continue
        uid = read_uid(pid, proc)
        if stat is None or stat.ended or (stat.name == PERSISTENCED and uid in daemons):
            continue
        role = roles.get(pid) or ("one that is ending" if stat.parent in parents else None)
        found[pid] = ResetHolder(
            pid=pid,
            user=None if uid is None else clean(user_name(uid), COMMAND_CHARS),
            command=_command(proc / str(pid)) or stat.name,
            ours=role,
        )
    for pid, process in by_list.items():
        # The driver counts it and it was never seen here: another PID namespace's. One that was has ended.
        if pid not in found and process.start_time is None:
            found[pid] = ResetHolder(pid=pid, user=process.user, command=process.command or process.name)
    return Holders(known=tuple(found[pid] for pid in sorted(found)), hidden=hidden, minor=minor)


def _persistence_uids() -> frozenset[int]:
    uids = {0}
    for name in PERSISTENCED_USERS:
        with suppress(KeyError):
            uids.add(pwd.getpwnam(name).pw_uid)
    return frozenset(uids)


def _is_listed(process: DeviceProcess | None, stat: Stat | None) -> bool:
    """Whether the driver's list means the process that has this number now."""
    if process is None or process.start_time is None or stat is None:
        return False
    return same_start(process.start_time, stat.start_time)


def read_minor(bus_id: str | None, proc: Path = PROC) -> int | None:
    """The N of /dev/nvidiaN of the GPU at `bus_id` (`00000000:1A:00.0`); None where it is not told."""
    if bus_id is None:
        return None
    domain, _, rest = bus_id.lower().partition(":")
    place = proc / "driver/nvidia/gpus" / f"{domain[-4:]}:{rest}" / "information"
    try:
        for line in place.read_text("utf-8", "replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "Device Minor":
                return int(value)
    except (OSError, ValueError):
        pass
    return None


def _pids(proc: Path) -> list[int]:
    try:
        return sorted(int(entry.name) for entry in proc.iterdir() if entry.name.isdecimal())
    except OSError:
        return []


def _holds(process: Path, minor: int | None) -> bool | None:
    """Whether it has the GPU's file open; None where its files may not be seen."""
    try:
        entries = list((process / "fd").iterdir())
    except FileNotFoundError:
        return False
    except OSError:
        return None
    for entry in entries:
        try:
            target = os.readlink(entry)
        except OSError:
            continue
        number = target.removeprefix("/dev/nvidia")
        if number != target and number.isdecimal() and minor in (None, int(number)):
            return True
    return False


def _command(process: Path) -> str:
    try:
        words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""
    return clean(words.strip(), COMMAND_CHARS)
