"""Owns the floors below a job's ledger: what jobs leave behind, one after the other, and whether it grows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from turbotui.sparkline import sparkline
from turbotui.text import t
from turbotui.text.spoken import spoken
from turbotui.widgets.lines import Row, View, width_of, wrapped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.wire import Trend

SPARK_CELLS = 40
LEAST_TEXT = 24
"""Cells for the sentence beside its line; where there are fewer it goes below."""


def floor_rows(view: View, trends: Sequence[Trend], width: int) -> list[Row]:
    """A line for each kind of memory whose floor over jobs is known; what grows has the alarm's hue."""
    paint = view.paint
    shown = [trend for trend in trends if trend.over == "jobs" and trend.floors]
    if not shown:
        return []
    rows = [Row(width), Row(width).add(t("job.floors"), paint.focus_title)]
    cells = max(1, min(SPARK_CELLS, max(len(trend.floors) for trend in shown), width // 2))
    for trend in shown:
        line, text = sparkline(trend.floors, cells), spoken(trend.text)
        ink = paint.alarm if trend.grows else paint.muted
        row = (
            Row(width)
            .add("! " if trend.grows else "  ", ink)
            .add(line, paint.alarm if trend.grows else paint.ours)
        )
        row.to(2 + cells + 2, paint.text)
        if row.left >= min(LEAST_TEXT, width_of(text)):
            parts = wrapped(text, row.left)
            rows.append(row.add(parts[0], ink))
            rows += [Row(width).to(2 + cells + 2, paint.text).add(part, ink) for part in parts[1:]]
        else:
            rows.append(row)
            rows += [Row(width).add("  " + part, ink) for part in wrapped(text, width - 2)]
    return rows
