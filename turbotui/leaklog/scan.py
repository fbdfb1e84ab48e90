"""Owns the way from a log of any size to its facts: one pass in pieces, with bounded memory."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from turbotui.foreign.events import ForeignEvent, may_tell, read_event
from turbotui.foreign.splitting import RawLine, Splitter
from turbotui.foreign.times import BACKWARDS_S, DAY_S, find_stamp
from turbotui.sanitize import clean

PIECE_BYTES = 256 * 1024
SAMPLED = 64
"""Of so many lines that tell nothing one is asked for its time."""
TEXT = 160
"""Characters of a line that are kept with its fact."""

Program: TypeAlias = Literal["webui", "comfyui", "pytorch", "turbotui"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LogFact:
    """One line that tells something of memory."""

    line: int
    """From 1."""
    at: float | None
    """Wall clock, of this line or of the one above that says it; None where none did."""
    event: ForeignEvent
    text: str
    """The line after its time, safe to show."""


def _midnight(at: float) -> float:
    """The begin of that day here."""
    year, month, day = time.localtime(at)[:3]
    return time.mktime((year, month, day, 0, 0, 0, 0, 0, -1))


FIRST_DAY = _midnight(0.0)
"""Of a log whose times say no day, until its last line tells it."""


class Scan:
    """Reads a file once. What is counted meanwhile is complete when `facts` has ended."""

    def __init__(self, path: Path, *, on_progress: Callable[[int, int], None] | None = None) -> None:
        """`on_progress` is told the bytes that are read and those there are, after each piece."""
        self.path = path
        self.lines = 0
        self.bytes = 0
        self.dayless = False
        """Its times say no day: they count from a day of our own, and `shift_s` makes them wall clock."""
        self.written_at = 0.0
        self.program: Program = "pytorch"
        self._sure = False
        self._on_progress = on_progress
        self._at: float | None = None
        self._above = ""
        """The newest line that told nothing and may begin with a time."""
        self._days = 0
        self._of_day: float | None = None

    def facts(self) -> Iterator[LogFact]:
        """Every line that tells of memory, in order.

        Raises:
            OSError: it cannot be read, or is no file.
        """
        descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                what = "is a folder" if stat.S_ISDIR(found.st_mode) else "is no file"
                raise OSError(0, what, str(self.path))
            self.written_at = found.st_mtime
            splitter = Splitter()
            splitter.begin(os.pread(descriptor, 4, 0), at_start=True)
            # A log that is still written may grow faster than it is read: what is there now is read.
            while self.bytes < found.st_size and (data := os.read(descriptor, PIECE_BYTES)):
                self.bytes += len(data)
                for raw in splitter.feed(data):
                    yield from self._fact(raw)
                if self._on_progress is not None:
                    self._on_progress(self.bytes, found.st_size)
            if (rest := splitter.unfinished) is not None:
                yield from self._fact(rest)
        finally:
            os.close(descriptor)

    @property
    def shift_s(self) -> float:
        """What turns the facts' times into wall clock, where they say no day: the last one is the file's."""
        if not self.dayless or self._at is None:
            return 0.0
        whole = _midnight(self.written_at) - (FIRST_DAY + self._days * DAY_S)
        return whole if self._at + whole <= self.written_at + BACKWARDS_S else whole - DAY_S

    def _fact(self, raw: RawLine) -> Iterator[LogFact]:
        self.lines += 1
        text = raw.text
        self._note_program(text)
        if not may_tell(text) or (event := read_event(text)) is None:
            if text[:1] in "[(" or text[:1].isdigit():
                self._above = text
                if self.lines % SAMPLED == 0:
                    self._note_time(text)  # so that no midnight is passed over
            return
        body = 0
        if event.at is not None:
            self._at = event.at
        elif not (body := self._note_time(text)) and self._above:
            # Of a traceback the time stands some lines above its error.
            self._note_time(self._above)
        self._above = ""
        yield LogFact(line=self.lines, at=self._at, event=event, text=clean(text[body:].strip(), limit=TEXT))

    def _note_time(self, text: str) -> int:
        """Take the line's time, and give where it goes on after it."""
        stamp = find_stamp(text, self.written_at)
        if stamp is None:
            return 0
        if stamp.at is not None:
            self._at = stamp.at
        elif self._at is None or self.dayless:
            self.dayless = True
            if self._of_day is not None and stamp.of_day < self._of_day - BACKWARDS_S:
                self._days += 1
            self._of_day = stamp.of_day
            self._at = FIRST_DAY + self._days * DAY_S + stamp.of_day
        return stamp.body

    def _note_program(self, text: str) -> None:
        if self._sure:
            return
        for words, program in _SIGNS:
            if words in text:
                self.program, self._sure = program, True
                return


_SIGNS: tuple[tuple[str, Program], ...] = (
    ('{"seq":', "turbotui"),
    ("ComfyUI", "comfyui"),
    ("Requested to load ", "comfyui"),
    ("Set vram state to", "comfyui"),
    ("got prompt", "comfyui"),
    ("Active models", "webui"),
    ("Cache status", "webui"),
    ("Loading model", "webui"),
    ("webui", "webui"),
    ("活动模型", "webui"),
    ("活跃模型", "webui"),
    ("缓存状态", "webui"),
    ("加载模型", "webui"),
)
