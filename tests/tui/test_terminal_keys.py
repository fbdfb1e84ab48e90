"""Keys in a real terminal: suspended and back, the mouse given away, dialogs over a slow link."""

from __future__ import annotations

import os
import signal
import time

from .test_terminal import RESTORED, Terminal, terminal

ALTERNATE = b"\x1b[?1049h"
MOUSE_ON, MOUSE_OFF = b"\x1b[?1003h", b"\x1b[?1003l"


def fresh(console: Terminal, wanted: bytes, seconds: float = 10.0) -> bytes:
    """What comes from here on, until `wanted` is in it."""
    console.output = b""
    console.read_until(wanted, seconds)
    return console.output


def answer_cursor(console: Terminal) -> None:
    os.write(console.fd, b"\x1b[1;1R")


def test_ctrl_z_suspends_and_comes_back_with_its_picture() -> None:
    with terminal() as console:
        console.read_until(b"wan2.1-14b")
        os.write(console.fd, b"M")
        console.read_until(MOUSE_OFF)
        console.output = b""
        os.write(console.fd, b"\x1a")
        console.read_until(RESTORED)
        deadline = time.monotonic() + 5
        status = 0
        while time.monotonic() < deadline:
            pid, status = os.waitpid(console.pid, os.WNOHANG | os.WUNTRACED)
            if pid:
                break
            console.pump(0.05)
        assert os.WIFSTOPPED(status)
        console.output = b""
        os.kill(console.pid, signal.SIGCONT)
        console.read_until(ALTERNATE)
        console.read_until(b"History")
        # The mouse was given away before and stays so.
        assert MOUSE_ON not in console.output
        os.write(console.fd, b"q")
        assert console.ended_within(3.0)


def test_the_mouse_goes_to_the_terminal_and_comes_back() -> None:
    with terminal() as console:
        console.read_until(b"wan2.1-14b")
        assert MOUSE_ON in console.output
        os.write(console.fd, b"M")
        fresh(console, MOUSE_OFF)
        os.write(console.fd, b"M")
        fresh(console, MOUSE_ON)


def test_a_dialog_takes_keys_only_after_the_terminal_has_drawn_it() -> None:
    with terminal() as console:
        console.read_until(b"wan2.1-14b")
        os.write(console.fd, b"C")
        drawn = fresh(console, b"\x1b[6n")
        assert b"Cancel" in drawn
        # Typed blind, before the answer: nothing of it counts, not even the step to the other answer.
        os.write(console.fd, b"\t\r")
        console.pump(0.3)
        answer_cursor(console)
        console.pump(0.3)
        os.write(console.fd, b"\r")  # Cancel has the focus still
        for _ in range(10):  # the first one may only close the dialog, where the box is slow
            os.write(console.fd, b"q")
            if console.ended_within(1.5):
                break
        assert console.status == 0 and b"engine goes on" in console.output
        assert b"ending worker" not in console.output


def test_bytes_that_are_no_text_and_pastes_press_nothing() -> None:
    with terminal() as console:
        console.read_until(b"wan2.1-14b")
        os.write(console.fd, b"\xb2\xe2")
        os.write(console.fd, b"\x1b[200~a line \x1b H\x1b[0m q\r\x1b[201~")
        console.pump(0.5)
        assert not console.ended_within(0.5)
        os.write(console.fd, b"?")
        fresh(console, b"Keys")
        # Escape and another key in one write: the help closes, and the console is left.
        os.write(console.fd, b"\x1bq")
        assert console.ended_within(3.0)
        assert console.status == 0
