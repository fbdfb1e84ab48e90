"""The audit log read back: each asking joined with its end, the newest first."""

from __future__ import annotations

import pwd
from functools import lru_cache
from pathlib import Path

import msgspec

from engine.daemon.audit import AuditEntry
from engine.wire import AuditLine, AuditPage, AuditState

_DONE = ("done", "deleted ", "no SIGKILL", "it stops")


def read_audit(path: Path, *, limit: int, before: float | None = None) -> AuditPage:
    """The newest `limit` deeds that were asked for earlier than `before`, and those of the same time as the
    last of them, so that nothing lies between two pages; blocks.

    A file that is not there is a log without deeds.
    """
    entries, unreadable = _entries(path)
    lines = sorted(_joined(entries), key=lambda line: line.at)[::-1]
    if before is not None:
        lines = [line for line in lines if line.at < before]
    while limit < len(lines) and lines[limit].at == lines[limit - 1].at:
        limit += 1
    return AuditPage(lines=tuple(lines[:limit]), older=len(lines) > limit, unreadable=unreadable)


def _entries(path: Path) -> tuple[list[AuditEntry], int]:
    decoder = msgspec.json.Decoder(AuditEntry)
    found, unreadable = [], 0
    for file in (path.with_name(path.name + ".1"), path):
        try:
            text = file.read_bytes()
        except FileNotFoundError:
            continue
        for line in text.splitlines():
            try:
                found.append(decoder.decode(line))
            except (msgspec.DecodeError, ValueError):  # half of one, of a host that died
                unreadable += bool(line.strip())
    return found, unreadable


def _joined(entries: list[AuditEntry]) -> list[AuditLine]:
    """Deeds may overlap: an end belongs to the latest asking of the same, by the same."""
    lines: list[AuditLine] = []
    waiting: dict[tuple[str, str, int | None, int | None], list[int]] = {}
    for entry in entries:
        same = (entry.action, entry.target, entry.uid, entry.pid)
        asked = waiting.get(same)
        if entry.result == "asked":
            waiting.setdefault(same, []).append(len(lines))
            lines.append(_line(entry))
        elif asked:
            place = asked.pop()
            lines[place] = _line(entry, asked_at=lines[place].at)
        else:
            lines.append(_line(entry))
    return lines


def _line(entry: AuditEntry, asked_at: float | None = None) -> AuditLine:
    asked = entry.result == "asked"
    elapsed = entry.elapsed_s
    if elapsed is None and asked_at is not None:
        elapsed = max(0.0, entry.at - asked_at)
    return AuditLine(
        at=entry.at if asked_at is None else asked_at,
        ended_at=None if asked else entry.at,
        uid=entry.uid,
        user=None if entry.uid is None else _user(entry.uid),
        pid=entry.pid,
        program=entry.program,
        terminal=entry.terminal,
        action=entry.action,
        target=entry.target,
        state=_state(entry.result),
        result="" if asked else entry.result,
        bytes=entry.bytes,
        elapsed_s=elapsed,
    )


def _state(result: str) -> AuditState:
    if result == "asked":
        return "asked"
    words = result.removeprefix("ended late, ")
    if words.startswith(_DONE):
        return "done"
    return "failed" if words.startswith(("failed", "its end is not known")) else "refused"


@lru_cache(256)
def _user(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None
