"""Owns the way to a socket there where the ssh server forwards none: each connection is a command.

A program of ssh's reads from and writes to the connection itself, so nothing passes through us.
"""

from __future__ import annotations

import base64
import shlex
import socket
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

from turbotui.remote.ssh import SshConnection

_PROGRAM = """
import os, socket, sys, threading
there = socket.socket(socket.AF_UNIX)
there.connect(sys.argv[1])
def up():
    while True:
        data = os.read(0, 65536)
        if not data:
            os._exit(0)
        there.sendall(data)
threading.Thread(target=up, daemon=True).start()
while True:
    data = there.recv(65536)
    if not data:
        break
    while data:
        data = data[os.write(1, data):]
os._exit(0)
"""


def relay_command(there: str) -> str:
    """What a shell there runs to join its input and output to the socket `there`."""
    packed = base64.b64encode(_PROGRAM.encode()).decode()
    program = f'exec(__import__("base64").b64decode("{packed}"))'
    return f"exec python3 -c {shlex.quote(program)} {shlex.quote(there)}"


class Relay:
    """Listens at `here` until closed."""

    def __init__(self, connection: SshConnection, here: Path, there: str) -> None:
        self._arguments = connection.arguments(relay_command(there))
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(here))
        self._listener.listen(16)
        self._children: list[subprocess.Popen[bytes]] = []
        threading.Thread(target=self._accept, name="relay", daemon=True).start()

    def close(self) -> None:
        # Shut down, so that whoever accepts wakes up.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for child in self._children:
            child.terminate()
            with suppress(subprocess.TimeoutExpired):
                child.wait(1.0)

    def _accept(self) -> None:
        while True:
            try:
                connection, _nobody = self._listener.accept()
            except OSError:
                return
            self._children = [child for child in self._children if child.poll() is None]
            with connection, suppress(OSError):
                self._children.append(
                    subprocess.Popen(
                        self._arguments,
                        stdin=connection.fileno(),
                        stdout=connection.fileno(),
                        stderr=subprocess.DEVNULL,
                    )
                )
