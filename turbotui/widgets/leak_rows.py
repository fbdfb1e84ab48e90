"""Owns how a verdict, a trend, a site and the tracing are told in rows, for the screen of leaks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from turbotui.format import bytes_text, clip_middle, percent, short_bytes
from turbotui.history import KIND_TO_PART
from turbotui.leak_text import at_least, evidence, holder_steps
from turbotui.sparkline import sparkline
from turbotui.text import t
from turbotui.text.spoken import spoken, word
from turbotui.theme import GLYPHS
from turbotui.widgets.lines import Row, View, width_of, wrapped
from turbotui.widgets.log import short_when

if TYPE_CHECKING:
    from rich.style import Style

    from engine.wire import Holder, LeakReport, Remedy, SinceMark, Site, Tracing, Trend, Verdict
    from turbotui.theme import Paint

KIND_CELLS = 12
BYTES_CELLS = 6
NAME_CELLS = 14
SPARK_CELLS = 24
LEVEL_BYTES = 16 * 2**20
PARTS = {
    "cache": "cache", "fragmented": "fragmented", "awaiting_free": "live", "component": "weights",
    "tensor": "live", "unowned_tensor": "live", "library": "context", "context": "context",
    "process": "others", "orphan": "others", "unseen": "unseen", "ghost": "unseen",
}  # fmt: skip
"""Kind of a verdict to the part of memory whose pattern it has; what is host memory has none."""


def verdict_row(view: View, row: Row, verdict: Verdict) -> Row:
    """One line: whether it is a leak, its pattern, kind and bytes, and what it is."""
    paint = view.paint
    part = PARTS.get(verdict.kind)
    if part is None:
        row.add("h", paint.muted)
    else:
        row.add(GLYPHS[part], paint.part[part])
    style = verdict_style(paint, verdict)
    row.add(" ", paint.text).field(t(f"leaks.kind_{verdict.kind}"), KIND_CELLS, style)
    size = "" if verdict.bytes is None else short_bytes(verdict.bytes)
    row.field(size, BYTES_CELLS, paint.bold if verdict.leak else paint.text, right=True).add("  ", paint.text)
    if verdict.leak:
        row.add(t("leaks.leak") + "  ", paint.error)
    return row.add(spoken(verdict.title), paint.text if verdict.leak else paint.muted)


def verdict_style(paint: Paint, verdict: Verdict) -> Style:
    """Vermilion only for what nobody can be seen to hold."""
    if verdict.kind in ("unseen", "ghost"):
        return paint.alarm
    return paint.error if verdict.leak else paint.text


def verdict_rows(view: View, verdict: Verdict, width: int, *, tight: bool = False) -> list[Row]:
    """All about one but its remedy, which is `remedy_rows`; where it is `tight`, its holder in one line."""
    paint = view.paint
    sign = t("leaks.leak" if verdict.leak else "leaks.no_leak")
    title = t("leaks.titled", sign=sign, title=spoken(verdict.title))
    rows = [Row(width).add(line, paint.bold) for line in wrapped(title, width)]
    # Who holds it first: where there is no room for all, the evidence is what waits for enter.
    if verdict.holder is not None:
        rows += holder_rows(view, verdict.holder, width, tight=tight)
    if verdict.site is not None:
        site = verdict.site
        text = t("leaks.allocated_at", where=place_of(site), function=site.function)
        rows += told(width, t("leaks.site"), text, paint.key, paint.text)
    elif verdict.site_reason is not None:
        text = t("leaks.site_unknown", reason=spoken(verdict.site_reason))
        rows += told(width, t("leaks.site"), text, paint.key, paint.muted)
    for sentence in evidence(verdict):
        rows += told(width, "·", sentence, paint.muted, paint.text)
    return rows


def held_rows(view: View, width: int) -> list[Row]:
    """Who holds what of the engine's device now, the most first: what there is to say without a leak."""
    paint, device = view.paint, view.state.own_device
    if device is None or device.balance is None:
        return []
    rows = [Row(width).add(t("leaks.who_holds"), paint.bold)]
    parts = [part for part in device.balance.parts if part.bytes != 0]
    for part in sorted(parts, key=lambda part: (part.kind == "free", -(part.bytes or 0))):
        name = KIND_TO_PART[part.kind]
        word = part.kind if part.kind in ("runtime", "ghost") else name
        row = Row(width).add(GLYPHS[name], paint.part[name]).add(" ", paint.text)
        row.field(t(f"part.{word}"), KIND_CELLS, paint.alarm if name == "unseen" else paint.text)
        row.field(short_bytes(part.bytes), BYTES_CELLS, paint.text, right=True).add("  ", paint.text)
        pid = "" if part.pid is None else f"{part.pid} "
        rows.append(row.add(pid + (spoken(part.reason) if part.reason else part.label), paint.muted))
    return rows


def holder_rows(view: View, holder: Holder, width: int, *, tight: bool = False) -> list[Row]:
    """From the root that lasts to the tensor, each step a little further in."""
    paint = view.paint
    if holder.kind == "none" or not holder.path:
        steps = ", ".join(holder_steps(holder))
        text = t("leaks.no_owner") + (f": {steps}" if steps else "")
        return told(width, t("leaks.held_by"), text, paint.key, paint.text)
    where = ""
    if holder.file is not None:
        where = os.path.basename(holder.file) + ("" if holder.line is None else f":{holder.line}")
    name = t("leaks.held_by")
    if tight:
        path = " > ".join(holder_steps(holder)) + (f"  {where}" if where else "")
        return told(width, name, path, paint.key, paint.text)
    rows = []
    indent = width_of(name) + 1
    last = len(holder.path) - 1
    for depth, step in enumerate(holder_steps(holder)):
        row = (
            Row(width)
            .add(name if depth == 0 else "", paint.key)
            .to(indent + 2 * max(0, depth - 1), paint.text)
        )
        if depth:
            row.add("└ ", paint.faint)
        row.add(step, paint.bold if depth == last else paint.text)
        if depth == 0 and where:
            row.add(f"  {where}", paint.muted)
        rows.append(row)
    return rows


def remedy_rows(view: View, verdict: Verdict, width: int) -> list[Row]:
    """What gives it back, by which key, and how much; or that nobody here can."""
    paint, remedy = view.paint, verdict.remedy
    rows = []
    if remedy is not None:
        text = spoken(remedy.text)
        if remedy.predicted_bytes is not None:
            key = "leaks.predicted_least" if at_least(remedy) else "leaks.predicted"
            text += t(key, bytes=bytes_text(remedy.predicted_bytes))
        name = t("leaks.remedy") if only_looks(view) else f"f {t('leaks.remedy')}"
        rows += told(width, name, text, paint.key, paint.text)
        if remedy.command:
            rows += told(width, "y", remedy.command, paint.key, paint.bold)
    if verdict.admin_line:
        rows += told(width, f"a {t('findings.admin')}", verdict.admin_line, paint.key, paint.muted)
    if not rows:
        rows = [Row(width).add(t("leaks.no_remedy"), paint.muted)]
    return rows


def told(width: int, name: str, text: str, name_style: Style, style: Style) -> list[Row]:
    """`text` after its name, further lines below where it began."""
    indent = width_of(name) + 1
    rows = []
    for place, line in enumerate(wrapped(text, max(1, width - indent))):
        row = Row(width).add(name if place == 0 else "", name_style)
        rows.append(row.to(indent, style).add(line, style))
    return rows


def place_of(site: Site) -> str:
    return f"{os.path.basename(site.file)}:{site.line}"


# --------------------------------------------------------------------------- beside the verdicts


def trend_rows(view: View, trends: Sequence[Trend], width: int) -> list[Row]:
    """Each floor over jobs and over switches as a line, and where it grows in which stage."""
    if not trends:
        return [Row(width).add(t("leaks.no_trends"), view.paint.muted)]
    return [row for trend in trends for row in _trend(view, trend, width)]


def _trend(view: View, trend: Trend, width: int) -> Iterator[Row]:
    paint = view.paint
    spark = min(SPARK_CELLS, max(8, (width - NAME_CELLS) // 3))
    name = f"{t(f'leaks.what_{trend.what}')}/{t(f'leaks.per_{trend.over}')}"
    row = Row(width).field(name, NAME_CELLS, paint.bold if trend.grows else paint.text)
    # What moves by little is level: else its noise would look like mountains.
    level = not trend.grows and max(trend.floors, default=0) - min(trend.floors, default=0) < LEVEL_BYTES
    line = sparkline((0,) * len(trend.floors) if level else trend.floors, spark)
    row.add(line, paint.error if trend.grows else paint.bar).to(NAME_CELLS + spark + 2, paint.text)
    each = "job" if trend.over == "jobs" else "switch"
    if trend.bytes_each is None:
        yield row.add(t(f"leaks.few_{trend.over}", count=trend.count), paint.muted)
        return
    if not trend.grows:
        yield row.add(t(f"leaks.flat_{trend.over}", count=trend.count), paint.muted)
        return
    row.add(t(f"leaks.grows_{each}", bytes=bytes_text(round(trend.bytes_each))), paint.error)
    yield row
    if trend.low is None or trend.high is None:
        return
    interval = t("leaks.interval", low=bytes_text(round(trend.low)), high=bytes_text(round(trend.high)))
    text = t(f"leaks.over_{trend.over}", count=trend.count) + interval
    if trend.stage:
        stage = word(trend.stage.partition(" ")[0])
        if trend.component is None:
            text += t("leaks.in_stage_alone", stage=stage)
        else:
            text += t("leaks.in_stage", stage=stage, component=trend.component)
    for line in wrapped(text, max(1, width - NAME_CELLS)):
        yield Row(width).to(NAME_CELLS, paint.muted).add(line, paint.muted)


def site_rows(view: View, report: LeakReport, width: int) -> list[Row]:
    """What is live by where it was allocated, while that was noted."""
    paint = view.paint
    rows = []
    for site in report.sites:
        row = Row(width).field(short_bytes(site.bytes), BYTES_CELLS, paint.text, right=True)
        row.field(f"{site.blocks}", 6, paint.muted, right=True).add("  ", paint.text)
        rows.append(row.add(place_of(site), paint.bold).add(f"  {site.function}", paint.muted))
    if not rows:
        text = t("leaks.no_sites_on" if report.tracing.on else "leaks.no_sites_off")
        rows = [Row(width).add(line, paint.muted) for line in wrapped(text, width)]
    return rows


def since_rows(view: View, since: SinceMark | None, width: int) -> list[Row]:
    """What came and went since the mark: by the line that allocates it, then by who holds it."""
    paint = view.paint
    if since is None:
        text = t("leaks.no_mark_look" if only_looks(view) else "leaks.no_mark")
        return [Row(width).add(line, paint.muted) for line in wrapped(text, width)]
    if since.lost is not None:
        return [Row(width).add(line, paint.wait) for line in wrapped(spoken(since.lost), width)]
    rows = []
    for grown in (*since.sites, *since.holders):
        sign = "+" if grown.bytes >= 0 else "-"
        style = paint.bold if grown.bytes > 0 else paint.muted
        row = Row(width).field(sign + short_bytes(abs(grown.bytes)), BYTES_CELLS + 1, style, right=True)
        row.field(f"{grown.count:+}", 6, paint.muted, right=True).add("  ", paint.text)
        if grown.holder is not None:
            # A path's ends tell most: the module that it begins in, and what holds the tensor.
            row.add(clip_middle(" > ".join(holder_steps(grown.holder)), max(1, row.left)), paint.text)
        elif grown.site is not None:
            row.add(place_of(grown.site), paint.bold).add(f"  {grown.site.function}", paint.muted)
        rows.append(row)
    return rows or [Row(width).add(t("leaks.nothing_grew"), paint.muted)]


def tracing_text(view: View, tracing: Tracing) -> str:
    """Whether it is on, since when, and what it costs; off, what it would."""
    if not tracing.on:
        cost = cost_when_on(tracing)
        return t("leaks.tracing_off_but", cost=cost) if cost else t("leaks.tracing_off")
    text = t("leaks.tracing_on")
    if tracing.since is not None:
        text += t("leaks.tracing_since", at=short_when(tracing.since, view.wall))
    return text + cost_text(tracing)


def cost_text(tracing: Tracing) -> str:
    if tracing.cost_share is None:
        return t("leaks.cost_unknown_cpu" if tracing.device == "cpu" else "leaks.cost_unknown")
    return t("leaks.cost", share=_share(tracing.cost_share))


def cost_when_on(tracing: Tracing) -> str:
    """What it has cost here, or may cost by the device; empty where an older engine tells neither."""
    if tracing.cost_share is not None:
        return t("leaks.cost_was", share=_share(tracing.cost_share))
    return "" if tracing.device is None else t(f"leaks.cost_on_{tracing.device}")


def _share(share: float) -> str:
    """Steps that were quicker with it tell that it costs less than can be measured."""
    if share < 0.001:
        return "<0.1 %"
    return percent(share) if share >= 0.1 else f"{share * 100:.1f} %"


def only_looks(view: View) -> bool:
    """Whether whatever acts would be refused, so that no key is offered for it."""
    return view.read_only or view.past_at is not None


def said_style(paint: Paint, text: str) -> Style:
    """Of what is said of a deed, by its sign: one for what was kept or done, one for what was not."""
    signs = {"✓": paint.proof, "!": paint.error}
    return signs.get(text[:1], paint.wait)


def remedy_facts(remedy: Remedy) -> tuple[tuple[str, str], ...]:
    """What a person agrees to."""
    facts = []
    if remedy.target:
        facts.append((t("leaks.fact_target"), remedy.target))
    if remedy.pid is not None:
        facts.append((t("leaks.fact_process"), f"pid {remedy.pid}"))
    predicted = t("leaks.fact_unknown")
    if remedy.predicted_bytes is not None:
        predicted = bytes_text(remedy.predicted_bytes)
        if at_least(remedy):
            predicted = t("leaks.fact_least", bytes=predicted)
    facts.append((t("leaks.fact_predicted"), predicted))
    if remedy.command:
        facts.append((t("leaks.fact_command"), remedy.command))
    return tuple(facts)
