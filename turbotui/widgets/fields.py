"""Owns the fields of a form: a choice in one row, a typed value with its label, and what is said beside."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Input

from turbotui.format import clip
from turbotui.widgets.lines import LinePanel, Row, View, visible, width_of

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.binding import BindingType
    from textual.events import Click
    from textual.events import Key as KeyEvent
    from textual.strip import Strip

LABEL_CELLS = 13
VALUE_CELLS = 22
REMARK_COLUMN = LABEL_CELLS + VALUE_CELLS + 2
"""Where remarks stand below each other, if they have room there."""


class FieldSubmitted(Message):
    """Enter was pressed in a field that is no text."""


class FieldChanged(Message):
    """A field that is no text has another value."""


class ChoiceField(LinePanel, can_focus=True):
    """One of several values in one row: left and right change it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,h", "step(-1)", show=False),
        Binding("right,l,space", "step(1)", show=False),
        Binding("enter", "submit", show=False),
    ]

    def __init__(self, *, id: str, label: str, remark: Callable[[str], str]) -> None:
        super().__init__(id=id)
        self._label = label
        self._remark = remark
        self.values: list[str] = []
        self.value = ""
        self.fault = ""
        """What is wrong with it, said in place of the remark."""

    def offer(self, values: list[str], value: str) -> None:
        """What there is to choose from; an unknown `value` becomes the first."""
        self.values = values
        self.value = value if value in values else (values[0] if values else "")

    def inputs(self, view: View) -> tuple[object, ...]:
        return (self.value, tuple(self.values), self._remark(self.value), self.fault)

    def rows(self, view: View, width: int, height: int) -> list[Row]:
        paint = view.paint
        many = len(self.values) > 1
        arrows = paint.key if self.has_focus and many else paint.off
        row = Row(width).field(self._label, LABEL_CELLS, paint.focus if self.has_focus else paint.muted)
        value = clip(self.value or "-", max(8, width - LABEL_CELLS - 12))
        row.add("‹ " if many else "  ", arrows).add(value, paint.bold if self.has_focus else paint.text)
        row.add(" ›" if many else "", arrows).add("  ", paint.text)
        remark = self._remark(self.value)
        if max(width_of(remark), width_of(self.fault) + 2) <= width - REMARK_COLUMN:
            row.to(REMARK_COLUMN, paint.text)
        if self.fault:
            row.add("! ", paint.error).add(self.fault, paint.wait)
        else:
            row.add(remark, paint.muted)
        return [row]

    def action_step(self, by: int) -> None:
        if len(self.values) > 1:
            self.value = self.values[(self.values.index(self.value) + by) % len(self.values)]
            self.redraw()
            self.post_message(FieldChanged())

    def action_submit(self) -> None:
        self.post_message(FieldSubmitted())

    def on_click(self, event: Click) -> None:
        self.action_step(1)


class Words(LinePanel):
    """A label or a remark: one row that somebody else sets; `fault` is said in its place."""

    def __init__(self, text: str = "", *, id: str, label: bool = False) -> None:
        super().__init__(id=id)
        self.text = text
        self.fault = ""
        self.lit = False
        self._label = label

    def inputs(self, view: View) -> tuple[object, ...]:
        return (self.text, self.fault, self.lit)

    def rows(self, view: View, width: int, height: int) -> list[Row]:
        paint = view.paint
        if self.fault:
            return [Row(width).add("  ! ", paint.error).add(self.fault, paint.wait)]
        lead = "" if self._label else "  "
        return [Row(width).add(lead + self.text, paint.focus if self.lit else paint.muted)]


class FieldInput(Input):
    """A typed value, with readline's keys, that may know keys which no value of it can hold."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+b,left", "cursor_left", show=False),
        Binding("ctrl+f,right", "cursor_right", show=False),
        Binding("alt+b", "cursor_left_word", show=False),
        Binding("alt+f", "cursor_right_word", show=False),
        Binding("alt+d", "delete_right_word", show=False),
        Binding("alt+backspace,ctrl+backspace", "delete_left_word", show=False),
        Binding("ctrl+h", "delete_left", show=False),
    ]

    def __init__(
        self,
        *,
        id: str,
        restrict: str | None = None,
        placeholder: str = "",
        keys: dict[str, Callable[[], None]] | None = None,
    ) -> None:
        super().__init__(
            id=id, restrict=restrict, placeholder=placeholder, compact=True, select_on_focus=False
        )
        self.cursor_blink = False
        self._keys = keys or {}

    def render_line(self, y: int) -> Strip:
        return visible(super().render_line(y))

    async def _on_key(self, event: KeyEvent) -> None:
        if (act := self._keys.get(event.character or "")) is not None:
            event.stop()
            event.prevent_default()
            act()
        elif self.restrict is not None and event.character in ("?", "？"):
            event.stop()  # no value holds it: it is the screen's
            event.prevent_default()
            await self.run_action("screen.help")
        else:
            await super()._on_key(event)


class TypedField(Horizontal):
    """Label, value and remark in one row."""

    DEFAULT_CSS = """
    TypedField { height: 1; width: 100%; }
    TypedField Words { height: 1; width: 1fr; }
    TypedField .label { width: 13; }
    TypedField Input { width: 22; background: $panel; }
    TypedField Input>.input--placeholder { color: $muted; }
    TypedField Input:focus { background: $selected 60%; }
    """

    def __init__(self, label: str, value: FieldInput) -> None:
        super().__init__(id=f"{value.id}_row")
        self.label = Words(label, id=f"{value.id}_label", label=True)
        self.label.add_class("label")
        self.value = value
        self.remark = Words(id=f"{value.id}_remark")

    def compose(self) -> ComposeResult:
        yield self.label
        yield self.value
        yield self.remark

    def say(self, text: str, fault: str = "") -> None:
        """What stands beside the value; a fault before anything else."""
        self.remark.text, self.remark.fault = text, fault
        self.label.lit = self.value.has_focus


def fitting(texts: tuple[str, ...], cells: int) -> str:
    """The first of `texts`, longest first, that has room; the last where none has."""
    return next((text for text in texts if width_of(text) <= cells), texts[-1])
