"""Host-wide claims on GPUs, so that two engines never share one unknowingly.

A claim is an abstract Unix socket named after the GPU's UUID: every user on the host sees the
same names, no file is left behind, and the kernel drops it with the process.
"""

from __future__ import annotations

import errno
import socket

PREFIX = "\0turbotui-gpu-"


class GpuClaim:
    """Ours until `release` or the end of the process."""

    def __init__(self, sock: socket.socket, uuid: str) -> None:
        self._socket = sock
        self.uuid = uuid

    def release(self) -> None:
        self._socket.close()


def claim_gpu(uuid: str) -> GpuClaim | None:
    """Claim the GPU, or None when another engine on this host holds it."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.bind(PREFIX + uuid)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise
    return GpuClaim(sock, uuid)
