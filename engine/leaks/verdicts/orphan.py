"""A worker, nursery or probe whose engine is gone: nothing can use it any more."""

from __future__ import annotations

from engine.leaks.facts import Facts
from engine.leaks.verdicts.words import of_finding
from engine.wire import Finding, Remedy, Verdict


def orphan(facts: Facts) -> tuple[Verdict, ...]:
    """One for each that the baseline check found, on a card or not."""
    return tuple(_verdict(finding) for finding in facts.checked if finding.kind == "orphan")


def _verdict(finding: Finding) -> Verdict:
    stuck = any("waits in the kernel" in sentence for sentence in finding.evidence)
    return Verdict(
        kind="orphan",
        leak=True,
        title=finding.title,
        evidence=of_finding(finding),
        bytes=finding.bytes,
        device_id=finding.device_id,
        remedy=None
        if stuck or finding.pid is None
        else Remedy(
            action="kill",
            text="End it; nothing else can use it any more.",
            command=finding.remedy_command if finding.device_id is not None else None,
            pid=finding.pid,
            start_time=finding.start_time,
            predicted_bytes=finding.bytes,
        ),
        admin_line=finding.admin_line,
    )
