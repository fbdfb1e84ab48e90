"""Owns a question that does not fit in a few lines: what it is about scrolls, the answers stay in sight."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from turbotui.screens.confirm import ConfirmPanel, ConfirmScreen
from turbotui.text import t
from turbotui.widgets.lines import Row, View, wrapped

if TYPE_CHECKING:
    from rich.style import Style
    from textual.events import Key as KeyEvent

NAME_CELLS = 14


class LongConfirmPanel(ConfirmPanel):
    """A ConfirmPanel whose facts are rows of its own."""

    def __init__(self, *, title: str, loss: str, answers: tuple[tuple[str, object], ...]) -> None:
        super().__init__(title=title, facts=(), loss=loss, answers=answers)
        self.top = 0
        self.said = ""
        """Why a key did not do what it would have."""
        self._more = 0

    def parts(self, view: View, width: int) -> list[Row]:
        """What the question is about."""
        raise NotImplementedError

    def asked(self, view: View, width: int) -> list[Row]:
        """What is to be filled in, above the answers."""
        return []

    def cursor(self) -> int | None:
        """The row of `parts` that must be in sight."""
        return None

    def inputs(self, view: View) -> tuple[object, ...]:
        return (self.place, self.top, self.said)

    def below(self, view: View) -> str:
        more = t("list.more", count=self._more) + "  " if self._more > 0 else ""
        return more + self.keys_text()

    def keys_text(self) -> str:
        return t("confirm.keys_long")

    def wanted_rows(self, view: View, width: int) -> int:
        """Rows within the frame that show everything."""
        return len(self.parts(view, width)) + len(self._foot(view, width))

    def _foot(self, view: View, width: int) -> list[Row]:
        paint = view.paint
        rows = [Row(width)]
        rows += [Row(width).add(line, paint.wait) for line in wrapped(self.loss, width)]
        rows += self.asked(view, width)
        if self.said:
            rows += [Row(width).add(line, paint.error) for line in wrapped(self.said, width)]
        buttons = Row(width)
        for place, (label, _outcome) in enumerate(self.answers):
            style = paint.chosen_tab if place == self.place else paint.text
            buttons.add(f"  {label}  ", style).add("  ", paint.text)
        return [*rows, Row(width), buttons]

    def body(self, view: View, width: int, height: int) -> list[Row]:
        parts, foot = self.parts(view, width), self._foot(view, width)
        foot = foot[-height:]
        room = max(0, height - len(foot))
        if (cursor := self.cursor()) is not None and room:
            self.top = max(min(self.top, cursor), cursor - room + 1)
        self.top = max(0, min(self.top, len(parts) - room))
        shown = parts[self.top : self.top + room]
        self._more = len(parts) - self.top - len(shown)
        shown += [Row(width) for _ in range(room - len(shown))]
        return shown + foot

    def scroll(self, by: int) -> None:
        self.top += by
        self.redraw()

    def say(self, text: str) -> None:
        self.said = text
        self.redraw()


def fact(width: int, name: str, text: str, name_style: Style, style: Style) -> list[Row]:
    """A named fact, wrapped beside its name."""
    rows = []
    for place, line in enumerate(wrapped(text, max(1, width - NAME_CELLS))):
        row = Row(width).field(name if place == 0 else "", NAME_CELLS, name_style)
        rows.append(row.add(line, style))
    return rows


class LongConfirmScreen(ConfirmScreen):
    """Up and down scroll, or walk what there is to tick."""

    panel: LongConfirmPanel
    key_help: ClassVar[tuple[tuple[str, str], ...]] = (
        ("↑ ↓", "screen.scroll"),
        *ConfirmScreen.key_help,
    )

    def wanted_size(self, width: int, height: int) -> tuple[int, int]:
        columns = min(96, width - 2)
        return columns, min(self.panel.wanted_rows(self.view(), columns - 4) + 2, height - 2)

    def walk(self, by: int) -> None:
        """Up or down."""
        self.panel.scroll(by)

    def on_key(self, event: KeyEvent) -> None:
        step = {"down": 1, "j": 1, "up": -1, "k": -1, "pagedown": 8, "pageup": -8}.get(event.key)
        if step is None:
            super().on_key(event)
            return
        event.stop()
        event.prevent_default()
        if self.painted:
            self.panel.said = ""
            self.walk(step)
