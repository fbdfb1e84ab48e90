"""Host memory as this process may use it: the machine's or its cgroup's, whichever is smaller.

In a container the machine's figures promise memory that the kernel would kill for. Both cgroup
versions are read, and every level up to the root, since any of them may be the tight one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, kw_only=True, slots=True)
class HostMemory:
    """Total and available bytes, and who sets the limit."""

    total_bytes: int
    available_bytes: int
    limited_by_cgroup: bool
    bound_by_cgroup: bool = False
    """Whether what is available is what a cgroup leaves, less than the machine has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CgroupFiles:
    """The files of one level that limits memory."""

    limit: Path
    usage: Path
    stat: Path
    reclaimable: bytes
    """Field of `stat` with the page cache that can go at once."""
    pressure: Path | None = None
    """How long its processes wait for memory; cgroup v2 only."""


class HostProbe:
    """Reads host memory; finds the cgroup once, its limits again whenever asked."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._levels = find_levels(proc)
        self._limited: list[tuple[CgroupFiles, int]] = []

    def refresh_limits(self) -> None:
        """Look again which levels have a limit; they may change at any time, but seldom do."""
        machine = self._read_meminfo()[0]
        self._limited = []
        for level in self._levels:
            limit = _read_number(level.limit)
            if limit is not None and limit < machine:
                self._limited.append((level, limit))

    def read(self) -> HostMemory:
        """Now. A level that cannot be read does not limit."""
        total, available = self._read_meminfo()
        limited = bound = False
        for level, limit in self._limited:
            usage = _read_number(level.usage)
            if usage is None:
                continue
            limited = True
            total = min(total, limit)
            headroom = limit - usage + _read_field(level.stat, level.reclaimable)
            bound = bound or headroom < available
            available = min(available, max(0, headroom))
        return HostMemory(
            total_bytes=total,
            available_bytes=min(available, total),
            limited_by_cgroup=limited,
            bound_by_cgroup=bound,
        )

    def read_pressure(self) -> float | None:
        """Percent of the last 10 s in which somebody waited for memory; None where it is not told.

        Of the innermost level that limits us, else of the machine.
        """
        limiting = next((level for level, _ in self._limited), None)
        path = self._proc / "pressure/memory" if limiting is None else limiting.pressure
        return None if path is None else _read_some_avg10(path)

    def _read_meminfo(self) -> tuple[int, int]:
        fields: dict[bytes, int] = {}
        # MemTotal, MemFree and MemAvailable are the first three lines; the rest is not parsed.
        for line in (self._proc / "meminfo").read_bytes().split(b"\n", 4)[:4]:
            name, _, value = line.partition(b":")
            fields[name] = int(value.split()[0]) * 1024 if value else 0
        return fields[b"MemTotal"], fields.get(b"MemAvailable", fields.get(b"MemFree", 0))


def read_rss(pid: int, proc: Path = Path("/proc")) -> int | None:
    """Resident bytes of `pid`, or None when it is gone."""
    return _read_statm(pid, 1, proc)


def read_virtual(pid: int, proc: Path = Path("/proc")) -> int | None:
    """Bytes of address space that `pid` has mapped, or None when it is gone."""
    return _read_statm(pid, 0, proc)


def _read_statm(pid: int, field: int, proc: Path) -> int | None:
    try:
        with open(f"{proc}/{pid}/statm", "rb", buffering=0) as file:
            return int(file.read(128).split()[field]) * _PAGE_BYTES
    except (OSError, IndexError):
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnMemory:
    """Of this process by its /proc/self/status; None where the kernel does not tell."""

    anonymous_bytes: int | None = None
    """Resident and of no file: heaps, stacks, buffers."""
    shared_bytes: int | None = None
    """Resident and shared: of anonymous mappings, of /dev/shm, of any file on a tmpfs."""
    file_bytes: int | None = None
    """Resident pages of other files."""
    highest_bytes: int | None = None
    """The most that was resident of all, since that was reset."""


def read_own(proc: Path = Path("/proc")) -> OwnMemory:
    """Takes 20 us."""
    try:
        text = (proc / "self/status").read_bytes()
    except OSError:
        return OwnMemory()
    fields = {
        name: int(value.split()[0]) * 1024
        for name, value in (line.split(b":", 1) for line in text.splitlines() if line.startswith(_OWN))
    }
    return OwnMemory(
        anonymous_bytes=fields.get(b"RssAnon"),
        shared_bytes=fields.get(b"RssShmem"),
        file_bytes=fields.get(b"RssFile"),
        highest_bytes=fields.get(b"VmHWM"),
    )


_OWN = (b"RssAnon:", b"RssFile:", b"RssShmem:", b"VmHWM:")


def read_swapped(pid: int, proc: Path = Path("/proc")) -> int | None:
    """What of `pid` lies in swap, in bytes; None when it is gone or the kernel has no swap."""
    try:
        for line in (proc / str(pid) / "status").read_bytes().splitlines():
            if line.startswith(b"VmSwap:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def find_levels(proc: Path) -> list[CgroupFiles]:
    """Our cgroup's levels that could limit memory, the innermost first; empty where there is none."""
    try:
        groups = (proc / "self/cgroup").read_text("utf-8", "replace").splitlines()
        mounts = (proc / "self/mountinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
    levels: list[CgroupFiles] = []
    for line in groups:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            levels += [_level_v2(folder) for folder in _folders(mounts, "cgroup2", "", path)]
        elif "memory" in controllers.split(","):
            levels += [_level_v1(folder) for folder in _folders(mounts, "cgroup", "memory", path)]
    return levels


def _level_v2(folder: Path) -> CgroupFiles:
    return CgroupFiles(
        limit=folder / "memory.max",
        usage=folder / "memory.current",
        stat=folder / "memory.stat",
        reclaimable=b"inactive_file",
        pressure=folder / "memory.pressure",
    )


def _level_v1(folder: Path) -> CgroupFiles:
    return CgroupFiles(
        limit=folder / "memory.limit_in_bytes",
        usage=folder / "memory.usage_in_bytes",
        stat=folder / "memory.stat",
        reclaimable=b"total_inactive_file",
    )


def _folders(mounts: list[str], fs_type: str, controller: str, path: str) -> list[Path]:
    """`path` and its parents below the mount of that hierarchy.

    In a container the path may lie outside what is mounted; then the mount itself is our group.
    """
    for line in mounts:
        left, _, right = line.partition(" - ")
        fields, kind = left.split(" "), right.split(" ")
        if len(fields) < 5 or kind[0] != fs_type:
            continue
        if controller and controller not in kind[-1].split(","):
            continue
        root, mount = fields[3], Path(fields[4])
        inside = path.removeprefix(root) if root != "/" and path.startswith(root) else path
        relative = Path(inside.lstrip("/"))
        if ".." in relative.parts or not (mount / relative).is_dir():
            return [mount]
        return [mount / relative, *(mount / parent for parent in relative.parents if relative.parts)]
    return []


def _read_number(path: Path) -> int | None:
    """A file's one number; None for `max`, and where it cannot be read."""
    try:
        return int(path.read_bytes())
    except (OSError, ValueError):
        return None


def _read_field(path: Path, field: bytes) -> int:
    """One field of a `memory.stat`; 0 where it is absent, so that headroom is never promised."""
    try:
        for line in path.read_bytes().splitlines():
            name, _, value = line.partition(b" ")
            if name == field:
                return int(value)
    except (OSError, ValueError):
        pass
    return 0


def _read_some_avg10(path: Path) -> float | None:
    """`avg10` of the line `some`. Source: Documentation/accounting/psi.rst."""
    try:
        for line in path.read_bytes().splitlines():
            if line.startswith(b"some "):
                return float(line.split()[1].removeprefix(b"avg10="))
    except (OSError, ValueError, IndexError):
        pass
    return None
