"""Owns the help screen: every key, by the place where it works."""

from __future__ import annotations

from turbotui.actions import ACTIONS, KEY_SIGNS, PLACES, Action, Place
from turbotui.screens.reader import PagePanel, PageScreen
from turbotui.text import t
from turbotui.widgets.lines import Row, View

KEY_CELLS = 16


class HelpPanel(PagePanel):
    """Two columns where they fit."""

    def __init__(self, keys: dict[str, str]) -> None:
        super().__init__(id="help")
        self._keys = keys

    def inputs(self, view: View) -> tuple[object, ...]:
        return (self.top,)

    def title(self, view: View) -> str:
        return t("help.title")

    def page(self, view: View, width: int) -> list[Row]:
        if width < 90:
            return [row for place in PLACES for row in self._section(view, place, width)]
        half = (width - 3) // 2
        left = self._section(view, "everywhere", half)
        right = [row for place in PLACES[1:] for row in self._section(view, place, half)]
        rows = []
        for place in range(max(len(left), len(right))):
            row = Row(width)
            if place < len(left):
                row.extend(left[place])
            row.to(half + 3, view.paint.text)
            if place < len(right):
                row.extend(right[place])
            rows.append(row)
        return rows

    def _section(self, view: View, place: Place, width: int) -> list[Row]:
        paint = view.paint
        actions = [action for action in ACTIONS if action.place == place]
        if not actions:
            return []
        rows = [Row(width).add(t(f"place.{place}"), paint.focus_title)]
        panels = [action for action in actions if action.id.startswith("panel_")]
        for action in actions:
            if action in panels[1:]:
                continue
            keys = "1-6" if action in panels else self._shown(action)
            style = paint.alarm if action.tier == "dangerous" else paint.key
            row = Row(width).field(f"  {keys}", KEY_CELLS, style)
            rows.append(row.add(t("help.panel" if action in panels else f"help.{action.id}"), paint.text))
        rows.append(Row(width))
        return rows

    def _shown(self, action: Action) -> str:
        keys = self._keys[action.id].split(",") if action.id in self._keys else list(action.keys)
        # The same key from another input method is no other key to a person.
        shown = [key for key in keys if key.isascii()] or keys
        return " ".join(KEY_SIGNS.get(key, key) for key in shown[:2])


class HelpScreen(PageScreen):
    """All keys."""

    most = 112

    def __init__(self, keys: dict[str, str] | None = None) -> None:
        super().__init__(HelpPanel(keys or {}))
