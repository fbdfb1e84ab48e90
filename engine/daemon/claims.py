"""Host-wide claims on GPUs, so that two engines never share one unknowingly.

A claim is an abstract Unix socket named after the GPU's UUID: every user on the host sees the
same names, no file is left behind, and the kernel drops it with the process.
"""

from __future__ import annotations

import errno
import socket

PREFIX = "\0turbotui-gpu-"


def claim_gpu(uuid: str) -> socket.socket | None:
    """A claim on the GPU, ours as long as it is open; None when another engine on this host holds it."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.bind(PREFIX + uuid)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise
    return sock
