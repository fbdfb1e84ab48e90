"""Owns the panel of leaks: verdicts on top, below them the chosen one beside trends, map and sites.

Where there is no room for both, the lower part shows one of them at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from turbotui.format import bytes_text, seconds
from turbotui.leak_text import unseen
from turbotui.text import t
from turbotui.text.spoken import spoken
from turbotui.widgets.leak_rows import (
    held_rows,
    only_looks,
    remedy_rows,
    said_style,
    since_rows,
    site_rows,
    told,
    tracing_text,
    trend_rows,
    verdict_row,
    verdict_rows,
)
from turbotui.widgets.lines import Row, View, width_of, wrapped
from turbotui.widgets.log import short_when, when
from turbotui.widgets.panels import Key, ListPanel
from turbotui.widgets.segment_map import map_rows

if TYPE_CHECKING:
    from engine.wire import Job, LeakReport, Verdict

SECTIONS = ("verdict", "trends", "segments", "sites", "since")
WIDE = 100
"""Columns from which on all sections stand beside each other."""
GAP = 3
LEAST_LOWER = 9
OUT_OF_MEMORY = "out_of_memory"
MOST_JOBS = 5


class LeaksPanel(ListPanel):
    """The newest look, the leaks first; jobs that ran out of memory after them."""

    def __init__(self) -> None:
        super().__init__(id="leaks")
        self.report: LeakReport | None = None
        self.busy = ""
        self.said = ""
        self.failed = ""
        """Why there is no report."""
        self.section = 0
        self._wide = True

    def inputs(self, view: View) -> tuple[object, ...]:
        jobs = tuple((job.id, job.error_code) for job in view.state.finished)
        device = view.state.own_device
        return (
            self.report, self.busy, self.said, self.failed, self.section, jobs, int(view.wall) // 60,
            device and device.balance and device.balance.parts,
        )  # fmt: skip

    # ------------------------------------------------------------------ frame

    def title(self, view: View) -> str:
        if self.report is None:
            return t("leaks.title")
        leaks = [verdict for verdict in self.report.verdicts if verdict.leak]
        if not leaks:
            return t("leaks.title_unseen" if unseen(self.report) else "leaks.title_none")
        known = [verdict.bytes for verdict in leaks if verdict.bytes is not None]
        size = bytes_text(sum(known)) if known else t("leaks.bytes_unknown")
        return t("leaks.title_count", count=len(leaks), bytes=size)

    def remark(self, view: View, width: int) -> Row | None:
        row = Row(width)
        if self.busy:
            return row.add(self.busy, view.paint.wait)
        if self.report is None:
            return None
        report = self.report
        texts = [
            t(
                "leaks.looked_objects",
                at=when(report.at, view.wall),
                took=seconds(report.elapsed_s),
                count=f"{report.objects:,}",
            ),
            t("findings.looked", at=when(report.at, view.wall), took=seconds(report.elapsed_s)),
        ]
        return row.add(next((text for text in texts if width_of(text) <= width), texts[-1]), view.paint.muted)

    def below(self, view: View) -> str:
        keys = "leaks.keys_wide" if self._wide else "leaks.keys"
        if only_looks(view):  # names no key that would be refused
            keys += "_look"
        return t(keys if self.verdict is not None or self.job(view) is not None else f"{keys}_none")

    # ------------------------------------------------------------------ the list

    def keys(self, view: View) -> list[Key]:
        if self.report is None:
            return []
        found: list[Key] = [("verdict", place) for place in range(len(self.report.verdicts))]
        found += [("job", job.id) for job in ran_out(view)]
        return [*found, *(("unknown", place) for place in range(len(self.report.unknown)))]

    def nothing(self, view: View, width: int) -> list[Row]:
        if self.report is not None:
            return [Row(width).add(t("leaks.none"), view.paint.text)]
        text = self.failed or self.busy
        return [Row(width).add(line, view.paint.muted) for line in wrapped(text, width)]

    def row(self, view: View, key: Key, width: int) -> Row:
        assert isinstance(key, tuple) and self.report is not None
        paint = view.paint
        row = Row(width).add("> " if key == self.chosen else "  ", paint.key)
        if key[0] == "unknown":
            row.add("  ", paint.text).add(t("findings.unknown") + "  ", paint.muted)
            return row.add(spoken(self.report.unknown[key[1]]), paint.muted)
        if key[0] == "job":
            job = next((one for one in ran_out(view) if one.id == key[1]), None)
            return row if job is None else self._job_row(view, row, job)
        return verdict_row(view, row, self.report.verdicts[key[1]])

    def _job_row(self, view: View, row: Row, job: Job) -> Row:
        paint = view.paint
        row.add("! ", paint.alarm).field(t("leaks.kind_oom"), 12, paint.alarm).add("        ", paint.text)
        at = "" if job.finished_at is None else f"  {short_when(job.finished_at, view.wall)}"
        row.add(f"{t('log.job', id=job.id)}{at}  ", paint.text)
        return row.add(spoken(job.error or ""), paint.muted)

    @property
    def verdict(self) -> Verdict | None:
        """The chosen one."""
        if self.report is None or not isinstance(self.chosen, tuple) or self.chosen[0] != "verdict":
            return None
        place = self.chosen[1]
        return self.report.verdicts[place] if place < len(self.report.verdicts) else None

    def job(self, view: View) -> Job | None:
        """The chosen one that ran out of memory."""
        if not isinstance(self.chosen, tuple) or self.chosen[0] != "job":
            return None
        return next((job for job in ran_out(view) if job.id == self.chosen[1]), None)

    def _unknown(self) -> str:
        """What the chosen row says that could not be looked at; empty where it is no such row."""
        if self.report is None or not isinstance(self.chosen, tuple) or self.chosen[0] != "unknown":
            return ""
        place = self.chosen[1]
        return spoken(self.report.unknown[place]) if place < len(self.report.unknown) else ""

    # ------------------------------------------------------------------ below it

    def body(self, view: View, width: int, height: int) -> list[Row]:
        self._wide = width >= WIDE
        if self.report is None:
            return super().body(view, width, height)
        listed = max(1, len(self.keys(view)))
        room = max(3, min(listed, height - LEAST_LOWER, max(6, height * 2 // 5)))
        rows = super().body(view, width, room)
        while len(rows) < room:
            rows.append(Row(width))
        left = height - len(rows) - 1
        if self._wide:
            return [*rows, *self._beside(view, width, left)]
        return [*rows, self._tabs(view, width), *self._section(view, SECTIONS[self.section], width, left)]

    def _tabs(self, view: View, width: int) -> Row:
        paint = view.paint
        row = Row(width).add("─", paint.faint)
        for place, name in enumerate(SECTIONS):
            chosen = place == self.section
            row.add(f" {self._section_name(view, name)} ", paint.chosen_tab if chosen else paint.muted)
            row.add("─", paint.faint)
        return row.to(width, paint.faint, "─")

    def _section_name(self, view: View, section: str) -> str:
        name = t(f"leaks.section_{section}")
        since = None if self.report is None else self.report.since
        return f"{name} {when(since.at, view.wall)}" if section == "since" and since is not None else name

    def _beside(self, view: View, width: int, height: int) -> list[Row]:
        """The chosen verdict at the left, and at the right all that is not of one verdict."""
        paint = view.paint
        half = width * 11 // 20 - GAP
        other = width - half - GAP
        left = self._section(view, "verdict", half, height)
        right = self._right(view, other, height)
        name = f" {t('leaks.section_verdict')} "
        rule = Row(width).add("─", paint.faint).add(name, paint.muted).to(half + 1, paint.faint, "─")
        rule.add("┬", paint.faint).add("─", paint.faint).add(f" {t('leaks.section_trends')} ", paint.muted)
        rows = [rule.to(width, paint.faint, "─")]
        for place in range(height):
            row = Row(width)
            if place < len(left):
                row.extend(left[place])
            row.to(half + 1, paint.text).add("│ ", paint.faint)
            if place < len(right):
                row.extend(right[place])
            rows.append(row)
        return rows

    def _right(self, view: View, width: int, height: int) -> list[Row]:
        report, paint = self.report, view.paint
        assert report is not None
        trends = trend_rows(view, report.trends, width)
        # Beside each other there is room for one of them: who marks wants to know what has grown.
        last = "sites" if report.since is None else "since"
        sites = since_rows(view, report.since, width) if report.since else site_rows(view, report, width)
        # The map takes what is left, and never less than shows anything.
        spare = height - len(trends) - 3 - min(len(sites), 4)
        lines = max(3, min(spare, 2 + max(3, height // 3)))
        mapped = map_rows(view, report.segments, width, lines)
        rows = trends[: max(1, height - len(mapped) - 2)]
        for name, more in (("segments", mapped), (last, sites)):
            title = Row(width).add("─", paint.faint).add(f" {self._section_name(view, name)} ", paint.muted)
            rows += [title.to(width, paint.faint, "─"), *more]
        tracing = self._tracing(view, width)
        return rows[: height - len(tracing)] + tracing

    def _tracing(self, view: View, width: int) -> list[Row]:
        assert self.report is not None
        tracing = self.report.tracing
        style = view.paint.wait if tracing.on else view.paint.muted
        text = tracing_text(view, tracing)
        if only_looks(view):
            return [Row(width).add(line, style) for line in wrapped(text, width)]
        return told(width, "t", text, view.paint.key, style)

    def _section(self, view: View, name: str, width: int, height: int) -> list[Row]:
        assert self.report is not None
        paint = view.paint
        if name == "trends":
            return trend_rows(view, self.report.trends, width)[:height]
        if name == "segments":
            return map_rows(view, self.report.segments, width, height)
        if name == "sites":
            tracing = self._tracing(view, width)
            return site_rows(view, self.report, width)[: height - len(tracing)] + tracing
        if name == "since":
            return since_rows(view, self.report.since, width)[:height]
        style = said_style(paint, self.said)
        head = [Row(width).add(line, style) for line in wrapped(self.said, width)] if self.said else []
        verdict = self.verdict
        if verdict is None:
            job = self.job(view)
            unknown = self._unknown()
            lines = wrapped(unknown, width) if unknown else []  # that there is none is said above
            if job is not None:
                lines = [*wrapped(spoken(job.error or ""), width), t("leaks.job_report")]
            told = [Row(width).add(line, paint.text) for line in lines]
            return [*head, *(told or held_rows(view, width))][:height]
        last = remedy_rows(view, verdict, width)
        last = last[: max(2, height - 3)]
        first = [*head, *verdict_rows(view, verdict, width)]
        room = max(1, height - len(last) - 1)
        if len(first) > room:
            first = [*head, *verdict_rows(view, verdict, width, tight=True)]
        if len(first) > room:
            more = len(first) - room + 1
            first = [*first[: room - 1], Row(width).add(t("leaks.more", count=more), paint.muted)]
        return [*first, Row(width), *last]

    def step_section(self, by: int) -> None:
        self.section = (self.section + by) % len(SECTIONS)
        self.redraw()


def ran_out(view: View) -> list[Job]:
    """The newest jobs that ended for want of memory."""
    jobs = [job for job in view.state.finished if job.error_code == OUT_OF_MEMORY]
    return jobs[:MOST_JOBS]
