"""Owns the dashboard's keys that a list or the log answers by itself: its rows, its filter, its matches."""

from __future__ import annotations

from textual.screen import Screen

from turbotui.widgets.log import LogPanel
from turbotui.widgets.panels import ListPanel


class PanelKeys(Screen[None]):
    """A dashboard's `look_*` for what stands in its panels."""

    def choose(self, panel_id: str) -> None:
        raise NotImplementedError

    def _list(self) -> ListPanel | None:
        return self.focused if isinstance(self.focused, ListPanel) else None

    def look_down(self) -> None:
        if panel := self._list():
            panel.move(1)

    def look_up(self) -> None:
        if panel := self._list():
            panel.move(-1)

    def look_first(self) -> None:
        if panel := self._list():
            panel.move_to_end(last=False)

    def look_last(self) -> None:
        if panel := self._list():
            panel.move_to_end(last=True)

    def look_half_down(self) -> None:
        if panel := self._list():
            panel.page(1)

    def look_half_up(self) -> None:
        if panel := self._list():
            panel.page(-1)

    def look_filter(self) -> None:
        self.choose("log")
        self.query_one(LogPanel).edit_filter()

    def look_all_lines(self) -> None:
        self.query_one(LogPanel).toggle_all()

    def look_follow(self) -> None:
        self.query_one(LogPanel).follow()

    def look_next_match(self) -> None:
        self.query_one(LogPanel).go_to_match(1)

    def look_previous_match(self) -> None:
        self.query_one(LogPanel).go_to_match(-1)
