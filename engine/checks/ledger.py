"""Which findings are new: each by its identity, when it was first and last seen; kept across restarts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from engine.checks.facts import Facts, who
from engine.checks.run import RANK
from engine.units import GIB, size_text
from engine.whole_file import write_whole
from engine.wire import CheckReport, Finding, Severity

MAX_ENTRIES = 500
"""About 100 KB; the longest unseen go first."""
FLAP_S = 600.0
"""What is gone for less was not gone: it is not told anew."""
GROWTH = 2.0
GROWTH_BYTES = GIB
"""What has grown by this factor and by so much since it was told is told again."""
BEFORE_S, AFTER_S = 60.0, 5.0
"""Around the time that something began, when whatever else changed may have caused it."""
CHANGES = 3
_LOGGED = frozenset(
    {"job", "worker", "nursery", "engine", "kill", "switch", "unload", "load", "park", "cleanup"}
)


class Entry(msgspec.Struct, kw_only=True):
    """One finding by its identity."""

    key: tuple[str, ...]
    first_seen: float
    last_seen: float
    severity: Severity
    told_bytes: int | None = None
    """Its bytes when it was last told as new."""
    changed: str | None = None
    active: bool = True
    """Whether the newest check found it."""


class Kept(msgspec.Struct, kw_only=True):
    """The file."""

    boot_id: str
    clean_at: float | None = None
    entries: list[Entry] = []


def identity(finding: Finding) -> tuple[str, ...]:
    """What makes two findings the same one."""
    start = "" if finding.start_time is None else f"{finding.start_time:.2f}"
    pid = "" if finding.pid is None else str(finding.pid)
    return (finding.kind, finding.device_id or "", pid, start, finding.component or "")


class Ledger:
    """What was found so far. One thread at a time."""

    def __init__(self, file: Path, boot_id: str) -> None:
        """`boot_id` tells that pids in the file may mean others by now."""
        self._file = file
        self._boot_id = boot_id
        self._checked_at: float | None = None
        kept = _read(file)
        same_boot = kept is not None and kept.boot_id == boot_id
        self.clean_at = kept.clean_at if kept is not None else None
        self._entries = {
            entry.key: entry for entry in (kept.entries if kept else []) if same_boot or not entry.key[2]
        }

    def take(
        self, facts: Facts, findings: Sequence[Finding], unknown: Sequence[str], elapsed_s: float
    ) -> CheckReport:
        """The report of a check, with what is new in it marked; remembers it."""
        told = tuple(self._take(facts, finding) for finding in findings)
        seen = {identity(finding) for finding in findings}
        for key, entry in self._entries.items():
            entry.active = key in seen
        looked = facts.scanned and bool(facts.devices)
        if looked and not any(RANK[finding.severity] for finding in findings):
            self.clean_at = facts.at
        self._checked_at = facts.at
        for key in sorted(self._entries, key=lambda key: self._entries[key].last_seen)[:-MAX_ENTRIES]:
            del self._entries[key]
        return CheckReport(
            at=facts.at,
            elapsed_s=round(elapsed_s, 3),
            findings=told,
            new=sum(finding.new for finding in told),
            clean_at=self.clean_at,
            unknown=tuple(unknown),
        )

    def encode(self) -> bytes:
        """For the file."""
        kept = Kept(boot_id=self._boot_id, clean_at=self.clean_at, entries=list(self._entries.values()))
        return msgspec.json.encode(kept)

    def write(self, data: bytes) -> None:
        """Put `data` in the file's place; may be called from any thread.

        Raises:
            OSError: it cannot be written.
        """
        write_whole(self._file, data)

    def _take(self, facts: Facts, finding: Finding) -> Finding:
        key, now = identity(finding), facts.at
        entry = self._entries.get(key)
        if entry is None or (not entry.active and now - entry.last_seen > FLAP_S):
            since = finding.since
            entry = Entry(
                key=key,
                first_seen=min(now, since) if since is not None else now,
                last_seen=now,
                severity=finding.severity,
                told_bytes=finding.bytes,
                changed=what_changed(facts, finding, self._checked_at),
            )
            self._entries[key] = entry
            return replace(finding, new=True, since=entry.first_seen, changed=entry.changed)
        worse = RANK[finding.severity] > RANK[entry.severity]
        grown = _has_grown(entry.told_bytes, finding.bytes)
        entry.last_seen, entry.severity = now, finding.severity
        if worse or grown:
            entry.told_bytes = finding.bytes
        return replace(finding, new=worse or grown, since=entry.first_seen, changed=entry.changed)


def what_changed(facts: Facts, finding: Finding, checked_at: float | None) -> str | None:
    """What else happened when it began, or since the last check where only that is known."""
    if finding.since is not None:
        begin, end = finding.since - BEFORE_S, finding.since + AFTER_S
    else:
        if checked_at is None:
            return None  # it may have been there long before anybody looked
        begin, end = max(checked_at, facts.at - 3600.0), facts.at
    found: list[tuple[float, str]] = []
    for change in facts.changes:
        if begin <= change.at <= end and finding.device_id in (None, change.device_id):
            if change.process.pid != finding.pid:
                held = f" with {size_text(change.process.bytes)}" if change.process.bytes else ""
                found.append((change.at, f"{who(change.process)} {'came' if change.came else f'left{held}'}"))
    found += [
        (line.at, f"{line.event}: {line.text[:120]}")
        for line in facts.log
        if begin <= line.at <= end and line.event in _LOGGED
    ]
    if not found:
        return None
    return "; ".join(text for _at, text in sorted(found, reverse=True)[:CHANGES])


def _has_grown(told: int | None, now: int | None) -> bool:
    if told is None or now is None:
        return False
    return now >= told * GROWTH and now - told >= GROWTH_BYTES


def _read(file: Path) -> Kept | None:
    """What the file holds; None where there is none that can be understood."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Kept)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
