"""Memory that the driver counts and nobody who can be seen holds; a ghost's where nobody can hide."""

from __future__ import annotations

from engine.leaks.facts import Facts
from engine.leaks.verdicts.words import of_finding
from engine.wire import Finding, Verdict, VerdictKind


def unseen(facts: Facts) -> tuple[Verdict, ...]:
    """Of the device in use, as the baseline check ranks its causes."""
    return tuple(
        _verdict(finding)
        for finding in facts.checked
        if finding.kind in ("unseen", "ghost") and finding.device_id == facts.device_id
    )


def _verdict(finding: Finding) -> Verdict:
    kind: VerdictKind = "ghost" if finding.kind == "ghost" else "unseen"
    return Verdict(
        kind=kind,
        # Unseen is somebody's whom we cannot see; only where all are seen does it belong to nobody.
        leak=kind == "ghost",
        title=finding.title,
        evidence=(*of_finding(finding), finding.remedy),
        bytes=finding.bytes,
        device_id=finding.device_id,
        admin_line=finding.admin_line,
    )
