"""Owns the page for those who come from a WebUI: each of its buttons, our key, and what differs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding

from turbotui.screens.reader import PagePanel, PageScreen
from turbotui.text import t
from turbotui.widgets.lines import Row, View, wrapped

if TYPE_CHECKING:
    from textual.binding import BindingType

TOPICS = (
    *("restart", "background", "open", "soft", "hard", "cold", "emergency", "environment"),
    *("components", "baseline", "tiers", "logs", "last_resort", "figures"),
)
KEYS = (
    *("switch", "previous", "free", "unload", "park", "hard_cleanup", "full_cleanup", "reset", "kill"),
    *("restart", "findings", "report", "log_file", "warm", "sheet", "add"),
)
"""Actions whose keys the texts name."""
LEFT_CELLS = 38


class GuidePanel(PagePanel):
    """A row of two columns for each; the one below the other where they do not fit."""

    def __init__(self, key_of: Callable[[str], str]) -> None:
        super().__init__(id="guide")
        self._key_of = key_of

    def inputs(self, view: View) -> tuple[object, ...]:
        return (self.top,)

    def title(self, view: View) -> str:
        return t("guide.title")

    def page(self, view: View, width: int) -> list[Row]:
        paint = view.paint
        keys = {name: self._key_of(name) for name in KEYS}
        rows = [Row(width).add(line, paint.muted) for line in wrapped(t("guide.moral"), width)]
        rows.append(Row(width))
        two = width >= 90
        for topic in TOPICS:
            theirs, ours = t(f"guide.{topic}"), t(f"guide.{topic}_ours", **keys)
            if not two:
                rows += [Row(width).add(line, paint.bold) for line in wrapped(theirs, width)]
                rows += [
                    Row(width).add("  ", paint.text).add(line, paint.text)
                    for line in wrapped(ours, width - 2)
                ]
                continue
            left, right = wrapped(theirs, LEFT_CELLS - 2), wrapped(ours, width - LEFT_CELLS)
            for place in range(max(len(left), len(right))):
                row = Row(width).add(left[place] if place < len(left) else "", paint.bold)
                row.to(LEFT_CELLS, paint.text)
                rows.append(row.add(right[place] if place < len(right) else "", paint.text))
        return rows


class GuideScreen(PageScreen):
    """From the WebUI guide."""

    most = 132
    BINDINGS: ClassVar[list[BindingType]] = [Binding("H", "close", show=False, id="guide")]

    def __init__(self, key_of: Callable[[str], str]) -> None:
        super().__init__(GuidePanel(key_of))
