"""Turns readings and events into blocks on disk. One thread's; never the event loop's.

A disk that is full, read-only or gone pauses the recording: what comes meanwhile is not kept, and
the gap is written down once there is room again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from engine.errors import NotFound
from engine.recording.entries import NOT_RUN, Entry, Gap, Happening, pack_entries
from engine.recording.format import pack_frame
from engine.recording.presence import Presence
from engine.recording.reader import Recording
from engine.recording.rows import Row, pack_rows, row_of
from engine.recording.segments import Segments
from engine.recording.tiers import EVENTS, MEMORY, READINGS, SECONDS, SPANS, Rollup, Tier
from engine.wire import DeviceStatus

AGAIN_S = 5.0
"""How long a recording that cannot be written waits before it tries again."""


class Writer:
    """Takes what happens; `flush` writes what is due."""

    def __init__(
        self,
        folder: Path,
        max_bytes: int,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.problem: str | None = None
        """Why nothing is kept just now."""
        self._wall = wall
        self._monotonic = monotonic
        self._segments = Segments(folder, max_bytes, wall=wall)
        self._presence = Presence()
        self._rollups = {SECONDS: Rollup(SECONDS.width_ms), SPANS: Rollup(SPANS.width_ms)}
        self._rows: dict[Tier, list[Row]] = {tier: [] for tier in MEMORY}
        self._entries: list[Entry] = []
        self._flushed: dict[Tier, float] = {}
        self._paused_since: float | None = None
        self._try_at = 0.0
        self._ready = False

    # ----------------------------------------------------------------- what comes

    def status(self, status: DeviceStatus) -> None:
        """A device was read."""
        self._entries += self._presence.look(status)
        row = row_of(status)
        if row is None:
            return
        self._rows[READINGS].append(row)
        self._roll_up(row, self._rollups)

    def happened(self, at: float, what: Happening) -> None:
        self._entries.append(Entry(at, what))

    def stand(self, at: float) -> None:
        """Write down which devices and processes are there: a place from which a reader may begin."""
        self._entries += self._presence.now(at)

    def _roll_up(self, row: Row, rollups: dict[Tier, Rollup]) -> None:
        for tier, rollup in rollups.items():
            over = rollup.add(row)
            if over is not None:
                self._rows[tier].append(over)

    # ----------------------------------------------------------------- what is written

    def flush(self, *, all: bool = False) -> None:
        """Write what is due, or everything; never raises for what the disk does."""
        now = self._monotonic()
        if self._paused_since is not None and now < self._try_at and not all:
            self.forget()
            return
        try:
            if not self._ready:
                self._start()
            elif self._paused_since is not None:
                self._recover()
            if self._paused_since is not None:
                gap = Gap(since=self._paused_since, reason=self.problem or "it could not be written")
                again = self._oldest()
                self._append(EVENTS, pack_entries([Entry(again, gap)]), again, again)
                self.stand(again)
            self._write_due(now, all=all)
        except OSError as error:
            if self._paused_since is None:
                self._paused_since = self._oldest()
            self.problem = f"the recording pauses: {self._segments.folder}: {error.strerror or error}"
            self._try_at = now + AGAIN_S
            self.forget()
            return
        self._paused_since = self.problem = None

    def close(self) -> None:
        """Write everything, spans that are not over included, and let go of the files."""
        for tier, rollup in self._rollups.items():
            self._rows[tier] += rollup.close()
        self.flush(all=True)
        self._segments.close()

    def _start(self) -> None:
        """Take up what an engine before this one left, and then let go of what of it is too old."""
        self._segments.start()
        self._recover()
        self._segments.prune()
        self._ready = True

    def _write_due(self, now: float, *, all: bool) -> None:
        for tier, rows in self._rows.items():
            if rows and (all or now - self._flushed.setdefault(tier, now) >= tier.flush_s):
                self._append_rows(tier, rows)
                rows.clear()
                self._flushed[tier] = now
        if self._entries:
            times = [entry.at for entry in self._entries]
            self._append(EVENTS, pack_entries(self._entries), min(times), max(times))
            self._entries.clear()

    def _append_rows(self, tier: Tier, rows: Sequence[Row]) -> None:
        if rows:
            first = min(row.at_ms for row in rows) / 1000
            last = max(row.at_ms + row.width_ms for row in rows) / 1000
            self._append(tier, pack_rows(rows), first, last)

    def _append(self, tier: Tier, payload: bytes, first: float, last: float) -> None:
        first_ms, last_ms = int(first * 1000), int(last * 1000)
        frame = pack_frame(tier.code, first_ms, last_ms, payload)
        if not self._segments.append(tier, frame, at_ms=first_ms):
            raise OSError(f"engine.recording_bytes has no room for a block of {len(frame)} bytes")

    def _oldest(self) -> float:
        """When the oldest reading or event that is not on disk happened."""
        # Seconds and spans that wait are made again from the readings that were written.
        waiting = [row.at_ms / 1000 for row in self._rows[READINGS]]
        return min([self._wall(), *waiting, *(entry.at for entry in self._entries)])

    def forget(self) -> None:
        """Let go of everything that is not written."""
        for rows in self._rows.values():
            rows.clear()
        for rollup in self._rollups.values():
            rollup.close()
        self._entries.clear()

    def _recover(self) -> None:
        """Roll up what an engine that died had read and not yet joined into seconds and spans."""
        try:
            old = Recording(self._segments.folder)
        except NotFound:
            return
        newest = old.last(READINGS) or 0.0
        if not self._ready and (last := newest or max(old.last(tier) or 0.0 for tier in MEMORY)):
            self._entries.insert(0, Entry(self._oldest(), Gap(since=last, reason=NOT_RUN)))
        for tier in (SECONDS, SPANS):
            until = old.last(tier) or 0.0
            if newest > until:
                # Of what is coarser than the tier only what is finer can be joined again.
                rows = [row for row in old.rows(since=until) if row.width_ms < tier.width_ms]
                rollup = Rollup(tier.width_ms)
                again = [rollup.add(row) for row in rows if row.at_ms >= until * 1000]
                self._append_rows(tier, [row for row in again if row is not None] + rollup.close())
