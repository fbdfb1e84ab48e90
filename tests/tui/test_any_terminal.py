"""The console in terminals of every kind and mood: stalled, resized without end, tiny, huge, old."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from turbotui.bench.terminal import usage

from .pty_console import CONSOLE, SCRIPTED, Shown

MIB = 2**20
STALL_S = 4.0


def still(text: str) -> str:
    """A screen without what moves by itself, whole rows of the graph among it."""
    rows = text.splitlines()
    kept = [row for row in rows if not re.search(r"[┤▶■]|now", row)]
    return re.sub(r"\d", "0", "\n".join(kept))


def of_size(columns: int, rows: int) -> str:
    """What a console shows that has never had another size."""
    with Shown([*SCRIPTED, "idle"], columns=columns, rows=rows) as fresh:
        fresh.until("live", "free")
        fresh.press(b"4")
        fresh.until("help q quit")
        fresh.pump(1.0)
        return still(fresh.screen.text())


def test_a_terminal_that_does_not_read_costs_nothing_and_loses_no_key() -> None:
    with Shown([*SCRIPTED, "busy"]) as console:
        console.until("denoise", "free")
        console.pump(1.0)
        # Nobody reads, and what the kernel keeps for the terminal is soon full.
        before = usage(console.pid)
        began = time.monotonic()
        for width in range(100, 120):
            console.resize(width, 36)
            time.sleep(0.05)
        console.resize(120, 36)
        console.press(b"6")
        time.sleep(STALL_S)
        console.press(b"A")
        after, passed = usage(console.pid), time.monotonic() - began
        assert (after.cpu_s - before.cpu_s) / passed < 0.30
        assert after.rss_bytes - before.rss_bytes < 8 * MIB
        count, began = console.count, time.monotonic()
        console.until("all lines", seconds=4.0)
        assert time.monotonic() - began < 2.0
        console.pump(1.0)
        # What was not read was not kept for later either: one picture or two, not forty.
        assert console.count - count < 150_000
        shown = console.screen.text()
        assert (
            "╭ 6 Log" in shown and "following" in shown and shown.splitlines()[-1].rstrip().endswith("quit")
        )


def test_a_storm_of_sizes_ends_with_the_right_picture() -> None:
    with Shown([*SCRIPTED, "idle"]) as console:
        console.until("live", "free")
        for step in range(100):
            console.resize(40 + (step * 37) % 160, 10 + (step * 13) % 50)
            console.read(0.02)
        console.resize(100, 30)
        wanted, deadline = of_size(100, 30), time.monotonic() + 12.0
        while still(console.screen.text()) != wanted and time.monotonic() < deadline:
            console.press(b"4")  # a small terminal has put the focus elsewhere
            console.pump(0.5)
        assert still(console.screen.text()) == wanted


def test_without_colours_it_grows_and_sends_none() -> None:
    with Shown([*SCRIPTED, "busy"], columns=80, rows=24, environ={"NO_COLOR": "1"}) as console:
        console.until("denoise")
        for size in ((100, 30), (200, 50), (80, 24)):
            console.resize(*size)
            console.pump(0.7)
            console.until("denoise")
        console.press(b":")
        console.until("Add a job")
        console.press(b"\x1b")
        console.until_gone("Add a job")
        console.press(b"a")
        console.until("F1 keys")
        colours = re.findall(rb"\x1b\[(?:\d+;)*(?:[34]8;|[349][0-7]|10[0-7])[\d;]*m", console.output)
        assert not colours, set(colours)
        assert all(code in console.output for code in (b"\x1b[1m", b"\x1b[2m", b"7m"))


@pytest.mark.parametrize("size", [(1, 1), (500, 200), (30, 4)])
def test_no_size_is_its_end(size: tuple[int, int]) -> None:
    with Shown([*SCRIPTED, "busy"], columns=size[0], rows=size[1]) as console:
        assert console.pump(2.5)
        console.press(b"3")
        console.press(b"m")
        console.press(b"\x1b")
        assert console.pump(0.5)
        console.resize(120, 36)
        console.until("1 Memory", "denoise", "quit")
        console.press(b"q")
        assert console.ended_within(4.0) == 0


@pytest.mark.parametrize("term", ["linux", "xterm", "screen", "vt100", "tmux-256color", "unheard-of"])
def test_it_opens_whatever_the_terminal_is_called(term: str) -> None:
    with Shown([*SCRIPTED, "idle"], term=term) as console:
        shown = console.until("1 Memory", "free", "quit")
        assert ("╭ 1 Memory" in shown) == (term not in ("linux", "vt100"))


def test_a_terminal_that_cannot_move_its_cursor_is_told_what_to_use() -> None:
    with Shown(CONSOLE, term="dumb") as console:
        status = console.ended_within(10.0)
        assert status is not None and os.waitstatus_to_exitcode(status) == 2
        assert b"status --watch" in console.output and b"\x1b[" not in console.output


def test_an_encoding_without_our_symbols_gets_ascii_and_ends_nobody() -> None:
    with Shown([*SCRIPTED, "busy"], environ={"PYTHONIOENCODING": "ascii"}) as console:
        shown = console.until("+ 1 Memory", "free", "denoise")
        assert shown.isascii()


def test_a_hangup_that_is_ignored_ends_it_with_its_terminal() -> None:
    ignore = "import os, signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    code = f"{ignore}; os.execv({sys.executable!r}, {[*SCRIPTED, 'idle']!r})"
    console = Shown([sys.executable, "-c", code])
    console.until("live")
    os.close(console.fd)
    deadline = time.monotonic() + 6
    while not os.waitpid(console.pid, os.WNOHANG)[0]:
        if time.monotonic() > deadline:
            os.kill(console.pid, signal.SIGKILL)
            raise AssertionError("it lives on without a terminal")
        time.sleep(0.05)


def multiplexer(name: str) -> bool:
    return subprocess.run(["which", name], capture_output=True, check=False).returncode == 0


def _pane(tmux: list[str]) -> str:
    """What tmux shows."""
    shown = subprocess.run([*tmux, "capture-pane", "-p"], capture_output=True, text=True, check=True)
    return shown.stdout


@pytest.mark.skipif(not multiplexer("tmux"), reason="tmux is not installed")
def test_in_tmux_it_is_the_same_and_outlives_its_terminal() -> None:
    tmux = ["tmux", "-L", f"turbotui-test-{os.getpid()}", "-f", os.devnull]
    try:
        with Shown([*tmux, "-u", "new-session", *SCRIPTED, "busy"]) as console:
            assert console.pump(2.5)
            pane = _pane(tmux)
            assert "╭ 1 Memory" in pane and "denoise" in pane and "quit" in pane
            console.press(b"3")
            assert console.pump(0.5)
        # The connection is gone; the console is not, and fits whoever comes next.
        with Shown([*tmux, "-u", "attach"], columns=80, rows=24) as again:
            assert again.pump(1.5)
            pane = _pane(tmux)
            assert "3 Models" in pane and "denoise" in pane and len(pane.rstrip("\n").splitlines()) <= 24
            again.press(b"q")
            assert again.ended_within(5.0) is not None
    finally:
        subprocess.run([*tmux, "kill-server"], capture_output=True, check=False)
