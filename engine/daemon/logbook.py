"""The engine's log: structured lines in a bounded ring for clients and in a file that turns over.

The file holds one JSON object a line (no line of ours can be forged by text inside it). A disk
that is full or read-only costs the file's lines, never the engine.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext, suppress
from itertools import islice
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Literal

import msgspec

from engine.wire import LogLine

RING_LINES = 5000
MAX_TEXT = 2000

Level = Literal["debug", "info", "warning", "error"]


class LogBook:
    """Appends lines, keeps the newest, tells `on_line` about each. Loop thread only."""

    def __init__(self, folder: Path, *, max_bytes: int, on_line: Callable[[LogLine], None]) -> None:
        self.path = folder / "engine.jsonl"
        self.file_problem: str | None = None
        self._ring: deque[LogLine] = deque(maxlen=RING_LINES)
        self._seq = 0
        self._on_line = on_line
        self._encoder = msgspec.json.Encoder()
        self._file = _BoundedFile(self.path, max_bytes, self._file_failed)

    def write(
        self,
        event: str,
        text: str,
        *,
        level: Level = "info",
        job_id: int | None = None,
        memory: bool = False,
    ) -> None:
        self._seq += 1
        line = LogLine(
            seq=self._seq,
            at=time.time(),
            level=level,
            event=event,
            text=text[:MAX_TEXT],
            job_id=job_id,
            memory=memory,
        )
        self._ring.append(line)
        self._file.write(self._encoder.encode(line).decode())
        self._on_line(line)

    def turn_over(self) -> None:
        """Begin a new file; the one so far becomes the newest of those that are kept."""
        self._file.turn_over()

    def tail(self, limit: int) -> tuple[LogLine, ...]:
        """The newest `limit` lines, oldest first."""
        return tuple(islice(self._ring, max(0, len(self._ring) - limit), None))

    def after(self, seq: int, limit: int) -> list[LogLine]:
        """Lines newer than `seq`, oldest first, at most `limit`."""
        return [line for line in self._ring if line.seq > seq][:limit]

    def _file_failed(self, reason: str) -> None:
        self.file_problem = reason


class _BoundedFile:
    """RotatingFileHandler as a plain line writer: three files of `max_bytes` and no more."""

    def __init__(self, path: Path, max_bytes: int, on_error: Callable[[str], None]) -> None:
        self._on_error = on_error
        try:
            self._handler: RotatingFileHandler | None = RotatingFileHandler(
                path, maxBytes=max_bytes, backupCount=2, encoding="utf-8", errors="replace"
            )
        except OSError as error:
            self._handler = None
            on_error(f"{path} cannot be written: {error.strerror}")
            return
        self._handler.handleError = self._failed  # type: ignore[method-assign]
        path.chmod(0o600)

    def write(self, text: str) -> None:
        if self._handler is not None:
            self._handler.emit(logging.LogRecord("engine", logging.INFO, "", 0, text, None, None))

    def turn_over(self) -> None:
        if self._handler is not None:
            with self._handler.lock or nullcontext(), suppress(OSError):
                self._handler.doRollover()

    def _failed(self, record: logging.LogRecord) -> None:
        self._on_error("the engine's log file cannot be written (disk full or read-only?)")
