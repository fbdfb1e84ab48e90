"""The folder of a recording: files that only grow, of one tier each, and never more than so many bytes.

A file's name is its tier and the millisecond at which it begins, so that what is too old or too
much goes whole, without being opened. Used by one thread of one process.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.recording.format import HEADER, SUFFIX
from engine.recording.tiers import TIERS, Tier

PAGE_BYTES = 4096
"""A file takes whole pages of the disk, however little lies in the last one."""
LEAST_BYTES = 2**20
"""A bound below this would turn over faster than anybody can look."""


@dataclass(kw_only=True, slots=True)
class _Segment:
    path: Path
    tier: Tier
    began_ms: int
    bytes: int

    @property
    def cost(self) -> int:
        return -(-self.bytes // PAGE_BYTES) * PAGE_BYTES


class Segments:
    """Appends frames; makes room before it writes, so that the bound holds at every moment.

    Raises (every method): OSError, after which nothing half-written is left open.
    """

    def __init__(self, folder: Path, max_bytes: int, *, wall: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self._max_bytes = max_bytes
        self._segment_bytes = max(PAGE_BYTES, max_bytes // 32)
        self._wall = wall
        self._open: dict[Tier, tuple[int, _Segment]] = {}
        self._closed: list[_Segment] = []
        """Oldest first."""

    @property
    def used_bytes(self) -> int:
        """What the folder takes on disk."""
        return sum(segment.cost for segment in self._all())

    def start(self) -> None:
        """Look at what an earlier engine left; it is kept, and never written to again."""
        # Not its parents: a state directory that was removed must not come back by itself.
        self.folder.mkdir(mode=0o700, exist_ok=True)
        tiers = {tier.name: tier for tier in TIERS}
        known = {segment.path for segment in self._all()}
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            name, _, began = path.stem.partition("-")
            began = began.partition("-")[0]
            if name in tiers and began.isdecimal() and path not in known:
                size = path.stat().st_size
                self._closed.append(_Segment(path=path, tier=tiers[name], began_ms=int(began), bytes=size))
        self._closed.sort(key=lambda segment: segment.began_ms)

    def prune(self) -> None:
        """Remove what is too old or too much, also where nothing is to be written."""
        self._make_room(0, None)

    def append(self, tier: Tier, frame: bytes, *, at_ms: int) -> bool:
        """Write a frame whose newest moment is `at_ms`; False where the bound is too small for it."""
        opened = self._open.get(tier)
        if opened is not None and (
            at_ms - opened[1].began_ms > tier.segment_s * 1000
            or at_ms < opened[1].began_ms - 1000  # the clock was set back
            or opened[1].bytes + len(frame) > max(self._segment_bytes, len(HEADER) + len(frame))
        ):
            self._close(tier)
            opened = None
        need = len(frame) if opened is not None else len(HEADER) + len(frame)
        if not self._make_room(need, tier):
            return False
        file, segment = self._open.get(tier) or self._begin(tier, at_ms)
        try:
            _write_all(file, frame)
        except OSError:
            # Half a frame is of no use, and nobody would count its bytes.
            with contextlib.suppress(OSError):
                os.ftruncate(file, segment.bytes)
            self._close(tier)
            raise
        segment.bytes += len(frame)
        return True

    def close(self) -> None:
        for tier in tuple(self._open):
            self._close(tier)

    def _begin(self, tier: Tier, at_ms: int) -> tuple[int, _Segment]:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self.folder.mkdir(mode=0o700, exist_ok=True)
        number = 0
        while True:
            again = f"-{number}" if number else ""
            path = self.folder / f"{tier.name}-{max(0, at_ms):013d}{again}{SUFFIX}"
            try:
                file = os.open(path, flags, 0o600)
                break
            except FileExistsError:
                number += 1
        segment = _Segment(path=path, tier=tier, began_ms=at_ms, bytes=len(HEADER))
        try:
            _write_all(file, HEADER)
        except OSError:
            os.close(file)
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        self._open[tier] = (file, segment)
        return file, segment

    def _close(self, tier: Tier) -> None:
        file, segment = self._open.pop(tier)
        os.close(file)
        self._closed.append(segment)

    def _all(self) -> list[_Segment]:
        return [*self._closed, *(segment for _file, segment in self._open.values())]

    def _make_room(self, need: int, for_tier: Tier | None) -> bool:
        """Remove what is too old, and then what is too much, the tier first that is most above its share."""
        now_ms = self._wall() * 1000
        for segment in [old for old in self._closed if _is_over(old, now_ms)]:
            self._remove(segment)
        pages = -(-need // PAGE_BYTES) * PAGE_BYTES + PAGE_BYTES if need else 0
        while self.used_bytes + pages > self._max_bytes:
            if not self._closed:
                others = [tier for tier in self._open if tier is not for_tier]
                if not self._open:
                    return False
                self._close(max(others or self._open, key=self._excess))
            tier = max({segment.tier for segment in self._closed}, key=self._excess)
            self._remove(next(segment for segment in self._closed if segment.tier is tier))
        return True

    def _excess(self, tier: Tier) -> float:
        return sum(segment.cost for segment in self._all() if segment.tier is tier) / tier.share

    def _remove(self, segment: _Segment) -> None:
        with contextlib.suppress(FileNotFoundError):
            segment.path.unlink()
        self._closed.remove(segment)


def _is_over(segment: _Segment, now_ms: float) -> bool:
    return segment.began_ms + (segment.tier.keep_s + segment.tier.segment_s) * 1000 < now_ms


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
