"""Host-wide claims on GPUs, so that two engines never share one unknowingly.

A claim is an abstract Unix socket named after the GPU's UUID: every user on the host sees the
same names, no file is left behind, and the kernel drops it with the process. It listens, so that
others learn from the kernel whose it is; nothing is ever said on it.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass

PREFIX = "\0turbotui-gpu-"
BACKLOG = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class ClaimHolder:
    """The process that holds a claim, as the kernel names it."""

    pid: int
    """0 where it is of another PID namespace."""
    uid: int


def claim_gpu(uuid: str) -> socket.socket | None:
    """A claim on the GPU, ours as long as it is open; None when another engine on this host holds it."""
    sock = _socket()
    try:
        sock.bind(PREFIX + uuid)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise
    return sock


def answer_looks(claim: socket.socket) -> None:
    """Let go of everybody who has looked whose claim this is, in the running loop."""

    def accept() -> None:
        with suppress(OSError):
            claim.accept()[0].close()

    asyncio.get_running_loop().add_reader(claim, accept)


def find_holder(uuid: str) -> ClaimHolder | None:
    """Who has claimed the GPU; None where nobody has, or where it cannot be known. Never waits."""
    with _socket() as sock:
        try:
            sock.connect(PREFIX + uuid)
            raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        except OSError:
            return None
    pid, uid, _gid = struct.unpack("3i", raw)
    return ClaimHolder(pid=pid, uid=uid)


def _socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
