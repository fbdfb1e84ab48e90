"""What /proc shows of one process: state, parent, start, owner, open GPU files, container.

Plain reads that take no lock of the process's memory, so neither the probe nor the daemon can hang
in one. What other users put into names is hostile text until it is cleaned here.
"""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
NAME_LIMIT = 64
ELLIPSIS = "…"
REPLACEMENT = "\ufffd"
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_GPU_FILES = ("/dev/nvidia", "/dev/dxg")
_TICKS = os.sysconf("SC_CLK_TCK")
_KERNEL_THREAD = 0x00200000
"""PF_KTHREAD. Source: include/linux/sched.h."""
_SHORT_ID = 8
"""Enough of a container's id to find it in `docker ps`."""
_CONTAINERS = (
    ("docker", re.compile(r"/docker[-/]([0-9a-f]{12,64})(?:\.scope)?(?:/|$)")),
    ("podman", re.compile(r"/libpod-([0-9a-f]{12,64})(?:\.scope)?(?:/|$)")),
    ("kubernetes", re.compile(r"kubepods.*/(?:[a-z-]+-)?([0-9a-f]{64})(?:\.scope)?(?:/|$)")),
    ("containerd", re.compile(r"/(?:nerdctl|cri-containerd|containerd|crio)-([0-9a-f]{12,64})\.scope")),
    ("containerd", re.compile(r"^/default/([0-9a-f]{64})(?:/|$)")),
    ("lxc", re.compile(r"/lxc(?:\.payload\.|/)([^/]+)")),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stat:
    """A line of /proc/<pid>/stat as far as anybody here asks."""

    name: str
    state: str
    """One letter: R, S, D, Z, ..."""
    parent: int
    kernel_thread: bool
    start_time: float
    """Seconds since boot by the kernel's clock: with the pid, an identity."""

    @property
    def ended(self) -> bool:
        """A zombie, or on its way out for good."""
        return self.state in ("Z", "X")


def read_stat(pid: int, proc: Path = PROC) -> Stat | None:
    """What the kernel says of `pid`; None where it shows no such process."""
    try:
        with open(f"{proc}/{pid}/stat", "rb", buffering=0) as file:
            stat = file.read(4096)
        # The name in parentheses may itself hold spaces and parentheses.
        opened, closed = stat.index(b"("), stat.rindex(b")")
        fields = stat[closed + 2 :].split()
        return Stat(
            name=clean(stat[opened + 1 : closed].decode("utf-8", "replace"), NAME_LIMIT),
            state=fields[0].decode("ascii", "replace"),
            parent=int(fields[1]),
            kernel_thread=bool(int(fields[6]) & _KERNEL_THREAD),
            start_time=int(fields[19]) / _TICKS,
        )
    except (OSError, ValueError, IndexError):
        return None  # it ended, if need be while it was read


def read_terminal(pid: int, proc: Path = PROC) -> str | None:
    """The terminal that a process belongs to, such as `pts/3`; None where it has none."""
    try:
        stat = (proc / str(pid) / "stat").read_bytes()
        number = int(stat[stat.rindex(b")") + 2 :].split()[4])
    except (OSError, ValueError, IndexError):
        return None
    # Source: man 5 proc: the minor number in bits 31 to 20 and 7 to 0, the major one in 15 to 8.
    major, minor = number >> 8 & 0xFFF, number >> 12 & 0xFFF00 | number & 0xFF
    if 136 <= major <= 143:  # pseudo terminals, 256 to each
        return f"pts/{(major - 136) * 256 + minor}"
    return f"tty{minor}" if major == 4 and minor else None


def same_start(one: float, other: float) -> bool:
    """Whether two start times are the same tick of the kernel's clock."""
    return abs(one - other) < 0.5 / _TICKS


def read_uid(pid: int, proc: Path = PROC) -> int | None:
    """The real uid of `pid`; None where it cannot be read."""
    try:
        for line in (proc / str(pid) / "status").read_bytes().splitlines():
            if line.startswith(b"Uid:"):
                return int(line.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    return None


def read_wait(pid: int, proc: Path = PROC) -> str | None:
    """The kernel's function that `pid` waits in; None where it is not told."""
    try:
        name = (proc / str(pid) / "wchan").read_bytes().decode("ascii", "replace").strip()
    except OSError:
        return None
    return clean(name, NAME_LIMIT) if name not in ("", "0") else None


def holds_gpu_file(pid: int, proc: Path = PROC) -> bool | None:
    """Whether `pid` has a GPU's device file open; None where we may not look."""
    try:
        entries = list((proc / str(pid) / "fd").iterdir())
    except OSError:
        return None
    return any(_link(entry).startswith(_GPU_FILES) for entry in entries)


def read_container(pid: int, proc: Path = PROC) -> str | None:
    """The container that `pid` runs in, as `docker 3f2a9c1b`, by its cgroups.

    None for none, and where it cannot be known: within a container the cgroups of its own
    processes have no name.
    """
    try:
        lines = (proc / str(pid) / "cgroup").read_bytes().decode("utf-8", "replace").splitlines()
    except OSError:
        return None
    for line in lines:
        path = line.split(":", 2)[-1]
        for kind, pattern in _CONTAINERS:
            if found := pattern.search(path):
                name = found[1] if kind == "lxc" else found[1][:_SHORT_ID]
                return clean(f"{kind} {name}", NAME_LIMIT)
    return None


def clean(text: str, limit: int) -> str:
    """`text` as one line of at most `limit` characters with nothing that acts on a terminal."""
    if len(text) <= limit and text.isprintable():  # nothing hidden is printable
        return text
    shown = "".join(REPLACEMENT if unicodedata.category(c) in _HIDDEN else c for c in text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 1] + ELLIPSIS


def _link(entry: Path) -> str:
    try:
        return os.readlink(entry)
    except OSError:
        return ""  # closed since it was listed
