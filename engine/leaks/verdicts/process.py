"""Other processes on the device: in use by somebody, left over, or beyond the reach of signals."""

from __future__ import annotations

from collections.abc import Iterator

from engine.leaks.facts import Facts
from engine.leaks.verdicts.words import LEAST_NAMED, of_finding
from engine.units import size_text
from engine.wire import DeviceProcess, DeviceStatus, Finding, Remedy, Verdict

LEFT = frozenset({"web_ui_leftover", "stuck_process", "zombie"})
"""Kinds of findings about a process that holds memory which nobody needs."""


def process(facts: Facts) -> tuple[Verdict, ...]:
    """One for each process on the GPU in use that is not ours."""
    return tuple(_verdicts(facts))


def _verdicts(facts: Facts) -> Iterator[Verdict]:
    device = facts.device
    if device is None or device.kind != "cuda":
        return
    findings = {finding.pid: finding for finding in facts.checked if finding.kind in LEFT}
    orphans = {finding.pid for finding in facts.checked if finding.kind == "orphan"}
    for listed in device.processes:
        if listed.ours is not None or listed.pid in orphans:
            continue
        finding = findings.get(listed.pid)
        if finding is not None and finding.device_id == device.id:
            yield _left(facts, listed, finding)
        elif (listed.bytes or 0) >= LEAST_NAMED:
            yield _tenant(facts, device, listed)


def _left(facts: Facts, listed: DeviceProcess, finding: Finding) -> Verdict:
    return Verdict(
        kind="process",
        leak=True,
        title=finding.title,
        evidence=of_finding(finding),
        bytes=finding.bytes,
        device_id=finding.device_id,
        remedy=kill(listed) if finding.kind == "web_ui_leftover" and _mine(facts, listed) else None,
        admin_line=finding.admin_line,
    )


def _tenant(facts: Facts, device: DeviceStatus, listed: DeviceProcess) -> Verdict:
    size, mine = size_text(listed.bytes or 0), _mine(facts, listed)
    what = listed.program or listed.name or "a program that is not known"
    return Verdict(
        kind="process",
        leak=False,
        title=f"{size} on {facts.name} are held by process {listed.pid} of {listed.user or 'another user'}.",
        evidence=(
            f"It runs {what}, and is not this engine's.",
            "The driver lists it with its bytes, so they are its own and no leak of ours.",
        ),
        bytes=listed.bytes,
        device_id=device.id,
        remedy=kill(listed) if mine else None,
        admin_line=None
        if mine
        else f"{facts.name} ({device.id}): process {listed.pid} of {listed.user or '?'} holds {size}; "
        "is it still wanted?",
    )


def _mine(facts: Facts, listed: DeviceProcess) -> bool:
    return listed.user is not None and listed.user == facts.uid_user


def kill(listed: DeviceProcess) -> Remedy:
    """Named by pid and start time, so that nobody else can be hit."""
    return Remedy(
        action="kill",
        text="Look whether it still does anything that you want; then end it.",
        command=f"turbotui kill {listed.pid}",
        pid=listed.pid,
        start_time=listed.start_time,
        predicted_bytes=listed.bytes,
    )
