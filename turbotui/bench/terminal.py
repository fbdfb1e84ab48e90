"""A program in a terminal of its own, and the time until it shows something."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from contextlib import suppress

COLUMNS, ROWS = 120, 36
MEANINGFUL_BYTES = 200
"""Printable bytes that make a picture; a prompt or a title is less."""
_CONTROL = re.compile(rb"\x1b\[[0-9;?<>=$]*[a-zA-Z~]|\x1b[^\[]|\x1b\][^\x07]*\x07|[\x00-\x20]")
_ANSWERS = {b"\x1b[6n": b"\x1b[1;1R", b"\x1b[c": b"\x1b[?62;c", b"\x1b[?2026$p": b"\x1b[?2026;2$y"}
"""What a terminal answers to the questions that programs ask of it."""


def first_paint_s(command: list[str], environ: dict[str, str], *, timeout: float = 20) -> float | None:
    """Seconds from starting `command` to its first picture; None when none came. Ends it after."""
    began = time.perf_counter()
    pid, fd = pty.fork()
    if pid == 0:
        try:
            os.execvpe(command[0], command, {**environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"})
        finally:
            os._exit(127)
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    try:
        return _until_painted(fd, began, timeout)
    finally:
        _end(pid, fd)


def _until_painted(fd: int, began: float, timeout: float) -> float | None:
    painted = 0
    while (elapsed := time.perf_counter() - began) < timeout:
        if not select.select([fd], [], [], timeout - elapsed)[0]:
            return None
        try:
            data = os.read(fd, 65536)
        except OSError:
            return None
        for question, answer in _ANSWERS.items():
            if question in data:
                os.write(fd, answer)
        painted += len(_CONTROL.sub(b"", data))
        if painted >= MEANINGFUL_BYTES:
            return time.perf_counter() - began
    return None


def _end(pid: int, fd: int) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            if os.waitpid(pid, os.WNOHANG)[0]:
                os.close(fd)
                return
            with suppress(OSError):
                if select.select([fd], [], [], 0.02)[0]:
                    os.read(fd, 65536)
    os.close(fd)
