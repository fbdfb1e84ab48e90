"""Which limit an allocation met: the card's, that of this process's addresses, of its cgroup, or the host's.

The host has several limits at once, and the smallest room left is what an allocation fails at: under
`ulimit -v` no other process's memory would have helped.
"""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

from engine.errors import DoesNotFit
from engine.telemetry.host import HostProbe, read_virtual
from engine.worker.backend import Backend
from engine.worker.oom_facts import OomBound


def bound_of(error: BaseException, backend: Backend, *, refused: bool = False) -> OomBound:
    """What bound the allocation that ended in `error`; read before anything is given back.

    `refused` says that the device's own allocator has just said no.
    """
    if isinstance(error, DoesNotFit):
        return OomBound(kind="budget")
    if backend.kind == "cuda" and (refused or not lacks_host_memory(error)):
        return OomBound(kind="device", limit_bytes=backend.total_bytes)
    return host_bound()


def lacks_host_memory(error: BaseException) -> bool:
    """Whether it was the host that had no memory, by what its allocators raise."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def host_bound(proc: Path = Path("/proc")) -> OomBound:
    """The one of the host's limits that leaves the least room."""
    probe = HostProbe(proc)
    probe.refresh_limits()
    memory = probe.read()
    machine_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [
        OomBound(kind="cgroup", limit_bytes=memory.total_bytes, free_bytes=memory.available_bytes)
        if memory.bound_by_cgroup
        else OomBound(kind="host", limit_bytes=machine_bytes, free_bytes=memory.available_bytes)
    ]
    limit, mapped = resource.getrlimit(resource.RLIMIT_AS)[0], read_virtual(os.getpid())
    if limit != resource.RLIM_INFINITY and mapped is not None:
        free = max(0, limit - mapped)
        limits.append(OomBound(kind="address_space", limit_bytes=limit, free_bytes=free))
    return min(limits, key=lambda one: one.free_bytes or 0)
