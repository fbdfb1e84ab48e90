"""Owns the ledger of a job's stages: how far each is, what it took or will take, what it held."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from turbotui.format import UNKNOWN, bytes_text, cell_width, seconds
from turbotui.text import t
from turbotui.widgets.lines import Row, View
from turbotui.widgets.queue import progress_bar

if TYPE_CHECKING:
    from engine.wire import Job, JobCourse, StageRecord

BYTES_CELLS = 10
TIME_CELLS = 9
SYMBOLS = {"ended": "✓ ", "current": "▶ ", "coming": "· ", "cut": "x "}
MOST_WAITING = 0.95
"""How full the bar of a stage becomes that tells no steps and takes longer than expected."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageLine:
    """One line as it can be drawn."""

    name: str
    share: float
    """How full its bar is: of the stage while the job runs, of the job's time once it has ended."""
    state: Literal["ended", "current", "coming", "cut"]
    took_s: float | None = None
    expected_s: float | None = None
    before_bytes: int | None = None
    peak_bytes: int | None = None
    after_bytes: int | None = None


def lines_of_ended(records: Iterable[StageRecord], elapsed_s: float) -> list[StageLine]:
    """Of a job that is over: bars compare the stages."""
    return [_of_record(record, record.elapsed_s / (elapsed_s or 1.0)) for record in records]


def lines_of_cut(job: Job, course: JobCourse) -> list[StageLine]:
    """Of a job that was cancelled or failed: the stages that it ended, and the one that was cut off."""
    cut, cut_s = course.cut_off, 0.0
    if cut is not None:
        cut_s = cut.elapsed_s
    elif course.current_since is not None and job.finished_at is not None:
        cut_s = max(0.0, job.finished_at - course.current_since)  # its worker died, and told nothing more
    elapsed_s = cut_s + sum(record.elapsed_s for record in course.ended)
    lines = lines_of_ended(course.ended, elapsed_s)
    name = course.current if cut is None else cut.stage
    if name is not None:
        lines.append(
            StageLine(
                name=name,
                share=cut_s / (elapsed_s or 1.0),
                state="cut",
                took_s=cut_s if cut is not None or job.finished_at is not None else None,
                before_bytes=course.current_before_bytes if cut is None else cut.before_bytes,
                peak_bytes=None if cut is None else cut.peak_bytes,
            )
        )
    return lines


def lines_of_running(job: Job, course: JobCourse, wall: float) -> list[StageLine]:
    """Of a job under way: what is over, what is measured now, and what will come."""
    progress = job.progress
    total_s: float | None = None
    if progress is not None and progress.eta_s is not None and job.started_at is not None:
        total_s = max(0.0, wall - job.started_at) + progress.eta_s
    lines: list[StageLine] = []
    told = [record.stage for record in course.ended] + ([course.current] if course.current else [])
    begun = {name.split()[0] for name in told}
    reached = max((place for place, stage in enumerate(course.shares) if stage in begun), default=-1)
    for place, (stage, share) in enumerate(course.shares.items()):
        expected_s = None if total_s is None else share * total_s
        own = [record for record in course.ended if record.stage.split()[0] == stage]
        lines += [_of_record(record, 1.0) for record in own]
        if course.current is not None and course.current.split()[0] == stage:
            lines.append(_current(job, course, wall, stage, expected_s))
        elif not own and place > reached:  # else it was left out: the prompt's embedding was kept
            lines.append(StageLine(name=stage, share=0.0, state="coming", expected_s=expected_s))
    return lines


def _of_record(record: StageRecord, share: float) -> StageLine:
    return StageLine(
        name=record.stage,
        share=share,
        state="ended",
        took_s=record.elapsed_s,
        before_bytes=record.before_bytes,
        peak_bytes=record.peak_bytes,
        after_bytes=record.after_bytes,
    )


def _current(job: Job, course: JobCourse, wall: float, stage: str, expected_s: float | None) -> StageLine:
    progress = job.progress
    took_s = None if course.current_since is None else max(0.0, wall - course.current_since)
    share = 0.0
    if progress is not None and progress.stage == stage and progress.steps:
        share = progress.step / progress.steps
    elif took_s is not None and expected_s:
        share = min(MOST_WAITING, took_s / expected_s)
    # The job tells its highest peak: this stage's own only where it is above all before.
    before = max((record.peak_bytes for record in course.ended), default=0)
    peak = None if progress is None else progress.peak_bytes
    return StageLine(
        name=course.current or stage,
        share=share,
        state="current",
        took_s=took_s,
        expected_s=expected_s,
        before_bytes=course.current_before_bytes,
        peak_bytes=peak if peak is not None and peak > before else None,
    )


def ledger_rows(view: View, lines: list[StageLine], width: int, *, from_last: bool | None) -> list[Row]:
    """The ledger with its heading; `from_last` says where expected times come from, None without any."""
    paint = view.paint
    names = max(10, min(19, max((cell_width(_name(line.name)) + 3 for line in lines), default=10)))
    expects = any(line.expected_s is not None for line in lines)
    times = TIME_CELLS * (2 if expects else 1)
    bar_cells = max(0, min(28, width - names - times - 3 * BYTES_CELLS - 1))
    head = Row(width).field(t("job.ledger"), names + bar_cells, paint.focus_title)
    head.field(t("job.column_took"), TIME_CELLS, paint.muted, right=True)
    if expects:
        head.field(t("job.column_expected"), TIME_CELLS, paint.muted, right=True)
    for column in ("before", "peak", "after"):
        head.field(t(f"job.column_{column}"), BYTES_CELLS, paint.muted, right=True)
    rows = [Row(width), head]
    for line in lines:
        now, coming, cut = (line.state == state for state in ("current", "coming", "cut"))
        ink = paint.muted if coming else paint.bold if now else paint.text
        row = Row(width).add(SYMBOLS[line.state], paint.ours if now else paint.error if cut else ink)
        row.field(_name(line.name), names - 3, ink).add(" ", ink)
        if bar_cells:
            done, open_ = progress_bar(line.share, bar_cells - 1)
            row.add(done, paint.bar).add(open_, paint.faint).to(names + bar_cells, paint.text)
        row.field(seconds(line.took_s) if line.took_s is not None else "", TIME_CELLS, ink, right=True)
        if expects:
            expected = "" if line.expected_s is None else f"~{seconds(line.expected_s)}"
            row.field(expected, TIME_CELLS, paint.muted, right=True)
        for count in (line.before_bytes, line.peak_bytes, line.after_bytes):
            text = UNKNOWN if count is None else bytes_text(count)
            row.field(text, BYTES_CELLS, ink if count is not None else paint.faint, right=True)
        rows.append(row)
    measured = [line for line in lines if line.before_bytes is not None]
    if lines[-1:] and lines[-1].state == "cut":
        rows.append(_cut_off(view, lines[-1], width))
    elif measured:
        rows.append(_floor(view, measured, width, over=lines[-1].state == "ended"))
    if from_last is not None and expects:
        source = t("job.expected_last" if from_last else "job.expected_typical")
        rows.append(Row(width).add(source, paint.muted))
    return rows


def _name(record: str) -> str:
    """`denoise dit.high` in this language."""
    stage, _, component = record.partition(" ")
    return f"{t(f'stage.{stage}')} {component}".strip()


def _cut_off(view: View, line: StageLine, width: int) -> Row:
    """What the last line's sign means, in words."""
    took = UNKNOWN if line.took_s is None else seconds(line.took_s)
    key = "job.cut_off" if line.peak_bytes is None else "job.cut_off_at"
    reached = bytes_text(line.peak_bytes)
    return Row(width).add(f"  {t(key, stage=_name(line.name), took=took, peak=reached)}", view.paint.muted)


def _floor(view: View, measured: list[StageLine], width: int, *, over: bool) -> Row:
    """What was held before the first stage and is after the last: what a job leaves behind."""
    paint = view.paint
    start, end = measured[0].before_bytes, measured[-1].after_bytes
    row = Row(width).add("  ", paint.text)
    if not over or start is None or end is None:
        return row.add(t("job.floor_start", start=bytes_text(start)), paint.muted)
    grown = f"{'+' if end >= start else ''}{bytes_text(end - start)}"
    return row.add(t("job.floor", start=bytes_text(start), end=bytes_text(end), grown=grown), paint.muted)
