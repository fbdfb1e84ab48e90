"""Owns a report's words: sections of lines, never more than forty in all, as text or as Markdown.

Whatever others can influence (names, commands, prompts, errors) is cleaned here, and in Markdown
escaped too: a report is pasted into mails and tickets.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from engine.wire import Receipt
from turbotui.format import bytes_text, pad, seconds
from turbotui.moment import dated
from turbotui.report.facts import Ended, Peak, Report, Unseen
from turbotui.report.runs import Run
from turbotui.report.visits import Visit
from turbotui.sanitize import clean
from turbotui.text.spoken import listed, spoken, tr, word

MOST_LINES = 40
LINE_CHARS = 160
TITLE_CELLS = 10
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
                title = word(section.title) if not number else ""
                found.append(_cut(f"{pad(title, TITLE_CELLS)} {line}"))
        return found
    kept = fit(sections, MOST_LINES - 1, heading=2)
    found = [f"# {escape_markdown(clean(title))}"]
    for section in kept:
        found += ["", f"## {word(section.title)}"]
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
            lines = (*lines[: length - 1], tr("... and {more} more", more=more))
        found.append(Section(title=section.title, lines=lines))
    return found


def escape_markdown(text: str) -> str:
    """`text` as Markdown that shows just it: no links, no HTML, no headings."""
    return _MARKED.sub(r"\\\g<0>", text)


def _title(report: Report) -> str:
    where = f"{report.user}@{report.host}, " if report.host and report.user else ""
    begin, end = dated(report.since, now=report.until), dated(report.until, now=report.until)
    return tr(
        "turbotui: {where}{begin} to {end} ({until})",
        where=where,
        begin=begin,
        end=end,
        until=seconds(report.until - report.since),
    )


def _sections(report: Report) -> Iterable[Section]:
    def when(at: float) -> str:
        return dated(at, now=report.until)

    yield Section(title="engine", lines=tuple(_run(run, when) for run in report.runs) or (tr("none ran"),))
    yield Section(title="jobs", lines=tuple(_jobs(report)))
    yield Section(
        title="failed",
        lines=tuple(
            tr(
                "{finished_at} job {id} {model} {status}: {error}",
                finished_at=when(job.finished_at or 0.0),
                id=job.id,
                model=job.spec.model,
                status=word(job.status),
                error=clean(spoken(job.error or "") or tr("no reason was told"), limit=100),
            )
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
    indices = {peak.device_id: peak.index for peak in report.peaks}
    yield Section(title="unseen", lines=tuple(_unseen(unseen, indices, when) for unseen in report.unseen))
    yield Section(title="others", lines=tuple(_visit(visit, when) for visit in report.visits))
    yield Section(title="receipts", lines=tuple(_receipt(receipt, when) for receipt in report.doubtful))
    yield Section(title="ended", lines=tuple(_ended(ended, when) for ended in report.ended))
    yield Section(
        title="refused",
        lines=tuple(f"{when(line.at)} {clean(spoken(line.text), limit=130)}" for line in report.refused),
    )
    yield Section(
        title="findings",
        lines=tuple(
            f"{when(line.at)} {word(line.event)}: {clean(spoken(line.text), limit=110)}"
            for line in report.findings
        ),
    )
    yield Section(
        title="gaps",
        lines=tuple(
            tr(
                "{since} to {until} ({length}): {reason}",
                since=when(gap.since),
                until=when(gap.until),
                length=seconds(gap.until - gap.since),
                reason=clean(spoken(gap.reason)),
            )
            for gap in report.gaps
        ),
    )


def _run(run: Run, when: Callable[[float], str]) -> str:
    ends = {
        "runs": tr("runs, up {until}", until=seconds(run.until - run.since)),
        "stopped": tr(
            "stopped {until} after {until2}", until=when(run.until), until2=seconds(run.until - run.since)
        ),
        "died": tr(
            "last heard of {until}, after {until2}: it died",
            until=when(run.until),
            until2=seconds(run.until - run.since),
        ),
    }
    return tr(
        "{build} from {since}, {ends}", build=clean(run.build), since=when(run.since), ends=ends[run.end]
    )


def _jobs(report: Report) -> Iterable[str]:
    states = ("done", "failed", "interrupted", "cancelled")
    counted = [f"{report.counts[state]} {word(state)}" for state in states if report.counts.get(state)]
    if not counted:
        yield tr("none ended")
        return
    out = (
        tr(" ({counts} for want of memory)", counts=report.counts["oom"]) if report.counts.get("oom") else ""
    )
    models = ", ".join(f"{count} {clean(model, limit=40)}" for model, count in report.models.items())
    yield f"{listed(counted)}{out}: {models}"


def _job(job_id: int | None) -> str:
    return "" if job_id is None else tr("job {job_id} ", job_id=job_id)


def _switches(report: Report, when: Callable[[float], str]) -> Iterable[str]:
    worst = report.worst_switch
    if worst is not None:
        failed = "" if worst.ok else tr(", which failed")
        yield (
            tr(
                "{switches}, the longest {elapsed_s} to {target} at {at}{failed}",
                switches=report.switches,
                elapsed_s=seconds(worst.elapsed_s),
                target=clean(worst.target, limit=60),
                at=when(worst.at),
                failed=failed,
            )
        )


def _peak(peak: Peak, when: Callable[[float], str]) -> str:
    name = _device(peak.index, peak.name)
    return tr(
        "{name}: {used_bytes} of {total_bytes} at {at}",
        name=name,
        used_bytes=bytes_text(peak.used_bytes),
        total_bytes=bytes_text(peak.total_bytes),
        at=when(peak.at),
    )


def _device(index: int | None, name: str) -> str:
    return (
        clean(name, limit=40)
        if index is None
        else tr("GPU {index} {name}", index=index, name=clean(name, limit=40))
    )


def _unseen(unseen: Unseen, indices: Mapping[str, int | None], when: Callable[[float], str]) -> str:
    index = indices.get(unseen.device_id)
    since = (
        tr("since before {since}", since=when(unseen.since))
        if unseen.from_before
        else tr("since {since}", since=when(unseen.since))
    )
    end = tr("and still there") if unseen.still else tr("until {until}", until=when(unseen.until))
    return tr(
        "{size} on {device_id} {since}, {end}",
        size=bytes_text(unseen.bytes),
        device_id=clean(unseen.device_id, limit=20) if index is None else f"GPU {index}",
        since=since,
        end=end,
    )


def _visit(visit: Visit, when: Callable[[float], str]) -> str:
    process = visit.process
    who = f"{clean(process.user or tr('an unknown user'), limit=32)} {process.pid}"
    what = clean(process.command or process.name or "-", limit=60)
    where = tr(" in {container}", container=clean(process.container, limit=32)) if process.container else ""
    came = tr("was there") if visit.came_at is None else tr("came {came_at}", came_at=when(visit.came_at))
    began = process.started_at if visit.came_at is None else visit.came_at
    if visit.lost_at is not None and visit.went_at is None:
        went = tr("last seen {lost_at}", lost_at=when(visit.lost_at))
    elif visit.went_at is None:
        went = tr("still there")
    else:
        stay = "" if began is None else tr(" after {went_at}", went_at=seconds(visit.went_at - began))
        went = tr("went {went_at}{stay}", went_at=when(visit.went_at), stay=stay)
    held = (
        tr("bytes unknown")
        if visit.peak_bytes is None
        else tr("up to {peak_bytes}", peak_bytes=bytes_text(visit.peak_bytes))
    )
    return f"{listed([came, went])}: {listed([who + where, held, what])}"


def _ended(ended: Ended, when: Callable[[float], str]) -> str:
    receipt = ended.receipt
    back = tr("what came back is not known")
    if receipt.returned_bytes is not None:
        back = tr("{returned_bytes} came back", returned_bytes=bytes_text(receipt.returned_bytes))
    asked = tr(", asked by {asked_by}", asked_by=clean(ended.asked_by, limit=40)) if ended.asked_by else ""
    target = clean(ended.whom or receipt.target, limit=70)
    return tr(
        "{at} {action} {target}: {back} in {elapsed_s}{asked}",
        at=when(receipt.at),
        action=word(receipt.action.replace("_", "-")),
        target=target,
        back=back,
        elapsed_s=seconds(receipt.elapsed_s),
        asked=asked,
    )


def _receipt(receipt: Receipt, when: Callable[[float], str]) -> str:
    action = word(receipt.action.replace("_", "-"))
    head = f"{when(receipt.at)} {action} {clean(spoken(receipt.target), limit=60)}"
    if not receipt.ok:
        return tr(
            "{head} failed: {error}",
            head=head,
            error=clean(spoken(receipt.error or "") or tr("no reason was told"), limit=90),
        )
    names = f" ({clean(', '.join(map(spoken, receipt.residue)), limit=60)})" if receipt.residue else ""
    return tr(
        "{head}: residue {residue_bytes}{names}",
        head=head,
        residue_bytes=bytes_text(receipt.residue_bytes),
        names=names,
    )


def _cut(line: str) -> str:
    return clean(line, limit=LINE_CHARS)
