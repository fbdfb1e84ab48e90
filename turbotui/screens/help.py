"""Owns the help screen: the keys of the panel that has the focus first, then those that work everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding

from turbotui.actions import ACTIONS, BY_ID, KEY_LINE_HERE, KEY_SIGNS, PLACES, Action, Place
from turbotui.screens.reader import PagePanel, PageScreen
from turbotui.text import key_names, t
from turbotui.widgets.lines import Row, View, wrapped

if TYPE_CHECKING:
    from textual.binding import BindingType

KEY_CELLS = 16
GAP = 3


class HelpPanel(PagePanel):
    """Two columns where they fit.

    Args:
        keys: The person's own, by action id.
        here: The panel that has the focus.
    """

    def __init__(self, keys: dict[str, str], here: str = "") -> None:
        super().__init__(id="help")
        self._keys = keys
        self._here = here if here in KEY_LINE_HERE else ""

    def can_act(self, action: Action) -> bool:
        """Whether this console has any use for it: what has none is not listed."""
        return True

    def inputs(self, view: View) -> tuple[object, ...]:
        return (self.top,)

    def title(self, view: View) -> str:
        return t("help.title")

    def below(self, view: View) -> str:
        return f"{t('help.guide_key', sign=self._shown(BY_ID['guide']))}  {super().below(view)}"

    def page(self, view: View, width: int) -> list[Row]:
        others = [place for place in PLACES if place not in ("everywhere", self._here)]
        if width < 90:
            rows = self._own(view, width) + self._section(view, "everywhere", width)
            return rows + [row for place in others for row in self._section(view, place, width)]
        half = (width - GAP) // 2
        left = self._own(view, half)
        right = [row for place in others for row in self._section(view, place, half)]
        # Everywhere is the longest: what the shorter column has room for goes on there.
        everywhere = self._section(view, "everywhere", half)
        room = max(len(everywhere) // 2, (len(left) + len(right) + len(everywhere)) // 2 - len(left))
        if 0 < room < len(everywhere):
            right += everywhere[:1]
        left, right = left + everywhere[:room], right + everywhere[room:]
        rows = []
        for place in range(max(len(left), len(right))):
            row = Row(width)
            if place < len(left):
                row.extend(left[place])
            row.to(half + GAP, view.paint.text)
            if place < len(right):
                row.extend(right[place])
            rows.append(row)
        return rows

    def _own(self, view: View, width: int) -> list[Row]:
        """What the focused panel offers, its own keys and those that work elsewhere too."""
        if not self._here:
            return []
        own = [BY_ID[name] for name in KEY_LINE_HERE[self._here]]
        own += [action for action in ACTIONS if action.place == self._here and action not in own]
        title = t("help.here", panel=t(f"place.{self._here}"))
        return self._listed(view, title, own, width)

    def _section(self, view: View, place: Place, width: int) -> list[Row]:
        actions = [action for action in ACTIONS if action.place == place and self.can_act(action)]
        return self._listed(view, t(f"place.{place}"), actions, width) if actions else []

    def _listed(self, view: View, title: str, actions: list[Action], width: int) -> list[Row]:
        paint = view.paint
        rows = [Row(width).add(title, paint.focus_title)]
        panels = [action for action in actions if action.id.startswith("panel_")]
        for action in actions:
            if action in panels[1:]:
                continue
            keys = "1-6" if action in panels else self._shown(action)
            style = paint.alarm if action.tier == "dangerous" else paint.key
            said = t("help.panel" if action in panels else f"help.{action.id}")
            for place, line in enumerate(wrapped(said, width - KEY_CELLS)):
                row = Row(width).field("" if place else f"  {keys}", KEY_CELLS, style)
                rows.append(row.add(line, paint.text))
        rows.append(Row(width))
        return rows

    def _shown(self, action: Action) -> str:
        keys = self._keys[action.id].split(",") if action.id in self._keys else list(action.keys)
        # The same key from another input method is no other key to a person.
        shown = [key for key in keys if key.isascii()] or keys
        return key_names(" ".join(KEY_SIGNS.get(key, key) for key in shown[:2]))


class HelpScreen(PageScreen):
    """All keys of the dashboard."""

    most = 112
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark,？", "close", show=False),
        Binding("H", "guide", show=False, id="guide"),
    ]

    def __init__(self, keys: dict[str, str] | None = None, here: str = "") -> None:
        super().__init__(HelpPanel(keys or {}, here))

    def action_guide(self) -> None:
        self.dismiss(None)
        self.turbo.act("guide")


class ScreenKeysScreen(PageScreen):
    """The keys of the screen below it."""

    most = 76
    BINDINGS: ClassVar[list[BindingType]] = [Binding("question_mark,？,f1", "close", show=False)]
