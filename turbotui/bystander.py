"""Owns the console's own look at the device while no engine answers: a child that only reads."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.wire import DeviceStatus

COMMAND = (sys.executable, "-P", "-m", "engine.daemon.bystander")
LINE_BYTES = 2**20


class Bystander:
    """At most one child, which ends with this process however that ends: its input closes.

    Args:
        on_status: Called in a thread of its own with each device's status, twice a second.
    """

    def __init__(self, on_status: Callable[[DeviceStatus], None]) -> None:
        self._on_status = on_status
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    def start(self, device_id: str | None) -> None:
        """Begin to look, unless somebody does; without an answer nothing is shown."""
        with self._lock:
            if self._child is not None:
                return
            command = [*COMMAND] if device_id is None else [*COMMAND, device_id]
            try:
                self._child = child = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    # A Ctrl-C at the terminal is the console's to take.
                    start_new_session=True,
                )
            except OSError:
                return
        threading.Thread(target=self._listen, args=(child,), name="bystander", daemon=True).start()

    def stop(self) -> None:
        """End it; from any thread, and where there is none, too."""
        with self._lock:
            child, self._child = self._child, None
        if child is None:
            return
        with suppress(OSError):
            if child.stdin is not None:
                child.stdin.close()
        # What hangs in the driver is not waited for.
        child.terminate()

    def _listen(self, child: subprocess.Popen[bytes]) -> None:
        import msgspec

        from engine.wire import DeviceStatus

        decoder = msgspec.json.Decoder(DeviceStatus)
        assert child.stdout is not None
        while line := child.stdout.readline(LINE_BYTES):
            with suppress(msgspec.MsgspecError, UnicodeDecodeError):
                status = decoder.decode(line)
                if self._child is child:
                    self._on_status(status)
        child.wait()
        with self._lock:
            if self._child is child:
                self._child = None
