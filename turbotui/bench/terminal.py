"""A program in a terminal of its own: what it shows and when, and what it takes of the host."""

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
import unicodedata
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.cells import cell_len

COLUMNS, ROWS = 120, 36
MEANINGFUL_BYTES = 200
"""Printable bytes that make a picture; a prompt or a title is less."""
FIRST_BYTES = 20
"""Printable bytes in one piece that are more than a terminal being set up."""
KEPT_BYTES = 2**16
"""Of what a program wrote, from the end."""
_CONTROL = re.compile(rb"\x1b\[[0-9;?<>=$]*[a-zA-Z~]|\x1b[^\[]|\x1b\][^\x07]*\x07|[\x00-\x20]")
_ANSWERS = {b"\x1b[c": b"\x1b[?62;c", b"\x1b[?2026$p": b"\x1b[?2026;2$y"}
"""What a terminal answers to the questions that programs ask of it."""
_WHERE = re.compile(rb"(?:\x1b\[(\d+);(\d+)H([^\x1b]*))?\x1b\[6n")
"""A question for the cursor, and what was written since it was put somewhere."""
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """What a process and all its children have taken."""

    cpu_s: float
    rss_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a program took over a stretch of time."""

    seconds: float
    cpu_percent: float
    """Of one core."""
    bytes_per_s: float
    """Written to the terminal."""
    rss_bytes: int
    """At the stretch's end."""


class Terminal:
    """Runs `command` in a pseudo terminal that answers as xterm does; ends it with the `with`."""

    def __init__(
        self,
        command: list[str],
        environ: dict[str, str],
        *,
        columns: int = COLUMNS,
        rows: int = ROWS,
        term: str = "xterm-256color",
        ambiguous_cells: int = 1,
    ) -> None:
        """`term` is its TERM, `ambiguous_cells`: how wide it says that characters of ambiguous width are."""
        self._ambiguous_cells = ambiguous_cells
        self.began = time.perf_counter()
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                # Before the program looks: a size that comes late would first draw another layout.
                fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
                # What a shell exports would stand above every later size.
                rest = {name: value for name, value in environ.items() if name not in ("COLUMNS", "LINES")}
                kind = {"TERM": term, "COLORTERM": "truecolor" if term.startswith("xterm") else ""}
                os.execvpe(command[0], command, {**rest, **kind})
            finally:
                os._exit(127)
        self.count = 0
        """Bytes so far."""
        self.printable = 0
        self.first_paint_s: float | None = None
        """From the start to the first piece that is more than setting the terminal up."""
        self.output = b""
        """The newest `KEPT_BYTES`."""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *raised: object) -> None:
        _end(self.pid, self.fd)

    def read(self, timeout_s: float) -> bytes | None:
        """What comes next; empty when nothing does in time, None when the program has ended."""
        if not select.select([self.fd], [], [], max(0.0, timeout_s))[0]:
            return b""
        try:
            data = os.read(self.fd, 65536)
        except OSError:
            return None
        for question, answer in _ANSWERS.items():
            if question in data:
                os.write(self.fd, answer)
        for asked in _WHERE.finditer(data):
            text = (asked[3] or b"").decode("utf-8", "replace")
            column = int(asked[2] or 1) + sum(self._cells(character) for character in text)
            self.answer(b"\x1b[%s;%dR" % (asked[1] or b"1", column))
        shown = len(_CONTROL.sub(b"", data))
        if self.first_paint_s is None and shown > FIRST_BYTES:
            self.first_paint_s = time.perf_counter() - self.began
        self.count += len(data)
        self.printable += shown
        self.output = (self.output + data)[-KEPT_BYTES:]
        return data or None

    def answer(self, report: bytes) -> None:
        """Tell where the cursor is."""
        os.write(self.fd, report)

    def _cells(self, character: str) -> int:
        ambiguous = unicodedata.east_asian_width(character) == "A"
        return self._ambiguous_cells if ambiguous else cell_len(character)

    def pump(self, seconds: float) -> bool:
        """Read for so long; False when the program ended."""
        until = time.perf_counter() + seconds
        while (left := until - time.perf_counter()) > 0:
            if self.read(min(0.05, left)) is None:
                return False
        return True

    def wait_for(self, wanted: bytes, timeout_s: float) -> float | None:
        """Seconds until `wanted` is written from here on; None when it is not in time."""
        began = time.perf_counter()
        seen = b""
        while (left := timeout_s - (time.perf_counter() - began)) > 0:
            data = self.read(left)
            if data is None:
                return None
            seen = seen[-len(wanted) :] + data
            if wanted in seen:
                return time.perf_counter() - began
        return None

    def press(self, keys: bytes) -> None:
        os.write(self.fd, keys)

    def cost(self, seconds: float, *, pid: int | None = None) -> Cost | None:
        """What it takes over the next `seconds`; None when it ended. `pid`: somebody else's cost."""
        measured = self.pid if pid is None else pid
        before, count, began = usage(measured), self.count, time.perf_counter()
        if not self.pump(seconds):
            return None
        after, passed = usage(measured), time.perf_counter() - began
        return Cost(
            seconds=passed,
            cpu_percent=100 * (after.cpu_s - before.cpu_s) / passed,
            bytes_per_s=(self.count - count) / passed,
            rss_bytes=after.rss_bytes,
        )


def usage(pid: int) -> Usage:
    """Of `pid` and everything below it, those that have ended since not counted."""
    cpu = rss = 0
    for member in _tree(pid):
        with suppress(OSError):
            fields = Path(f"/proc/{member}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
            cpu += int(fields[11]) + int(fields[12])
            rss += int(Path(f"/proc/{member}/statm").read_text().split()[1]) * _PAGE
    return Usage(cpu_s=cpu / _TICKS, rss_bytes=rss)


def _tree(pid: int) -> list[int]:
    found = [pid]
    with suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found += _tree(int(child))
    return found


def first_paint_s(command: list[str], environ: dict[str, str], *, timeout: float = 20) -> float | None:
    """Seconds from starting `command` to its first picture; None when none came. Ends it after."""
    with Terminal(command, environ) as terminal:
        while terminal.printable < MEANINGFUL_BYTES:
            left = timeout - (time.perf_counter() - terminal.began)
            if left <= 0 or terminal.read(left) is None:
                return None
        return time.perf_counter() - terminal.began


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
