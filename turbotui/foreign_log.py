"""Owns a foreign log as the log's pane shows one: the follower's lines as the engine's own look."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

from engine.wire import LogLine
from turbotui.foreign.events import AROUND
from turbotui.foreign.follow import Follower
from turbotui.foreign.tail import ForeignLine, as_lines
from turbotui.format import bytes_text
from turbotui.kept import load_table, save_table
from turbotui.text import t

Timing: TypeAlias = Literal["said", "read", "none"]
"""Whose time a line shows: its own, that of reading it, or none: it belongs to the line above."""
RECENT = 8


class ForeignLog:
    """One file that is followed; its lines are numbered as they come."""

    def __init__(self, path: Path, *, wall: Callable[[], float] = time.time) -> None:
        self.path = path
        self.timing: dict[int, Timing] = {}
        self._follower = Follower(path, wall=wall)
        self._version = -1
        self._lines: tuple[LogLine, ...] = ()
        self._shown: dict[int, LogLine] = {}
        self._says_times = False
        """Whether a line of it has said its time."""

    @property
    def version(self) -> int:
        return self._follower.version

    @property
    def problem(self) -> str | None:
        """Why nothing can be read now."""
        return self._follower.problem

    @property
    def reading(self) -> bool:
        return self._follower.reading

    @property
    def says_times(self) -> bool:
        return self._says_times

    def close(self) -> None:
        self._follower.close()

    def lines(self) -> tuple[LogLine, ...]:
        """What is kept, oldest first; the last one may be unfinished."""
        version = self.version
        if version != self._version:
            kept = self._follower.lines()
            before, self._shown = self._shown, {}
            for seq, line in kept:
                self._shown[seq] = before.get(seq) or self._as_shown(seq, line)
            self.timing = {seq: self.timing[seq] for seq in self._shown}
            self._lines = (*self._shown.values(), *self._unfinished(kept[-1][0] + 1 if kept else 1))
            self._version = version
        return self._lines

    def _unfinished(self, seq: int) -> list[LogLine]:
        raw = self._follower.unfinished
        if raw is None:
            return []
        now = time.time()
        # Not kept: it is another line when it is whole.
        return [self._as_shown(seq, line) for line in as_lines([raw], read_at=now, latest=now)]

    def _as_shown(self, seq: int, line: ForeignLine) -> LogLine:
        if line.note is not None:
            self.timing[seq] = "read"
            text = t(f"foreign.{line.note}", bytes=bytes_text(line.skipped_bytes), name=self.path.name)
            return LogLine(
                seq=seq,
                at=line.read_at,
                level="warning",
                event=line.note,
                text=text,
                memory=line.note != "older",
            )
        if line.at is not None:
            self._says_times = True
        self.timing[seq] = "said" if line.at is not None else "none" if self._says_times else "read"
        text = line.text[line.body :]
        if line.cut_bytes:
            text += t("foreign.cut", bytes=bytes_text(line.cut_bytes))
        return LogLine(
            seq=seq,
            at=line.read_at if line.at is None else line.at,
            level=line.level,
            event="" if line.event is None else line.event.kind,
            text=text,
            memory=line.event is not None and line.event.kind not in AROUND,
        )


def recent_logs(path: Path | None) -> tuple[str, ...]:
    """The files that were followed last, the newest first."""
    found = load_table(path).get("logs")
    if not isinstance(found, list):
        return ()
    return tuple(one for one in found if isinstance(one, str) and one.startswith("/"))[:RECENT]


def remember_log(path: Path | None, log: Path) -> None:
    """Keep it as the newest of them."""
    before = [one for one in recent_logs(path) if one != str(log)]
    save_table(path, {"logs": [str(log), *before][:RECENT]})
