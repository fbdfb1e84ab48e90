"""The engine's log: structured lines in a bounded ring for clients and in a file that turns over.

The file holds one JSON object a line (no line of ours can be forged by text inside it). A disk
that is full, read-only or hangs costs the file's lines, never the engine.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Literal

import msgspec

from engine.daemon.log_file import LogFile
from engine.wire import LogLine

RING_LINES = 5000
MAX_TEXT = 2000

Level = Literal["debug", "info", "warning", "error"]


class LogBook:
    """Appends lines, keeps the newest, tells `on_line` about each. Loop thread only."""

    def __init__(self, folder: Path, *, max_bytes: int, on_line: Callable[[LogLine], None]) -> None:
        self.path = folder / "engine.jsonl"
        self._ring: deque[LogLine] = deque(maxlen=RING_LINES)
        self._seq = 0
        self._on_line = on_line
        self._encoder = msgspec.json.Encoder()
        self._file = LogFile(self.path, max_bytes=max_bytes)

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

    @property
    def file_problem(self) -> str | None:
        """Why the newest lines are not in the file."""
        return self._file.problem

    def turn_over(self) -> None:
        """Begin a new file; the one so far becomes the newest of those that are kept. Any thread.

        Raises:
            TimeoutError: the disk does not answer.
        """
        self._file.turn_over()

    def close(self, timeout_s: float) -> None:
        """Let the file have the last lines, for so long at most. Any thread."""
        self._file.close(timeout_s)

    def tail(self, limit: int) -> tuple[LogLine, ...]:
        """The newest `limit` lines, oldest first."""
        return tuple(islice(self._ring, max(0, len(self._ring) - limit), None))

    def after(self, seq: int, limit: int) -> list[LogLine]:
        """Lines newer than `seq`, oldest first, at most `limit`."""
        return [line for line in self._ring if line.seq > seq][:limit]
