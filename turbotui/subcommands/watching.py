"""Owns `turbotui status --watch`: the status again and again, in place on a terminal, without Textual.

It lives through restarts of the engine: while none answers it says so and looks for the next one.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from engine.errors import EngineUnavailable
from engine.wire import Status
from turbotui.client.http import HttpClient
from turbotui.client.launch import connect, find_engine
from turbotui.format import clip, clock, seconds
from turbotui.sanitize import clean
from turbotui.subcommands.output import columns, print_json_line, say
from turbotui.subcommands.session import Session
from turbotui.text.spoken import spoken, tr

TIMEOUT_S = 2.0

_OPEN = "\x1b[?1049h\x1b[?25l"
_CLOSE = "\x1b[?25h\x1b[?1049l"
_HOME = "\x1b[H"
_TO_LINE_END = "\x1b[K"
_TO_END = "\x1b[J"


def watch_status(session: Session, interval_s: float, lines_of: Callable[[Status], Iterable[str]]) -> None:
    """Show the status every `interval_s` seconds until interrupted.

    An engine is started when none runs, as by every command; after that none is.
    """
    client: HttpClient | None = session.client()
    pictures = _in_place() if sys.stdout.isatty() and not session.json else _apart()
    with pictures as show:
        due = since = time.monotonic()
        while True:
            status, reason = None, tr("no engine runs")
            try:
                client = client or _reconnect(session)
                if client is not None:
                    status = client.status()
                    since = time.monotonic()
            except EngineUnavailable as error:
                client, reason = None, str(error)
            if session.json:
                if status is not None:
                    print_json_line(status)
            elif status is not None:
                show([tr("turbotui status, {time}", time=clock(time.time())), "", *lines_of(status)])
            else:
                gone = seconds(time.monotonic() - since)
                show(
                    [
                        tr("turbotui status, {time}", time=clock(time.time())),
                        "",
                        tr("{reason}; for {gone}, looking again", reason=spoken(reason), gone=gone),
                    ]
                )
            # On time however long the picture took, and never in a rush after a pause.
            now = time.monotonic()
            due = due + interval_s if due + interval_s > now else now + interval_s
            time.sleep(due - now)


def _reconnect(session: Session) -> HttpClient | None:
    if session.box is not None:
        return session.box.connect()
    if find_engine(session.paths) is None:
        return None
    return connect(session.paths, start=False, timeout=TIMEOUT_S)


@contextmanager
def _apart() -> Iterator[Callable[[list[str]], None]]:
    """Pictures as blocks with an empty line between them, for files and pipes."""
    first = True

    def show(lines: list[str]) -> None:
        nonlocal first
        if not first:
            say("")
        first = False
        for line in lines:
            say(line)

    yield show


@contextmanager
def _in_place() -> Iterator[Callable[[list[str]], None]]:
    """Each picture over the one before, on the terminal's other screen, which is left however this ends."""

    def show(lines: list[str]) -> None:
        width, height = columns(sys.stdout) or 80, _rows()
        kept = (
            lines
            if len(lines) <= height
            else [*lines[: height - 1], tr("... {count} more", count=len(lines) - height + 1)]
        )
        # Written at once and never cleared before: a picture that is redrawn must not flicker.
        text = "\r\n".join(clip(clean(line), width) + _TO_LINE_END for line in kept)
        _write(_HOME + text + _TO_END)

    def end(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    _write(_OPEN)
    try:
        yield show
    finally:
        _write(_CLOSE)
        for number, handler in before.items():
            signal.signal(number, handler)


def _rows() -> int:
    try:
        return os.get_terminal_size(sys.stdout.fileno()).lines or 24  # a serial line knows none
    except OSError:
        return 24


def _write(text: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
    sys.stdout.flush()
