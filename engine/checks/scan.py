"""The look through /proc that a check takes: of a user's own engines, and of whatever holds a GPU.

Runs in a thread, within a time. What blocks in the kernel is left out: the command line of a process
in state D cannot be read without its memory's lock, so it is not asked for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from engine.checks.facts import EngineRole, ProcessFact
from engine.checks.marks import TITLES, is_left, role_by_words, told_parent
from engine.telemetry.procfs import PROC, Stat, clean, holds_gpu_file, read_stat, read_uid, read_wait

COMMAND_LIMIT = 300
BOUND_S = 0.4
"""Of the look through /proc, all in all. 24 us for each process, so that 10,000 take 0.25 s."""
AGAIN_S = 0.25
"""Until what looks wrong is looked at again: a process may be waiting for a disk, or dying, rightly. One that
has not run once in so long waits for no disk that is well."""
"""PROC_PID_INIT_INO. Source: include/linux/proc_ns.h."""
_LISTENING = b"0A"
_TTY_FIELD = 4
"""Of /proc/<pid>/stat, counted behind the name: tty_nr."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wait:
    """A thread in state D; equal at two looks, it has not run in between."""

    thread: int
    place: str
    """The kernel's function."""
    switches: tuple[bytes, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scan:
    processes: tuple[ProcessFact, ...]
    complete: bool
    """Whether every process was looked at within the time."""


def scan(
    on_gpus: Collection[int],
    *,
    uid: int,
    find_holders: bool = False,
    proc: Path = PROC,
    bound_s: float = BOUND_S,
) -> Scan:
    """Look at the processes of `uid` that are an engine's, and at those `on_gpus`, whoever's they are.

    With `find_holders` also at every other one that is seen to have a GPU's file open.
    """
    deadline = time.monotonic() + bound_s
    pids = _pids(proc)
    stats: dict[int, Stat] = {}
    for pid in pids:
        if time.monotonic() > deadline:
            break
        if (stat := read_stat(pid, proc)) is not None:
            stats[pid] = stat
    complete = len(stats) > 0 and time.monotonic() <= deadline
    roles = _roles(stats, proc, deadline)
    holders = set(_holders(stats, proc, deadline)) if find_holders else set()
    wanted = {*on_gpus, *holders}
    # A python that waits for its disk cannot be asked what it is; nobody below it is called an orphan.
    daemons = {os.getpid()} | {pid for pid, role in roles.items() if role == "daemon"}
    daemons |= {pid for pid, stat in stats.items() if stat.state == "D" and _is_python(stat)}
    found = [
        _look(pid, stats, roles.get(pid), daemons, proc)
        for pid in sorted({*roles, *wanted} & set(stats))
        if time.monotonic() <= deadline
    ]
    facts = [fact for fact in found if fact is not None and (fact.uid == uid or fact.pid in wanted)]
    if any(_looks_wrong(fact) for fact in facts):
        waits = {fact.pid: find_wait(fact.pid, proc) for fact in facts if fact.stuck_in is not None}
        time.sleep(AGAIN_S)
        facts = [again for fact in facts if (again := _confirm(fact, waits.get(fact.pid), proc)) is not None]
    return Scan(
        processes=tuple(facts),
        complete=complete and time.monotonic() <= deadline + AGAIN_S,
    )


def _is_python(stat: Stat) -> bool:
    return stat.name.startswith(("python", "pypy"))


def _pids(proc: Path) -> list[int]:
    try:
        return sorted(int(entry) for entry in os.listdir(proc) if entry.isdecimal())
    except OSError:
        return []


def _roles(stats: dict[int, Stat], proc: Path, deadline: float) -> dict[int, EngineRole]:
    """Every process that is an engine's, whichever engine's, by title or by what it was started as."""
    roles: dict[int, EngineRole] = {}
    for pid, stat in stats.items():
        if stat.kernel_thread or stat.ended or time.monotonic() > deadline:
            continue
        if stat.name in TITLES:
            roles[pid] = TITLES[stat.name]
        elif _is_python(stat) and stat.state != "D":
            role = role_by_words(read_words(pid, proc), pid, proc)
            if role is not None:
                roles[pid] = role
    return roles


def _holders(stats: dict[int, Stat], proc: Path, deadline: float) -> Iterable[int]:
    """Those that have a GPU's file open, as far as we may look and the time allows."""
    for pid, stat in stats.items():
        if time.monotonic() > deadline:
            return
        if not stat.kernel_thread and not stat.ended and holds_gpu_file(pid, proc):
            yield pid


def read_words(pid: int, proc: Path = PROC) -> list[str]:
    """The command line in its words, not cleaned; empty where it cannot be read."""
    try:
        with open(proc / str(pid) / "cmdline", "rb") as file:
            raw = file.read(4096)
    except OSError:
        return []
    return raw.decode("utf-8", "replace").rstrip("\0").split("\0") if raw else []


def _look(
    pid: int, stats: dict[int, Stat], role: EngineRole | None, daemons: Collection[int], proc: Path
) -> ProcessFact | None:
    stat, uid = stats[pid], read_uid(pid, proc)
    if uid is None:
        return None
    parent = stats.get(stat.parent)
    # What blocks in the kernel is not asked for its environment either.
    words = [] if stat.state == "D" else read_words(pid, proc)
    under_daemon = any(number in daemons for number in _ancestors(pid, stats))
    is_child = role is not None and role != "daemon" and not under_daemon
    tied_to = told_parent(words, pid, proc) if is_child and stat.state != "D" else None
    return ProcessFact(
        pid=pid,
        start_time=stat.start_time,
        uid=uid,
        name=stat.name,
        state=stat.state,
        parent=stat.parent,
        parent_name=parent.name if parent is not None else "",
        command=clean(" ".join(words), COMMAND_LIMIT),
        role=role,
        under_daemon=under_daemon,
        left=is_child and is_left(stat, tied_to, stats),
        holds_gpu=holds_gpu_file(pid, proc),
        has_terminal=_has_terminal(pid, proc),
        # The table of a host with many connections takes 10 to 30 ms, and an engine's own has none to ask.
        listens=_listens(pid, proc) if role is None else None,
        stuck_in=wait.place if (wait := find_wait(pid, proc)) is not None else None,
    )


def _ancestors(pid: int, stats: dict[int, Stat]) -> Iterable[int]:
    seen = {pid}
    while (stat := stats.get(pid)) is not None and stat.parent not in seen:
        pid = stat.parent
        seen.add(pid)
        yield pid


def _looks_wrong(fact: ProcessFact) -> bool:
    return fact.stuck_in is not None or fact.state == "Z" or fact.left


def _confirm(fact: ProcessFact, waited: Wait | None, proc: Path) -> ProcessFact | None:
    """The fact as it is now; None where the process has ended meanwhile."""
    stat = read_stat(fact.pid, proc)
    if stat is None or stat.start_time != fact.start_time:
        return None
    stuck = waited is not None and find_wait(fact.pid, proc) == waited
    return replace(fact, state=stat.state, stuck_in=waited.place if stuck and waited is not None else None)


def find_wait(pid: int, proc: Path = PROC) -> Wait | None:
    """The first of its threads that waits in state D; None where none does.

    Any thread: of a process that is half ended the first is a zombie, while another one hangs.
    """
    threads = proc / str(pid) / "task"
    try:
        numbers = sorted(int(entry) for entry in os.listdir(threads))
    except (OSError, ValueError):
        numbers = []
    for folder, number in ((proc, pid), *((threads, number) for number in numbers)):
        stat = read_stat(number, folder)
        if stat is not None and stat.state == "D":
            return Wait(
                thread=number,
                place=read_wait(number, folder) or "an unknown place",
                switches=_switches(number, folder),
            )
    return None


def _switches(number: int, folder: Path) -> tuple[bytes, ...]:
    """How often it has come to run, in the kernel's own words."""
    try:
        lines = (folder / str(number) / "status").read_bytes().splitlines()
    except OSError:
        return ()
    return tuple(line for line in lines if b"ctxt_switches" in line)


def _has_terminal(pid: int, proc: Path) -> bool:
    try:
        stat = (proc / str(pid) / "stat").read_bytes()
        return int(stat[stat.rindex(b")") + 2 :].split()[_TTY_FIELD]) != 0
    except (OSError, ValueError, IndexError):
        return False


def _listens(pid: int, proc: Path) -> bool | None:
    """Whether one of its sockets is a TCP port that listens; None where its files may not be looked at."""
    try:
        targets = {os.readlink(entry.path) for entry in os.scandir(proc / str(pid) / "fd")}
        inodes = {target[8:-1].encode() for target in targets if target.startswith("socket:[")}
        for table in ("tcp", "tcp6"):
            # Of the process's own network namespace, which need not be ours.
            for line in (proc / str(pid) / "net" / table).read_bytes().splitlines()[1:]:
                fields = line.split()
                if len(fields) > 9 and fields[3] == _LISTENING and fields[9] in inodes:
                    return True
    except OSError:
        return None
    return False
