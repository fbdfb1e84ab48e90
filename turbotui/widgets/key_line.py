"""Owns the line of keys below the dashboard: those that matter where the focus is, as many as fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from turbotui.widgets.lines import LinePanel, Row, View, width_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.events import Click


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyHint:
    """One entry of the key line."""

    action: str
    key: str
    label: str
    enabled: bool
    rank: int = 0
    """Those of a high one go first where there is no room for all."""


def _hint_cells(hint: KeyHint) -> int:
    return width_of(hint.key) + 1 + width_of(hint.label)


def fitting_hints(hints: tuple[KeyHint, ...], cells: int) -> list[KeyHint]:
    """As many of `hints` as fit, in their order: what does nothing now goes first, then by rank."""
    taken = set()
    for hint in sorted(hints, key=lambda each: (not each.enabled, each.rank)):
        if (needed := _hint_cells(hint) + 1) <= cells:
            taken.add(hint.action)
            cells -= needed
    return [hint for hint in hints if hint.action in taken]


class KeyLine(LinePanel):
    """The keys that matter here; dim where they would do nothing now."""

    def __init__(
        self,
        *,
        id: str,
        hints: Callable[[View], tuple[KeyHint, ...]],
        on_choose: Callable[[str], None],
    ) -> None:
        super().__init__(id=id)
        self._hints = hints
        self._on_choose = on_choose
        self._spans: list[tuple[int, int, str]] = []

    def inputs(self, view: View) -> tuple[object, ...]:
        return (self._hints(view),)

    def rows(self, view: View, width: int, height: int) -> list[Row]:
        paint, row = view.paint, Row(width).add(" ", view.paint.text)
        self._spans = []
        hints = fitting_hints(self._hints(view), width - 1)
        gap = 2 if sum(_hint_cells(hint) + 2 for hint in hints) <= width - 1 else 1
        for hint in hints:
            start = row.cells
            row.add(hint.key, paint.key if hint.enabled else paint.off)
            row.add(f" {hint.label}", paint.muted if hint.enabled else paint.off)
            self._spans.append((start, row.cells, hint.action))
            row.add(" " * gap, paint.text)
        return [row]

    def on_click(self, event: Click) -> None:
        for start, end, action in self._spans:
            if start <= event.x < end:
                self._on_choose(action)
