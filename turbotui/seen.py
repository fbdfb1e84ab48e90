"""Owns what this person has seen: when a console was left last, and which findings were read in one.

Kept beside the unsent job, so that the next console can say what is news.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from turbotui.kept import load_table, save_table

if TYPE_CHECKING:
    from pathlib import Path

AWAY_S = 30 * 60.0
"""Who was away for less is not told what happened meanwhile."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What a console keeps from one run to the next."""

    left_at: float | None = None
    """Wall clock: when the last console was left; None where none ever was."""
    findings: frozenset[str] = frozenset()
    """Names of findings that were read, as `turbotui.findings.name_of` gives them."""

    def away_since(self, now: float) -> float | None:
        """When the last console was left, if that is long enough ago to be told of."""
        return self.left_at if self.left_at is not None and now - self.left_at > AWAY_S else None


def load_seen(path: Path | None) -> Seen:
    """What was left there; nothing seen where there is none or it cannot be understood."""
    table = load_table(path)
    at, names = table.get("left_at"), table.get("findings")
    return Seen(
        left_at=float(at) if isinstance(at, (int, float)) else None,
        findings=frozenset(name for name in names if isinstance(name, str))
        if isinstance(names, list)
        else frozenset(),
    )


def save_seen(path: Path | None, seen: Seen) -> None:
    """Keep it, for news and nothing else."""
    save_table(path, {"left_at": seen.left_at, "findings": sorted(seen.findings)})
