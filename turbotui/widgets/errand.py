"""Owns how a fetching or an import under way is told: a bar, how fast it comes, how it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from turbotui.format import bytes_text, clip_middle, percent, seconds
from turbotui.text import t
from turbotui.text.spoken import spoken
from turbotui.widgets.lines import Row, View, wrapped
from turbotui.widgets.queue import progress_bar

if TYPE_CHECKING:
    from engine.wire import ModelErrand

BAR_CELLS = 20
LEAST_DETAIL = 14
"""A file's name in fewer cells says nothing."""


def errand_rows(view: View, errand: ModelErrand | None, width: int) -> list[Row]:
    """Rows about `errand`; none where there is none."""
    if errand is None:
        return []
    paint = view.paint
    if errand.state == "failed":
        why = spoken(errand.error.message) if errand.error is not None else ""
        text = t("errand.failed", name=errand.name, why=why)
        return [Row(width).add(line, paint.alarm) for line in wrapped(text, width)]
    if errand.state != "running":
        style = paint.ours if errand.state == "done" else paint.wait
        return [Row(width).add(t(f"errand.{errand.state}", name=errand.name), style)]
    row = Row(width).add(t(f"errand.{errand.verb}", name=errand.name), paint.bold)
    rows = [row]
    if errand.bytes is None or not errand.total_bytes:
        return rows
    share = errand.bytes / errand.total_bytes
    done, open_ = progress_bar(share, min(BAR_CELLS, max(4, width // 4)))
    row = Row(width).add(done, paint.bar).add(open_, paint.faint).add(f" {percent(share)}  ", paint.text)
    row.add(t("errand.of", part=bytes_text(errand.bytes), whole=bytes_text(errand.total_bytes)), paint.text)
    if errand.checking:
        row.add("  " + t("errand.checking"), paint.muted)
    elif errand.rate:
        row.add(f"  {bytes_text(round(errand.rate))}/s", paint.text)
        left = (errand.total_bytes - errand.bytes) / errand.rate
        row.add("  " + t("errand.left", left=seconds(left)), paint.text)
    if errand.detail and row.left > LEAST_DETAIL:
        row.add("  ", paint.muted).add(clip_middle(errand.detail, row.left), paint.muted)
    return [*rows, row]
