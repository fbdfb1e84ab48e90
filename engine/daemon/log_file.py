"""The log's file, written by a thread of its own: a disk that hangs, or is full, holds nobody up."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from contextlib import nullcontext, suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path

WAITING_LINES = 20_000
"""Lines that wait for a disk; the oldest of more are lost."""
HANG_S = 5.0
"""A write that has taken so long is told."""


class LogFile:
    """Appends lines to three files of `max_bytes` and no more. Any thread."""

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._waiting: deque[str | threading.Event] = deque()
        self._changed = threading.Condition()
        self._failure: str | None = None
        self._lost = 0
        self._refused = False
        self._busy_since: float | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="log-file", daemon=True)
        self._thread.start()

    @property
    def problem(self) -> str | None:
        """Why the newest lines are not in the file; None where they are."""
        since = self._busy_since
        if since is not None and (waited := time.monotonic() - since) > HANG_S:
            return f"{self._path} has not been written for {waited:.0f} s: its disk does not answer"
        if self._failure is not None:
            return f"{self._failure}; lines of the log that are lost: {self._lost}"
        return None

    def write(self, line: str) -> None:
        """Have one line written soon."""
        with self._changed:
            if self._closed:
                return
            if len(self._waiting) >= WAITING_LINES:
                self._waiting.popleft()
                self._lost += 1
            self._waiting.append(line)
            self._changed.notify()

    def turn_over(self, timeout_s: float = 10.0) -> None:
        """Begin a new file; the one so far becomes the newest of those that are kept.

        Raises:
            TimeoutError: the disk does not answer.
        """
        turned = threading.Event()
        with self._changed:
            self._waiting.append(turned)
            self._changed.notify()
        if not turned.wait(timeout_s):
            raise TimeoutError(f"{self._path} could not be turned over within {timeout_s:g} s")

    def close(self, timeout_s: float) -> None:
        """Write what waits, for so long at most."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        handler: RotatingFileHandler | None = None
        while True:
            with self._changed:
                self._busy_since = None
                while not self._waiting and not self._closed:
                    self._changed.wait()
                item = self._waiting.popleft() if self._waiting else None
                self._busy_since = time.monotonic()
            if item is None:
                if handler is not None:
                    handler.close()
                self._busy_since = None
                return
            handler = handler or self._open()
            if handler is None:
                self._lost += isinstance(item, str)
            elif isinstance(item, str):
                self._emit(handler, item)
            else:
                with handler.lock or nullcontext(), suppress(OSError):
                    handler.doRollover()
            if isinstance(item, threading.Event):
                item.set()

    def _open(self) -> RotatingFileHandler | None:
        try:
            handler = RotatingFileHandler(
                self._path, maxBytes=self._max_bytes, backupCount=2, encoding="utf-8", errors="replace"
            )
            self._path.chmod(0o600)
        except OSError as error:
            self._failure = f"{self._path} cannot be written: {error.strerror}"
            return None
        handler.handleError = self._note_refused  # type: ignore[method-assign]
        return handler

    def _emit(self, handler: RotatingFileHandler, line: str) -> None:
        self._refused = False
        handler.emit(logging.LogRecord("engine", logging.INFO, "", 0, line, None, None))
        if self._refused:
            self._failure = f"{self._path} cannot be written (disk full or read-only?)"
            self._lost += 1
        elif self._failure is not None:
            self._failure, self._lost = None, 0  # it was told, and is over

    def _note_refused(self, record: logging.LogRecord) -> None:
        self._refused = True
