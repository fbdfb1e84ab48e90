"""Who had what ended, reset, moved or deleted, as the audit log keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from engine.wire.base import Wire

AuditState: TypeAlias = Literal[
    "asked",  # under way, or its end was never written
    "done",
    "failed",  # it was begun
    "refused",  # nothing was done
]


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditLine(Wire):
    """One deed: its asking and its end together."""

    at: float
    """When it was asked for."""
    ended_at: float | None = None
    uid: int | None = None
    user: str | None = None
    """The uid's name on this host now."""
    pid: int | None = None
    """Of the process that asked."""
    program: str | None = None
    """As the kernel called it then."""
    terminal: str | None = None
    """Where it ran: `pts/3`; None for a process without one."""
    action: str
    """`kill`, `spare`, `reset`, `cleanup`, `full_cleanup`, `park`, `prune` or `stop`."""
    target: str
    state: AuditState
    result: str = ""
    """How it ended, in the log's own words; empty while it is only asked for."""
    bytes: int | None = None
    """What came back by its receipt; None where that tells none."""
    elapsed_s: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditPage(Wire):
    """Some of the audit log, the newest first."""

    lines: tuple[AuditLine, ...]
    older: bool
    """Whether there are more before the last one."""
    unreadable: int = 0
    """Lines of the file that are none."""
