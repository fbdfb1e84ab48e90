"""Owns choosing one of several in a list that typing narrows; what there is to choose is the caller's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from turbotui.format import clip_middle
from turbotui.screens.window import WindowScreen
from turbotui.text import t
from turbotui.widgets.lines import Row, View
from turbotui.widgets.panels import Key, ListPanel

if TYPE_CHECKING:
    from textual.events import Key as KeyEvent


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """A row to choose."""

    key: Key
    outcome: object
    name: str
    about: str = ""
    figures: tuple[str, ...] = ()
    note: str = ""
    warning: bool = False
    strong: bool = field(default=False)
    found_by: str = ""
    """What else typing finds it by, after every row whose name has it."""


class ChoicePanel(ListPanel):
    """The list with its filter; letters narrow it, arrows walk it.

    Args:
        foot: What is to be said of the chosen row, in at most `foot_rows` rows below the list.
    """

    def __init__(
        self,
        *,
        title: str,
        heads: tuple[str, ...],
        choices: Callable[[View], list[Choice]],
        foot: Callable[[View, Key | None, int], list[Row]],
        foot_rows: int = 1,
        preferred: Key | None,
    ) -> None:
        super().__init__(id="choices")
        self._title = title
        self._heads = heads
        self._choices = choices
        self._foot = foot
        self.foot_rows = foot_rows
        self.chosen, self.walked = preferred, True
        self.wanted = ""
        self._current: list[Choice] = []

    def inputs(self, view: View) -> tuple[object, ...]:
        return (tuple(self._choices(view)), self.wanted)

    def offered(self, view: View) -> list[Choice]:
        """Everything there is to choose, whatever was typed."""
        return self._choices(view)

    def title(self, view: View) -> str:
        return self._title

    def remark(self, view: View, width: int) -> Row | None:
        row = Row(width)
        if self.wanted:
            return row.add(self.wanted, view.paint.wait).add("▏", view.paint.key)
        return row.add(t("choices.type"), view.paint.muted)

    def below(self, view: View) -> str:
        return t("choices.keys")

    def heading(self, view: View, width: int) -> list[Row]:
        row = Row(width).to(max(0, width - 10 * len(self._heads)), view.paint.muted)
        for head in self._heads:
            row.field(head, 10, view.paint.muted, right=True)
        return [row] if self._heads else []

    def keys(self, view: View) -> list[Key]:
        wanted = self.wanted.casefold()
        choices = self._choices(view)
        named = [choice for choice in choices if wanted in choice.name.casefold()]
        others = [choice for choice in choices if wanted in choice.found_by.casefold()] if wanted else []
        self._current = [*named, *(choice for choice in others if choice not in named)]
        return [choice.key for choice in self._current]

    def nothing(self, view: View, width: int) -> list[Row]:
        return [Row(width).add(t("choices.none", text=self.wanted), view.paint.muted)]

    def choice(self, key: Key | None) -> Choice | None:
        return next((choice for choice in self._current if choice.key == key), None)

    def row(self, view: View, key: Key, width: int) -> Row:
        paint = view.paint
        choice = self.choice(key)
        assert choice is not None
        row = Row(width).add("> " if key == self.chosen else "  ", paint.key)
        figures = 10 * len(choice.figures)
        name_cells = max(10, min(30, width - 2 - figures - 24))
        name_style = paint.bold if choice.strong else paint.text
        row.field(clip_middle(choice.name, name_cells), name_cells, name_style).add("  ", paint.text)
        row.add(choice.about, paint.muted)
        if choice.note:
            row.add("  ", paint.text)
            row.field(choice.note, max(0, row.left - figures), paint.wait if choice.warning else paint.muted)
        row.to(width - figures, paint.text)
        for figure in choice.figures:
            row.field(figure, 10, paint.text, right=True)
        return row

    def body(self, view: View, width: int, height: int) -> list[Row]:
        rows = super().body(view, width, height - 1 - self.foot_rows)
        while len(rows) < height - self.foot_rows:
            rows.append(Row(width))
        return [*rows, *self._foot(view, self.chosen, width)[: self.foot_rows]]


class ChoiceScreen(WindowScreen[object]):
    """Dismissed with the chosen outcome, or None."""

    panel: ChoicePanel
    key_help: ClassVar[tuple[tuple[str, str], ...]] = (
        ("↑ ↓ tab", "screen.choose"),
        ("a b c", "screen.narrow"),
        ("ctrl+u", "screen.empty"),
        ("↵", "screen.take"),
    )

    def wanted_size(self, width: int, height: int) -> tuple[int, int]:
        # Frame, heading, a blank row and what is said below stand around the choices.
        rows = len(self.panel.offered(self.view())) + 4 + self.panel.foot_rows
        return min(96, width - 4), min(max(9, rows), height - 4)

    def on_key(self, event: KeyEvent) -> None:
        panel = self.panel
        if event.key == "escape":
            return
        event.stop()
        event.prevent_default()
        if event.character in ("?", "？") and not panel.wanted:
            self.action_help()
            return
        if event.key == "enter":
            # Letters typed ahead narrow the list; choosing from it takes having seen it.
            if self.painted and (choice := panel.choice(panel.chosen)) is not None:
                self.dismiss(choice.outcome)
            return
        if event.key in ("down", "ctrl+n", "tab"):
            panel.move(1)
        elif event.key in ("up", "ctrl+p", "shift+tab"):
            panel.move(-1)
        elif event.key in ("backspace", "ctrl+h"):
            panel.wanted = panel.wanted[:-1]
        elif event.key == "ctrl+u":
            panel.wanted = ""
        elif event.is_printable and event.character:
            panel.wanted += event.character
        panel.redraw()
        self.moved()

    def moved(self) -> None:
        """The cursor may be on another row."""
