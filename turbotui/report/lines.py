"""Owns a report's words: sections of lines, never more than forty in all, as text or as Markdown.

Whatever others can influence (names, commands, prompts, errors) is cleaned here, and in Markdown
escaped too: a report is pasted into mails and tickets.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from engine.wire import Receipt
from turbotui.format import bytes_text, seconds
from turbotui.moment import dated
from turbotui.report.facts import Ended, Peak, Report, Unseen
from turbotui.report.runs import Run
from turbotui.report.visits import Visit
from turbotui.sanitize import clean

MOST_LINES = 40
LINE_CHARS = 160
_MARKED = re.compile(r"^[#+>-]|[\\`*_\[\]<>|~&]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A heading and what stands below it."""

    title: str
    lines: tuple[str, ...]


def report_lines(report: Report, *, markdown: bool = False) -> list[str]:
    """The report in at most MOST_LINES lines."""
    sections = [section for section in _sections(report) if section.lines]
    title = _title(report)
    if not markdown:
        kept = fit(sections, MOST_LINES - 1, heading=0)
        found = [clean(title)]
        for section in kept:
            for number, line in enumerate(section.lines):
                found.append(_cut(f"{section.title if not number else '':<10} {line}"))
        return found
    kept = fit(sections, MOST_LINES - 1, heading=2)
    found = [f"# {escape_markdown(clean(title))}"]
    for section in kept:
        found += ["", f"## {section.title}"]
        found += [f"- {escape_markdown(_cut(line))}" for line in section.lines]
    return found


def fit(sections: Sequence[Section], room: int, *, heading: int) -> list[Section]:
    """The sections in `room` lines, a heading of `heading` lines each; the longest are cut first."""
    lengths = [len(section.lines) for section in sections]
    room -= heading * len(sections)
    while sum(lengths) > room and max(lengths, default=0) > 1:
        lengths[lengths.index(max(lengths))] -= 1
    found = []
    for section, length in zip(sections, lengths, strict=True):
        lines = section.lines
        if length < len(lines):
            more = len(lines) - length + 1
            lines = (*lines[: length - 1], f"... and {more} more")
        found.append(Section(title=section.title, lines=lines))
    return found


def escape_markdown(text: str) -> str:
    """`text` as Markdown that shows just it: no links, no HTML, no headings."""
    return _MARKED.sub(r"\\\g<0>", text)


def _title(report: Report) -> str:
    where = f"{report.user}@{report.host}, " if report.host and report.user else ""
    begin, end = dated(report.since, now=report.until), dated(report.until, now=report.until)
    return f"turbotui: {where}{begin} to {end} ({seconds(report.until - report.since)})"


def _sections(report: Report) -> Iterable[Section]:
    def when(at: float) -> str:
        return dated(at, now=report.until)

    yield Section(title="engine", lines=tuple(_run(run, when) for run in report.runs) or ("none ran",))
    yield Section(title="jobs", lines=tuple(_jobs(report)))
    yield Section(
        title="failed",
        lines=tuple(
            f"{when(job.finished_at or 0.0)} job {job.id} {job.spec.model} {job.status}: "
            f"{clean(job.error or 'no reason was told', limit=100)}"
            for job in report.failures
        ),
    )
    yield Section(
        title="memory out",
        lines=tuple(
            f"{when(line.at)} {_job(line.job_id)}{clean(line.text, limit=110)}" for line in report.ooms
        ),
    )
    yield Section(title="switches", lines=tuple(_switches(report, when)))
    yield Section(title="peak", lines=tuple(_peak(peak, when) for peak in report.peaks))
    yield Section(title="unseen", lines=tuple(_unseen(unseen, when) for unseen in report.unseen))
    yield Section(title="others", lines=tuple(_visit(visit, when) for visit in report.visits))
    yield Section(title="receipts", lines=tuple(_receipt(receipt, when) for receipt in report.doubtful))
    yield Section(title="ended", lines=tuple(_ended(ended, when) for ended in report.ended))
    yield Section(
        title="refused",
        lines=tuple(f"{when(line.at)} {clean(line.text, limit=130)}" for line in report.refused),
    )
    yield Section(
        title="findings",
        lines=tuple(
            f"{when(line.at)} {line.event}: {clean(line.text, limit=110)}" for line in report.findings
        ),
    )
    yield Section(
        title="gaps",
        lines=tuple(
            f"{when(gap.since)} to {when(gap.until)} ({seconds(gap.until - gap.since)}): {clean(gap.reason)}"
            for gap in report.gaps
        ),
    )


def _run(run: Run, when: Callable[[float], str]) -> str:
    ends = {
        "runs": f"runs, up {seconds(run.until - run.since)}",
        "stopped": f"stopped {when(run.until)} after {seconds(run.until - run.since)}",
        "died": f"last heard of {when(run.until)}, after {seconds(run.until - run.since)}: it died",
    }
    return f"{clean(run.build)} from {when(run.since)}, {ends[run.end]}"


def _jobs(report: Report) -> Iterable[str]:
    states = ("done", "failed", "interrupted", "cancelled")
    counted = [f"{report.counts[state]} {state}" for state in states if report.counts.get(state)]
    if not counted:
        yield "none ended"
        return
    out = f" ({report.counts['oom']} for want of memory)" if report.counts.get("oom") else ""
    models = ", ".join(f"{count} {clean(model, limit=40)}" for model, count in report.models.items())
    yield f"{', '.join(counted)}{out}: {models}"


def _job(job_id: int | None) -> str:
    return "" if job_id is None else f"job {job_id} "


def _switches(report: Report, when: Callable[[float], str]) -> Iterable[str]:
    worst = report.worst_switch
    if worst is not None:
        failed = "" if worst.ok else ", which failed"
        yield (
            f"{report.switches}, the longest {seconds(worst.elapsed_s)} to {clean(worst.target, limit=60)} "
            f"at {when(worst.at)}{failed}"
        )


def _peak(peak: Peak, when: Callable[[float], str]) -> str:
    name = _device(peak.index, peak.name)
    return f"{name}: {bytes_text(peak.used_bytes)} of {bytes_text(peak.total_bytes)} at {when(peak.at)}"


def _device(index: int | None, name: str) -> str:
    return clean(name, limit=40) if index is None else f"GPU {index} {clean(name, limit=40)}"


def _unseen(unseen: Unseen, when: Callable[[float], str]) -> str:
    since = f"since before {when(unseen.since)}" if unseen.from_before else f"since {when(unseen.since)}"
    end = "and still there" if unseen.still else f"until {when(unseen.until)}"
    return f"{bytes_text(unseen.bytes)} on {clean(unseen.device_id, limit=20)} {since}, {end}"


def _visit(visit: Visit, when: Callable[[float], str]) -> str:
    process = visit.process
    who = f"{clean(process.user or 'an unknown user', limit=32)} {process.pid}"
    what = clean(process.command or process.name or "-", limit=60)
    where = f" in {clean(process.container, limit=32)}" if process.container else ""
    came = "was there" if visit.came_at is None else f"came {when(visit.came_at)}"
    began = process.started_at if visit.came_at is None else visit.came_at
    if visit.lost_at is not None and visit.went_at is None:
        went = f"last seen {when(visit.lost_at)}"
    elif visit.went_at is None:
        went = "still there"
    else:
        stay = "" if began is None else f" after {seconds(visit.went_at - began)}"
        went = f"went {when(visit.went_at)}{stay}"
    held = "bytes unknown" if visit.peak_bytes is None else f"up to {bytes_text(visit.peak_bytes)}"
    return f"{came}, {went}: {who}{where}, {held}, {what}"


def _ended(ended: Ended, when: Callable[[float], str]) -> str:
    receipt = ended.receipt
    back = "what came back is not known"
    if receipt.returned_bytes is not None:
        back = f"{bytes_text(receipt.returned_bytes)} came back"
    asked = f", asked by {clean(ended.asked_by, limit=40)}" if ended.asked_by else ""
    target = clean(ended.whom or receipt.target, limit=70)
    return f"{when(receipt.at)} {receipt.action} {target}: {back} in {seconds(receipt.elapsed_s)}{asked}"


def _receipt(receipt: Receipt, when: Callable[[float], str]) -> str:
    head = f"{when(receipt.at)} {receipt.action} {clean(receipt.target, limit=60)}"
    if not receipt.ok:
        return f"{head} failed: {clean(receipt.error or 'no reason was told', limit=90)}"
    names = f" ({clean(', '.join(receipt.residue), limit=60)})" if receipt.residue else ""
    return f"{head}: residue {bytes_text(receipt.residue_bytes)}{names}"


def _cut(line: str) -> str:
    return clean(line, limit=LINE_CHARS)
