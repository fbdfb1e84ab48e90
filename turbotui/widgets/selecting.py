"""Owns selecting with the mouse in line panels: which cell is meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.errors import NoWidget
from textual.geometry import Offset
from textual.screen import Screen

from turbotui.widgets.lines import LinePanel

if TYPE_CHECKING:
    from textual.widget import Widget


class SelectingScreen(Screen):  # type: ignore[type-arg]  # whatever it is dismissed with
    """Tells Textual the cell of a line panel that the mouse is on: its strips carry no places."""

    def get_widget_and_offset_at(self, x: int, y: int) -> tuple[Widget | None, Offset | None]:
        try:
            widget, region = self.get_widget_at(x, y)
        except NoWidget:
            return None, None
        if isinstance(widget, LinePanel):
            return widget, Offset(x - region.x, y - region.y)
        return super().get_widget_and_offset_at(x, y)
