"""The console in a real terminal: it ends when told or when the terminal goes, and leaves it as it was."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

RESTORED = b"\x1b[?1049l"
"""Leaves the alternate screen."""
IDLE = ("-m", "turbotui.client.scene_console", "idle")


class Terminal:
    """A console as the child of a pseudo terminal of 120 by 36."""

    def __init__(self, *, hangup_blocked: bool = False, program: tuple[str, ...] = IDLE) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            if hangup_blocked:
                # Ignoring would not do: the console takes the signal over.
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
            # Before it looks: a size that comes late would first draw the small layout.
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 36, 120, 0, 0))
            os.environ.update(TERM="xterm-256color", COLORTERM="truecolor", COLUMNS="120", LINES="36")
            os.execv(sys.executable, [sys.executable, *program])
        self.output = b""
        self.status: int | None = None

    def read_until(self, wanted: bytes, seconds: float = 10.0) -> None:
        deadline = time.monotonic() + seconds
        while wanted not in self.output:
            assert time.monotonic() < deadline, f"{wanted!r} never came: {self.output[-300:]!r}"
            self.pump(0.1)

    def pump(self, seconds: float) -> None:
        if select.select([self.fd], [], [], seconds)[0]:
            try:
                self.output += os.read(self.fd, 65536)
            except OSError:
                time.sleep(0.01)

    def ended_within(self, seconds: float, *, reading: bool = True) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = status
                if reading:
                    self.pump(0.05)
                return True
            self.pump(0.05) if reading else time.sleep(0.05)
        return False


@contextmanager
def terminal(*, hangup_blocked: bool = False, program: tuple[str, ...] = IDLE) -> Iterator[Terminal]:
    opened = Terminal(hangup_blocked=hangup_blocked, program=program)
    try:
        yield opened
    finally:
        if opened.status is None:
            os.kill(opened.pid, signal.SIGKILL)
            os.waitpid(opened.pid, 0)
        try:
            os.close(opened.fd)
        except OSError:
            pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_restores_the_terminal(number: signal.Signals) -> None:
    with terminal() as console:
        console.read_until(b"History")
        os.kill(console.pid, number)
        assert console.ended_within(3.0)
        console.read_until(RESTORED)
        assert console.status is not None and os.waitstatus_to_exitcode(console.status) == 128 + number


def test_a_terminal_that_vanishes_ends_it_even_where_no_hangup_comes() -> None:
    with terminal(hangup_blocked=True) as console:
        console.read_until(b"History")
        os.close(console.fd)
        assert console.ended_within(6.0, reading=False)


def test_q_leaves_with_a_line_that_the_engine_goes_on() -> None:
    with terminal() as console:
        console.read_until(b"Models")
        console.read_until(b"wan2.1-14b")
        os.write(console.fd, b"q")
        assert console.ended_within(3.0)
        console.read_until(RESTORED)
        assert b"engine goes on, 0 waiting" in console.output.rpartition(RESTORED)[2]


def test_a_stalled_terminal_does_not_keep_it_from_ending() -> None:
    with terminal() as console:
        console.read_until(b"History")
        # Nobody reads any more, as over a dead SSH link; a resize storm fills what buffers there are.
        for width in range(100, 160):
            fcntl.ioctl(console.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
            time.sleep(0.02)
        os.kill(console.pid, signal.SIGTERM)
        assert console.ended_within(6.0, reading=False)
