"""Reads a recording, a folder or a copied file, also while it grows and without any engine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.errors import NotFound
from engine.recording.entries import Entry, unpack_entries
from engine.recording.format import LAST_MS, SUFFIX, Frame, UnknownFormat, read_frames
from engine.recording.rows import Row, joined, unpack_rows
from engine.recording.tiers import EVENTS, MEMORY, TIERS, Tier

WIDTHS_MS = frozenset(tier.width_ms for tier in MEMORY)
SLACK_MS = 120_000
"""A file's last block may end after the next file of its tier begins, but not by so much."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Extent:
    """What there is of one tier."""

    tier: Tier
    since: float
    until: float
    blocks: int
    bytes: int


class Recording:
    """A recording on disk. Each question looks at the files anew.

    Raises:
        NotFound: there is no such file or folder, or no recording in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.remarks: dict[str, str] = {}
        """What could not be read, by file."""
        try:
            path.stat()
        except OSError as error:
            raise NotFound(f"there is no recording at {path}: {error.strerror}") from error
        if not self._files():
            raise NotFound(f"{path} holds no recording (files that end in {SUFFIX})")

    def extents(self) -> tuple[Extent, ...]:
        """What there is of each tier; a tier without a block is absent."""
        found: dict[int, list[int]] = {}
        for frame in self.frames():
            extent = found.setdefault(frame.tier, [frame.first_ms, frame.last_ms, 0, 0])
            extent[0] = min(extent[0], frame.first_ms)
            extent[1] = max(extent[1], frame.last_ms)
            extent[2] += 1
            extent[3] += len(frame.packed)
        return tuple(
            Extent(
                tier=tier,
                since=found[tier.code][0] / 1000,
                until=found[tier.code][1] / 1000,
                blocks=found[tier.code][2],
                bytes=found[tier.code][3],
            )
            for tier in TIERS
            if tier.code in found
        )

    def frames(
        self, since: float | None = None, until: float | None = None, tiers: tuple[Tier, ...] = TIERS
    ) -> Iterator[Frame]:
        """The blocks that touch the span, file by file. A file that cannot be read gets a remark."""
        first = None if since is None else int(since * 1000)
        last = None if until is None else int(until * 1000)
        codes = frozenset(tier.code for tier in tiers)
        for path in self._files_within(tiers, first, last):
            yield from self._frames_of(path, first, last, codes)

    def entries(
        self,
        since: float | None = None,
        until: float | None = None,
        *,
        names: frozenset[str] | None = None,
    ) -> list[Entry]:
        """What happened in the span, in order of time; with `names` only what is called so in the file."""
        found: list[Entry] = []
        for frame in self.frames(since, until, (EVENTS,)):
            try:
                entries, unread = unpack_entries(frame.payload(), names)
            except ValueError as error:
                self.remarks["events"] = f"events are damaged: {error}"
                continue
            if unread:
                self.remarks["kinds"] = "some events were written by another build and are passed over"
            found += entries
        found.sort(key=lambda entry: entry.at)
        return [
            entry
            for entry in found
            if (since is None or entry.at >= since) and (until is None or entry.at <= until)
        ]

    def rows(
        self,
        device_id: str | None = None,
        *,
        since: float | None = None,
        until: float | None = None,
        finest: Tier = MEMORY[0],
    ) -> list[Row]:
        """What the memory did in the span, in order of time, from `finest` on as fine as it is kept.

        Each stretch is told once: by readings where there are any, else by seconds, else by spans of
        ten. What is too new to be joined as coarsely as `finest` comes in the next finer tier.
        """
        place = MEMORY.index(finest)
        found: list[Row] = []
        covered: dict[str, int] = {}
        for tier in MEMORY[place:]:
            taken = [
                row
                for row in self._rows_of(tier, device_id, since, until)
                if row.device_id not in covered or row.at_ms + row.width_ms <= covered[row.device_id]
            ]
            found += taken
            for row in taken:
                covered[row.device_id] = min(covered.get(row.device_id, row.at_ms), row.at_ms)
        for tier in reversed(MEMORY[:place]):
            ends: dict[str, int] = {}
            for row in found:
                ends[row.device_id] = max(ends.get(row.device_id, 0), row.at_ms + row.width_ms)
            newest = since
            if ends:  # a device that went hours ago has nothing that waits
                newest = max(min(ends.values()), max(ends.values()) - SLACK_MS) / 1000
            found += [
                row
                for row in self._rows_of(tier, device_id, newest, until)
                if row.at_ms >= ends.get(row.device_id, 0)
            ]
        found.sort(key=lambda row: row.at_ms)
        return found

    def _rows_of(
        self, tier: Tier, device_id: str | None, since: float | None, until: float | None
    ) -> list[Row]:
        spans: dict[tuple[str, int], list[Row]] = {}
        singles: list[Row] = []
        for frame in self.frames(since, until, (tier,)):
            try:
                rows = unpack_rows(frame.payload(), device_id)
            except ValueError as error:
                self.remarks[tier.name] = f"{tier.name} are damaged: {error}"
                continue
            for row in rows:
                late = until is not None and row.at_ms > until * 1000
                early = since is not None and row.at_ms + row.width_ms < since * 1000
                if late or early or not 0 <= row.at_ms < LAST_MS or row.width_ms not in WIDTHS_MS:
                    continue
                if tier.width_ms:
                    spans.setdefault((row.device_id, row.at_ms), []).append(row)
                else:
                    singles.append(row)
        # A span that two engines shared, or that was closed early, lies there in pieces.
        joint = [
            rows[0] if len(rows) == 1 else joined(rows, at_ms=at_ms, width_ms=tier.width_ms)
            for (_device, at_ms), rows in spans.items()
        ]
        return sorted(singles + joint, key=lambda row: row.at_ms)

    def last(self, tier: Tier) -> float | None:
        """The end of the newest block of a tier; None where there is none."""
        for path in reversed(self._files_within((tier,), None, None)):
            ends = [frame.last_ms for frame in self._frames_of(path, None, None, frozenset({tier.code}))]
            if ends:
                return max(ends) / 1000
        return None

    def _frames_of(
        self, path: Path, first_ms: int | None, last_ms: int | None, codes: frozenset[int]
    ) -> Iterator[Frame]:
        try:
            with path.open("rb") as file:
                yield from read_frames(file, first_ms=first_ms, last_ms=last_ms, tiers=codes)
        except UnknownFormat as error:
            self.remarks[path.name] = f"{path.name} is passed over: {error}"
        except FileNotFoundError:
            pass  # it was too old, and went while we read
        except OSError as error:
            self.remarks[path.name] = f"{path.name} cannot be read: {error.strerror}"

    def _files_within(self, tiers: tuple[Tier, ...], first_ms: int | None, last_ms: int | None) -> list[Path]:
        """The files that may hold blocks of the span, by what their names say."""
        found: list[Path] = []
        by_name = {tier.name: tier for tier in TIERS}
        following: dict[str, int] = {}
        for path in reversed(self._files()):
            name, _, rest = path.stem.partition("-")
            began = rest.partition("-")[0]
            if not self.path.is_dir() or name not in by_name or not began.isdecimal():
                found.append(path)  # a copy that lies there under a name of its own
                continue
            after = following.get(name)
            following[name] = int(began)
            late = last_ms is not None and int(began) > last_ms + SLACK_MS
            early = first_ms is not None and after is not None and after + SLACK_MS < first_ms
            if by_name[name] in tiers and not late and not early:
                found.append(path)
        return found[::-1]

    def _files(self) -> list[Path]:
        if self.path.is_dir():
            return sorted(self.path.glob(f"*{SUFFIX}"))
        return [self.path]
