"""Owns how Textual places the dashboard's panels: where `plan` says, by their ids."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from textual.geometry import NULL_OFFSET, NULL_SPACING, Region
from textual.layout import Layout, WidgetPlacement

if TYPE_CHECKING:
    from textual.geometry import Size
    from textual.widget import Widget

    from turbotui.screens.plan import Place


class PlannedLayout(Layout):
    """Children that have no place are not shown.

    Args:
        places: Gives the places by id for a width and a height.
    """

    name = "planned"

    def __init__(self, places: Callable[[int, int], dict[str, Place]]) -> None:
        super().__init__()
        self._places = places

    def arrange(
        self, parent: Widget, children: list[Widget], size: Size, greedy: bool = True
    ) -> list[WidgetPlacement]:
        places = self._places(size.width, size.height)
        return [
            WidgetPlacement(Region(*places[child.id]), NULL_OFFSET, NULL_SPACING, child)
            for child in children
            if child.id in places
        ]
