"""Owns following a file that another program writes, whatever becomes of it: rotated, emptied, deleted, back.

Reads a bounded piece at a time from near the file's end, so that 10 GB cost what 10 kB do. Blocks on
the disk: used in a thread (`turbotui.foreign.follow`).
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from turbotui.foreign.events import ForeignEvent, level_of, read_event
from turbotui.foreign.splitting import RawLine, Splitter
from turbotui.foreign.times import Stamp, dated, find_stamp

FIRST_BYTES = 512 * 1024
"""Read of what was there before."""
PIECE_BYTES = 256 * 1024
"""Read at once."""
BEHIND_BYTES = 16 * 2**20
"""A file that has grown by more since the last look is read from near its end again."""
REMEMBERED = 64
"""Bytes before the place read to, by which another content of the same length is told."""

Note: TypeAlias = Literal["older", "skipped", "emptied", "rotated", "gone", "back"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ForeignLine:
    """A line of the file, or, with `note`, what became of the file itself."""

    text: str
    read_at: float
    """Wall clock."""
    at: float | None = None
    """As the line itself says; None where it does not."""
    body: int = 0
    """Where in `text` it goes on after its time; 0 where that does not stand at its beginning."""
    event: ForeignEvent | None = None
    level: Literal["info", "warning", "error"] = "info"
    cut_bytes: int = 0
    """What was left out at its end."""
    note: Note | None = None
    skipped_bytes: int = 0


class Tail:
    """One file by its path. `read` never raises for what a file may do; `problem` says what it does."""

    def __init__(
        self, path: Path, *, first_bytes: int | None = FIRST_BYTES, wall: Callable[[], float] = time.time
    ) -> None:
        """With `first_bytes` None the file is read from its beginning, and nothing of it left out."""
        self.path = path
        self.problem: str | None = None
        """Why nothing can be read now."""
        self._whole = first_bytes is None
        self._first_bytes = first_bytes or 0
        self._wall = wall
        self._splitter = Splitter()
        self._fd: int | None = None
        self._identity: tuple[int, int] | None = None
        self._at = 0
        self._before = b""
        self._ever = False
        """Whether the file was there once."""
        self._cut_start = False
        """Whether what is read next may begin in the middle of a line."""

    @property
    def unfinished(self) -> RawLine | None:
        """What stands after the last line's end."""
        return self._splitter.unfinished

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
        self._fd = self._identity = None

    def read(self) -> tuple[list[ForeignLine], bool]:
        """What has come since, a bounded piece of it; whether more of it waits."""
        try:
            return self._read()
        except OSError as error:
            self.problem = error.strerror or str(error)
            self.close()
            return [], False

    def _read(self) -> tuple[list[ForeignLine], bool]:
        notes: list[ForeignLine] = []
        named = self._stat()
        if self._fd is None:
            if named is None:
                return [], False
            notes += self._open("back" if self._ever else None)
        assert self._fd is not None
        here = os.fstat(self._fd)
        if self._is_other(here.st_size):
            notes.append(self._note("emptied"))
            self._start(0)
        elif not self._whole and here.st_size - self._at > BEHIND_BYTES:
            skipped = here.st_size - self._first_bytes - self._at
            notes.append(self._note("skipped", skipped))
            self._start(here.st_size - self._first_bytes)
        lines, more = self._piece(here.st_mtime)
        if not more and self._identity != (None if named is None else (named.st_dev, named.st_ino)):
            # All of the old one is read: a program may write into it for a while after it was renamed.
            self.close()
            if named is None:
                lines.append(self._note("gone"))
                self.problem = os.strerror(2)
            else:
                lines += self._open("rotated")
                more = True
        return notes + lines, more

    def _stat(self) -> os.stat_result | None:
        """The file that the path names now; None where there is none."""
        try:
            named = os.stat(self.path)
        except FileNotFoundError as error:
            self.problem = error.strerror
            return None
        if not stat.S_ISREG(named.st_mode):
            raise OSError(0, "is no file" if not stat.S_ISDIR(named.st_mode) else "is a folder")
        return named

    def _open(self, note: Literal["back", "rotated"] | None) -> list[ForeignLine]:
        # Not for ever on what has become a pipe since.
        self._fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        found = os.fstat(self._fd)
        self._identity = (found.st_dev, found.st_ino)
        self._ever, self.problem = True, None
        start = 0 if self._whole or note == "rotated" else max(0, found.st_size - self._first_bytes)
        self._start(start)
        notes = [] if note is None else [self._note(note)]
        return notes + ([self._note("older", start)] if start else [])

    def _start(self, at: int) -> None:
        """Go on at `at`, of which the encoding may be told by the file's first bytes."""
        assert self._fd is not None
        self._at = at - at % 2
        self._cut_start = self._at > 0
        self._before = b""
        self._splitter.begin(os.pread(self._fd, 4, 0), at_start=self._at == 0)

    def _is_other(self, size: int) -> bool:
        """Whether what was read is not what stands there: emptied, or written anew."""
        assert self._fd is not None
        if size < self._at:
            return True
        before = self._before
        return bool(before) and os.pread(self._fd, len(before), self._at - len(before)) != before

    def _piece(self, written_at: float) -> tuple[list[ForeignLine], bool]:
        assert self._fd is not None
        data = os.pread(self._fd, PIECE_BYTES, self._at)
        self._at += len(data)
        self._before = (self._before + data)[-REMEMBERED:]
        raw = self._splitter.feed(data)
        if self._cut_start and raw:
            raw, self._cut_start = raw[1:], False
        now = self._wall()
        latest = min(written_at, now) if written_at > 0 else now
        return list(as_lines(raw, read_at=now, latest=latest)), len(data) == PIECE_BYTES

    def _note(self, note: Note, skipped: int = 0) -> ForeignLine:
        return ForeignLine(text="", read_at=self._wall(), note=note, skipped_bytes=skipped)


def as_lines(raw: list[RawLine], *, read_at: float, latest: float) -> Iterator[ForeignLine]:
    """What a batch of lines tells, of which the last was written by `latest`; empty ones are left out."""
    raw = [line for line in raw if line.text.strip()]
    stamps: list[Stamp | None] = [find_stamp(line.text, latest) for line in raw]
    for line, stamp, at in zip(raw, stamps, dated(stamps, latest), strict=True):
        yield ForeignLine(
            text=line.text,
            read_at=read_at,
            at=at,
            body=0 if stamp is None else stamp.body,
            event=read_event(line.text),
            level=level_of(line.text),
            cut_bytes=line.cut_bytes,
        )


def read_whole(path: Path) -> Iterator[ForeignLine]:
    """Every line of a file from its beginning, as it is now.

    Raises:
        OSError: it cannot be read.
    """
    tail = Tail(path, first_bytes=None)
    try:
        more = True
        while more:
            lines, more = tail.read()
            if tail.problem is not None:
                raise OSError(0, tail.problem, str(path))
            yield from lines
        if (last := tail.unfinished) is not None:
            yield from as_lines([last], read_at=time.time(), latest=time.time())
    finally:
        tail.close()
