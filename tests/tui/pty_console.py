"""A console in a real terminal whose screen can be read: the bench's terminal and an emulator."""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import termios
import time
from typing import Any

from tests.tui.emulator import Emulator
from turbotui.bench.terminal import Terminal

SCRIPTED = [sys.executable, "-P", "-m", "turbotui.client.scene_console"]
CONSOLE = [sys.executable, "-P", "-m", "turbotui"]


class Shown(Terminal):
    """`screen` is what a person would see."""

    def __init__(
        self,
        command: list[str],
        *,
        columns: int = 120,
        rows: int = 36,
        environ: dict[str, str] | None = None,
        **kind: Any,
    ) -> None:
        super().__init__(command, {**os.environ, **(environ or {})}, columns=columns, rows=rows, **kind)
        self.screen = Emulator(columns, rows)

    def read(self, timeout_s: float) -> bytes | None:
        data = super().read(timeout_s)
        if data:
            self.screen.feed(data)
        return data

    def until(self, *wanted: str, seconds: float = 10.0) -> str:
        """The screen once it shows all of that."""
        deadline = time.monotonic() + seconds
        while True:
            text = self.screen.text()
            if all(piece in text for piece in wanted):
                return text
            assert time.monotonic() < deadline, f"{wanted} never came up:\n{text}"
            assert self.read(0.1) is not None, f"it ended:\n{text}\n{self.output[-2000:]!r}"

    def until_gone(self, unwanted: str, seconds: float = 10.0) -> None:
        deadline = time.monotonic() + seconds
        while unwanted in self.screen.text():
            assert time.monotonic() < deadline, f"{unwanted} stays:\n{self.screen.text()}"
            assert self.read(0.1) is not None

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.screen.resize(columns, rows)

    def ended_within(self, seconds: float) -> int | None:
        """The wait status; None while it lives."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.read(0.05)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status: int | None = status
                return status
        return None

    def __exit__(self, *raised: object) -> None:
        if getattr(self, "status", None) is None:
            super().__exit__(*raised)
        else:
            os.close(self.fd)
