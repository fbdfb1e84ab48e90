"""Whether we see every process that can hold a GPU: only then is memory of nobody a ghost's.

In a container, or where /proc is hidden, memory that no process accounts for most likely belongs to
somebody whom we cannot see; to call it a ghost would send a person after a fault that is none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

PROC = Path("/proc")
WSL_DEVICE = Path("/dev/dxg")
HOST_PID_NAMESPACE = "pid:[4026531836]"
"""The kernel's first pid namespace. Source: PROC_PID_INIT_INO, include/linux/proc_ns.h."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HostView:
    """What of this host's processes we can see."""

    host_namespace: bool | None
    """Whether our pid namespace is the host's; None where the kernel does not tell."""
    proc_is_ours: bool
    """Whether /proc shows the namespace that we live in."""
    init_shown: bool
    """Whether pid 1 is there to be seen."""
    hidden: bool
    """Whether /proc hides other users' processes from us."""
    wsl: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class CardView:
    """What one card's driver shows us of its users."""

    mig_mode: bool | None
    coherent_memory: bool | None
    virtual: bool | None
    refused_lists: tuple[str, ...] = ()
    unreadable: str | None = None
    """Why its processes could not be listed at all."""


def read_host_view(proc: Path = PROC, wsl_device: Path = WSL_DEVICE) -> HostView:
    """Look at /proc; costs some file reads, so once a second is often enough."""
    return HostView(
        host_namespace=_in_host_namespace(proc),
        proc_is_ours=_link(f"{proc}/self") == str(os.getpid()),
        init_shown=os.path.exists(f"{proc}/1"),
        hidden=os.geteuid() != 0 and _hides(_mounts(proc)),
        wsl=os.path.exists(wsl_device),
    )


def view_gap(host: HostView, card: CardView) -> str | None:
    """Why our view of the card's users is not provably complete; None: nobody can hide from us."""
    if card.unreadable is not None:
        return f"its processes cannot be listed: {card.unreadable}"
    if host.wsl:
        return "under WSL the driver lives in Windows, whose processes are not shown here"
    if host.host_namespace is None:
        return "whether this is the host's own pid namespace is not told"
    if not host.host_namespace:
        return "this is a container: processes outside of it are not shown"
    if not host.proc_is_ours or not host.init_shown:
        return "/proc does not show the processes of this pid namespace"
    if host.hidden:
        return "/proc hides the processes of other users (hidepid)"
    if card.mig_mode:
        return "with MIG the driver does not tell who holds what"
    if card.coherent_memory:
        return "this card's memory belongs to the host's kernel, which may keep pages of ended processes"
    if card.virtual:
        return "a vGPU shares this card with other machines"
    if card.refused_lists:
        return f"the driver refuses its list of {', '.join(card.refused_lists)} processes"
    return None


def _in_host_namespace(proc: Path) -> bool | None:
    found = _link(f"{proc}/self/ns/pid")
    return None if found is None else found == HOST_PID_NAMESPACE


def _mounts(proc: Path) -> bytes:
    try:
        with open(f"{proc}/self/mountinfo", "rb", buffering=0) as file:
            return file.readall()
    except OSError:
        return b""


@lru_cache(maxsize=1)
def _hides(mounts: bytes) -> bool:
    """Whether the mount that shows processes hides those of others; the same mounts are not read anew."""
    return any("hidepid" in option for option in _proc_options(mounts))


def _proc_options(mounts: bytes) -> Iterator[str]:
    """The options of the mount that shows processes, `hidepid=0` left out: it hides nothing."""
    for line in mounts.decode("utf-8", "replace").splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(" "), right.split(" ")
        if len(fields) > 5 and kind[0] == "proc" and fields[4] == "/proc":
            for option in (*fields[5].split(","), *kind[-1].split(",")):
                if option not in ("hidepid=0", "hidepid=off"):
                    yield option


def _link(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None
