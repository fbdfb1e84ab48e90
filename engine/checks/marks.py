"""Which processes are an engine's own, and whether the engine that each was tied to is gone.

A title or a command line alone could be a stranger's: a project of theirs may have a package `engine`. So
a module counts only as we start it, safe-path and with the parent that it was told to die with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from engine.checks.facts import EngineRole
from engine.telemetry.procfs import PROC, Stat

PARENT_VARIABLE = b"_TURBOTUI_PARENT="
"""The engine's daemon, in the environment of what it starts; what is forked from that keeps it."""
TITLES: dict[str, EngineRole] = {
    "tt-worker": "worker",
    "tt-nursery": "nursery",
    "tt-probe": "probe",
    "tt-demo-maker": "demo-maker",
}
"""As `engine.tether` names them."""
SERVICE_PARENTS = frozenset({"systemd", "init", "tini", "dumb-init", "docker-init"})
"""Who takes in the children of the dead."""
_DAEMON = "engine.daemon"
_MODULES: dict[str, EngineRole] = {"engine.worker.entry": "worker", "engine.telemetry.probe": "probe"}
_ENVIRONMENT_LIMIT = 2**20


def role_by_words(words: Sequence[str], pid: int, proc: Path = PROC) -> EngineRole | None:
    """What a python is of an engine by what it was started as; None where it is not ours for certain.

    `words` are its command line. A daemon is taken for one more readily: nobody below it is an orphan.
    """
    place = next((number for number, word in enumerate(words[:-1]) if word == "-m"), None)
    if place is None:
        return None
    module = words[place + 1]
    if module == _DAEMON:
        return "daemon"
    if module not in _MODULES or "-P" not in words[1:place]:
        return None
    return _MODULES[module] if told_parent(words, pid, proc) is not None else None


def told_parent(words: Sequence[str], pid: int, proc: Path = PROC) -> int | None:
    """The pid that an engine told it to die with; None where it was told none, or that cannot be read."""
    for option, value in pairwise(words):
        if option == "--parent" and value.isdecimal():
            return int(value)
    try:
        with open(proc / str(pid) / "environ", "rb") as file:
            environment = file.read(_ENVIRONMENT_LIMIT)
    except OSError:
        return None
    for line in environment.split(b"\0"):
        if line.startswith(PARENT_VARIABLE) and (number := line[len(PARENT_VARIABLE) :]).isdigit():
            return int(number)
    return None


def is_left(stat: Stat, parent: int | None, stats: Mapping[int, Stat]) -> bool:
    """Whether who it was tied to is gone. `parent` is who that was by its mark, `stats` are all there are.

    Without a mark only one that whoever takes in the children of the dead has taken in.
    """
    if parent is None:
        above = stats.get(stat.parent)
        return stat.parent == 1 or (above is not None and above.name in SERVICE_PARENTS)
    tied = stats.get(parent)
    # A parent is older than its child: a younger one has only got its number.
    return tied is None or tied.ended or tied.start_time > stat.start_time
