"""Owns a foreign log that is followed in a thread: its newest lines, within bounds."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from turbotui.foreign.splitting import RawLine
from turbotui.foreign.tail import ForeignLine, Tail

POLL_S = 0.25
KEPT_LINES = 3000
KEPT_CHARACTERS = 2_000_000


class Follower:
    """Reads until closed; a disk that hangs holds its own thread and nobody else's."""

    def __init__(self, path: Path, *, wall: Callable[[], float] = time.time, poll_s: float = POLL_S) -> None:
        self.path = path
        self.version = 0
        """Another number when there is something new to see."""
        self._tail = Tail(path, wall=wall)
        self._poll_s = poll_s
        self._lock = threading.Lock()
        self._kept: deque[tuple[int, ForeignLine]] = deque()
        self._characters = 0
        self._next = 1
        self._unfinished: RawLine | None = None
        self._problem: str | None = None
        self._read_once = False
        self._closed = threading.Event()
        threading.Thread(target=self._run, name="foreign-log", daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    @property
    def problem(self) -> str | None:
        """Why nothing can be read now."""
        return self._problem

    @property
    def reading(self) -> bool:
        """Whether the first look is still under way."""
        return not self._read_once

    @property
    def unfinished(self) -> RawLine | None:
        """What stands after the last line's end, such as a progress bar."""
        return self._unfinished

    def lines(self) -> tuple[tuple[int, ForeignLine], ...]:
        """What is kept, oldest first, each with its number."""
        with self._lock:
            return tuple(self._kept)

    def _run(self) -> None:
        try:
            while not self._closed.is_set():
                lines, more = self._tail.read()
                self._take(lines)
                if not more:
                    self._closed.wait(self._poll_s)
        finally:
            self._tail.close()

    def _take(self, lines: list[ForeignLine]) -> None:
        unfinished, problem = self._tail.unfinished, self._tail.problem
        same = not lines and unfinished == self._unfinished and problem == self._problem
        if same and self._read_once:
            return
        with self._lock:
            for line in lines:
                self._kept.append((self._next, line))
                self._next += 1
                self._characters += len(line.text)
            while len(self._kept) > KEPT_LINES or self._characters > KEPT_CHARACTERS:
                self._characters -= len(self._kept.popleft()[1].text)
            self._unfinished, self._problem, self._read_once = unfinished, problem, True
            self.version += 1
