"""A terminal that is asked about pictures: answers are no keys, and no answer means half-blocks."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyte
import pytest
from PIL import Image
from rich.style import Style
from textual.geometry import Region

from turbotui.app import TurboApp
from turbotui.client import scenes
from turbotui.picture.asking import QUESTION
from turbotui.picture.graphics import PLACEHOLDER
from turbotui.picture.raster import Picture
from turbotui.widgets.log import LogPanel
from turbotui.widgets.pixels import Pixels

from .conftest import NOW, WIDE, live, scripted, until
from .test_terminal import Terminal

ROOT = Path(__file__).parents[2]
KITTY = b"\x1b_Gi=31;OK\x1b\\\x1bP>|kitty(0.38.1)\x1b\\\x1b[6;20;10t\x1b[?62;c"
FOOT = b"\x1bP>|foot(1.20.2)\x1b\\\x1b[6;18;9t\x1b[?62;4;22c"
NOT_CELLS = re.compile(rb"\x1b[_P][^\x1b]*\x1b\\|\x1b\[[<>=][^a-z]*[a-z]")


class Pictured(Terminal):
    """A console over the busy scene, begun in a folder with one image."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 36, 120, 0, 0))
            for name in ("TMUX", "STY", "NO_COLOR"):
                os.environ.pop(name, None)
            os.environ.update(TERM="xterm-256color", COLORTERM="truecolor", COLUMNS="120", LINES="36")
            os.environ["PYTHONPATH"] = str(ROOT)
            os.environ.update(environ)
            os.chdir(folder)
            os.execv(sys.executable, [sys.executable, "-m", "turbotui.client.scene_console", "busy"])
        self.output = b""
        self.status: int | None = None

    def open_picker(self) -> None:
        self.read_until(b"wan2.1-14b")
        os.write(self.fd, b"a")
        self.read_until(b"ctrl+t chooses")
        os.write(self.fd, b"\x14")
        self.read_until(b"64x32")

    def pump_for(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.pump(0.05)

    def text(self) -> str:
        """What is on the screen; pyte knows nothing of pictures."""
        screen = pyte.Screen(120, 36)
        pyte.ByteStream(screen).feed(NOT_CELLS.sub(b"", self.output))
        return "\n".join(screen.display)


@contextmanager
def console(folder: Path, **environ: str) -> Iterator[Pictured]:
    opened = Pictured(folder, **environ)
    try:
        yield opened
    finally:
        if opened.status is None:
            os.kill(opened.pid, signal.SIGKILL)
            os.waitpid(opened.pid, 0)
        os.close(opened.fd)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.linear_gradient("L").resize((64, 32)).convert("RGB").save(tmp_path / "slope.png")
    return tmp_path


def test_it_is_asked_at_the_first_picture_and_kitty_draws_it(folder: Path) -> None:
    with console(folder) as terminal:
        terminal.read_until(b"wan2.1-14b")
        assert QUESTION.encode() not in terminal.output
        terminal.open_picker()
        terminal.read_until(QUESTION.encode())
        terminal.read_until("▀".encode())
        # Its answer comes together with keys, which narrow the list to what they say.
        os.write(terminal.fd, b"sl" + KITTY + b"ope")
        terminal.read_until(b"\x1b_Ga=T,U=1,q=2,f=100,")
        terminal.read_until(PLACEHOLDER.encode())
        deadline = time.monotonic() + 8
        while "slope▏" not in terminal.text() and time.monotonic() < deadline:
            terminal.pump_for(0.2)
        assert "slope▏" in terminal.text()
        os.write(terminal.fd, b"\x1b")
        terminal.read_until(b"\x1b_Ga=d,d=I,")


def test_sixels_are_put_over_blank_cells(folder: Path) -> None:
    with console(folder) as terminal:
        terminal.open_picker()
        terminal.read_until(QUESTION.encode())
        os.write(terminal.fd, FOOT)
        terminal.read_until(b'\x1bP0;1q"1;1;')


async def test_sixels_are_made_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    made_in: list[str] = []

    def slow(picture: Picture, width: int, height: int) -> str:
        made_in.append(threading.current_thread().name)
        return "sixels"

    monkeypatch.setattr("turbotui.widgets.pixels.sixel_picture", slow)
    monkeypatch.setattr("turbotui.widgets.pixels._cell_pixels", lambda _widget: (10, 20))
    sent: list[str] = []
    monkeypatch.setattr("turbotui.widgets.pixels._send", lambda _widget, text: sent.append(text))
    app = TurboApp(lambda: scripted(scenes.busy(NOW)), where="here")
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        widget = app.dashboard.query_one(LogPanel)
        pixels, picture = Pixels(), Picture(width=2, height=1, rgb=bytes(6))
        rows = pixels.draw(widget, "sixel", picture, Region(1, 2, 78, 25), Style(bgcolor="#000000"))
        assert rows is not None and len(rows) == 25 and not sent
        await until(pilot, lambda: bool(sent), "sixels")
        assert made_in[0].startswith("call-")
        # One that is not wanted any more by the time that it is made is never shown.
        pixels.draw(widget, "sixel", picture, Region(1, 2, 8, 2), Style(bgcolor="#000000"))
        pixels.forget(widget)
        await until(pilot, lambda: len(made_in) == 2)
        await pilot.pause(0.2)
        assert len(sent) == 1


def test_in_tmux_nothing_is_asked_and_half_blocks_are_drawn(folder: Path) -> None:
    with console(folder, TMUX="/tmp/none,1,0", TERM="tmux-256color") as terminal:
        terminal.open_picker()
        terminal.read_until("▀".encode())
        terminal.pump_for(0.5)
        assert b"\x1b_G" not in terminal.output and b"\x1b[>q" not in terminal.output


def test_a_terminal_that_does_not_answer_keeps_its_keys(folder: Path) -> None:
    with console(folder) as terminal:
        terminal.open_picker()
        terminal.read_until(QUESTION.encode())
        os.write(terminal.fd, b"\x1b")  # esc, at once
        terminal.pump_for(0.8)
        before = len(terminal.output)
        os.write(terminal.fd, b"\x14")
        terminal.read_until("▀".encode())
        terminal.pump_for(0.5)
        assert "▀".encode() in terminal.output[before:]  # it was closed and is open again
