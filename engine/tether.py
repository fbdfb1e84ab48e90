"""Ties a child's life to its parent's, by the kernel's own means.

PR_SET_PDEATHSIG is sent by the kernel when the *thread* that forked the child ends, so it is
only right where that thread lives as long as its process: the daemon starts its children from
its main thread, and the nursery forks workers from its own. It also reaches a child that is
stopped, or that sits in a long C call holding the GIL, which no watchdog thread would.
"""

from __future__ import annotations

import ctypes
import os
import signal
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15


def tether(parent_pid: int, name: str) -> None:
    """Die by SIGKILL when `parent_pid` does; call first thing in a child's main thread.

    `name` (at most 15 bytes) is what `ps` and `top` show.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    name_process(name)
    if os.getppid() != parent_pid:
        os._exit(1)  # the parent died before the tether was tied


def name_process(name: str) -> None:
    """Show `name` (at most 15 bytes) in `ps` and `top`."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def offer_to_oom_killer() -> None:
    """Ask the kernel to end this process before its neighbours when host memory runs out.

    A worker can be replaced and its job runs again; the daemon with the queue cannot.
    """
    with suppress(OSError):  # a container may mount /proc read-only; then the default stays
        Path("/proc/self/oom_score_adj").write_text("500")
