"""Owns the help of a replay: the player's keys first, then what can be looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from turbotui.replay.app import ASKS_AN_ENGINE
from turbotui.screens.help import KEY_CELLS, HelpPanel
from turbotui.screens.reader import PageScreen
from turbotui.text.spoken import tr, word
from turbotui.widgets.lines import Row, View

if TYPE_CHECKING:
    from turbotui.actions import Action

PLAYER_KEYS = (
    ("space", "stand still, or go on"),
    ("← →", "go back or on by five seconds of watching"),
    ("< >", "go to what happened before or after"),
    ("2", "the history: these move its cursor, enter replays from it"),
    ("q", "leave the replay"),
)


class ReplayHelpPanel(HelpPanel):
    """The keys of the player, then those that look; the others are refused in a replay."""

    def can_act(self, action: Action) -> bool:
        return action.tier == "look" and action.id not in ASKS_AN_ENGINE

    def page(self, view: View, width: int) -> list[Row]:
        rows = [Row(width).add(word("replay").capitalize(), view.paint.focus_title)]
        for keys, told in PLAYER_KEYS:
            rows.append(
                Row(width).field(f"  {keys}", KEY_CELLS, view.paint.key).add(tr(told), view.paint.text)
            )
        return [*rows, Row(width), *super().page(view, width)]


class ReplayHelp(PageScreen):
    """The help of a replay."""

    most = 112

    def __init__(self, keys: dict[str, str] | None = None) -> None:
        super().__init__(ReplayHelpPanel(keys or {}))
