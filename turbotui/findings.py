"""Owns how the console speaks of a finding: its name, which is the worst, and which process it is about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from turbotui.format import bytes_text
from turbotui.history import parts_of
from turbotui.text import t
from turbotui.text.spoken import spoken, word
from turbotui.widgets.log import short_when

if TYPE_CHECKING:
    from rich.style import Style

    from engine.wire import CheckReport, DeviceProcess, DeviceStatus, Finding
    from turbotui.theme import Paint
    from turbotui.widgets.lines import View

SEVERITIES = ("info", "notice", "warning", "critical")
UNATTRIBUTED = ("unseen", "ghost")
ALARMING = (*UNATTRIBUTED, "oom")
"""Kinds whose colour is vermilion, whatever their severity."""


def name_of(finding: Finding) -> str:
    """What tells it from every other, and stays while its bytes change."""
    start = "" if finding.start_time is None else f"{finding.start_time:.2f}"
    parts = (finding.kind, finding.device_id or "", str(finding.pid or ""), start, finding.component or "")
    return "|".join(parts)


def names_of(report: CheckReport) -> frozenset[str]:
    return frozenset(map(name_of, report.findings))


def rank(finding: Finding) -> int:
    """The place of its severity; that of a newer engine's word is a warning's."""
    return SEVERITIES.index(finding.severity) if finding.severity in SEVERITIES else 2


def matters(finding: Finding) -> bool:
    """Whether it is more than good to know."""
    return rank(finding) > 0


def severity_style(paint: Paint, finding: Finding) -> Style:
    """Vermilion only for what nobody can be seen to hold and for memory that ran out."""
    if finding.kind in ALARMING:
        return paint.alarm
    return (paint.muted, paint.text, paint.wait, paint.error)[rank(finding)]


def is_about(finding: Finding, process: DeviceProcess) -> bool:
    """Whether it names this very process, and not one that had its pid before."""
    return finding.pid == process.pid and (
        finding.start_time is None or process.start_time in (None, finding.start_time)
    )


def about_process(report: CheckReport | None, process: DeviceProcess) -> tuple[Finding, ...]:
    """What was found about a process, the worst first."""
    if report is None:
        return ()
    return tuple(finding for finding in report.findings if is_about(finding, process) and matters(finding))


def about_device(report: CheckReport | None, device_id: str) -> Finding | None:
    """What was found about memory of a device that nobody is seen to hold."""
    findings = report.findings if report is not None else ()
    return next(
        (found for found in findings if found.kind in UNATTRIBUTED and found.device_id == device_id), None
    )


def unattributed_word(device: DeviceStatus | None) -> str:
    """`ghost` where the driver counts memory of nobody and nobody can hide from us, else `unseen`."""
    parts = device.balance.parts if device is not None and device.balance is not None else ()
    kinds = {part.kind for part in parts if part.bytes}
    return "ghost" if "ghost" in kinds and "unseen" not in kinds else "unseen"


def headline(view: View, key: str, leaks: str) -> tuple[list[str], Style] | None:
    """What the console says of its own accord, as texts from long to short; None where there is nothing.

    Memory of nobody is said for as long as it is there; of the rest the worst that was not read yet.
    `key` shows the findings, and `leaks` who holds memory.
    """
    state = view.state
    news = [
        finding
        for finding in (state.check.findings if state.check is not None else ())
        if matters(finding) and finding.kind not in UNATTRIBUTED and name_of(finding) not in view.seen
    ]
    worst = max(news, key=rank, default=None)
    device = state.device
    unseen = None
    if device is not None and device.kind == "cuda" and device.balance is not None:
        unseen = parts_of(device.balance).get("unseen")
    if unseen and device is not None and (worst is None or rank(worst) < len(SEVERITIES) - 1):
        whose = t(f"part.{unattributed_word(device)}")
        text = f"! {whose} {bytes_text(unseen)}"
        finding = about_device(state.check, device.id)
        if finding is None or finding.since is None:
            return [text + t("findings.finds", press=leaks), text], view.paint.alarm
        since = t("findings.since", at=short_when(finding.since, view.wall))
        return [
            f"{text} {since}{t('findings.finds', press=leaks)}",
            f"{text} {since}",
            text,
        ], view.paint.alarm
    if worst is None:
        return None
    more = "" if len(news) == 1 else f" +{len(news) - 1}"
    shows = t("findings.shows", press=key)
    kind = word(worst.kind.replace("_", " "))
    texts = [f"! {spoken(worst.title)}{more}{shows}", f"! {kind}{more}{shows}", f"! {kind}"]
    return texts, severity_style(view.paint, worst)
