"""What the baseline check found, with its evidence and the cheapest remedy; and what `doctor` looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from engine.wire.base import Wire

Severity: TypeAlias = Literal[
    "info",  # good to know; nothing is wrong
    "notice",  # costs something, or will
    "warning",  # memory or work is lost by it now
    "critical",  # the device cannot be worked with
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding(Wire):
    """One thing that a check found."""

    kind: str
    """A stable key: `unseen`, `orphan`, `cache`, `fragmented`, ..."""
    severity: Severity
    title: str
    """One sentence."""
    evidence: tuple[str, ...]
    """Sentences with the figures that it rests on."""
    bytes: int | None = None
    """What it holds or costs; None where that cannot be known."""
    since: float | None = None
    """Wall clock: when it began where that was seen, else when a check first found it."""
    changed: str | None = None
    """What else changed about then, where anything did."""
    new: bool = False
    """Whether this check is the first that tells it."""
    remedy: str
    """One sentence."""
    remedy_command: str | None = None
    """A command that hits nobody else; None where there is none that is sure not to."""
    admin_line: str | None = None
    """A line for whoever administers the host, where only they can look further."""
    device_id: str | None = None
    pid: int | None = None
    start_time: float | None = None
    """With `pid`, an identity: seconds since boot by the kernel's clock."""
    component: str | None = None
    """What it is about, where one kind may be found several times on a device."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckReport(Wire):
    """One check, whole."""

    at: float
    elapsed_s: float
    findings: tuple[Finding, ...]
    """The worst first."""
    new: int
    """How many of them no check told before."""
    clean_at: float | None = None
    """The last check that found nothing above `info`; None if none ever did."""
    unknown: tuple[str, ...] = ()
    """What could not be looked at, each with its reason: no finding about it is no proof."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InstallationLine(Wire):
    """One line of what `turbotui doctor` looked at."""

    name: str
    """A stable key: `python`, `torch`, `driver`, `ffmpeg`, ..."""
    state: Literal["ok", "note", "problem"]
    text: str
    """What was found, in one sentence."""
    fix: str | None = None
    """A command, or what to set, that mends it."""
