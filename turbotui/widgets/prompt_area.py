"""Owns the text area that a prompt is written in."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding
from textual.message import Message
from textual.widgets import TextArea

from turbotui.draft import typeable
from turbotui.widgets.lines import visible

if TYPE_CHECKING:
    from textual.binding import BindingType
    from textual.events import Key as KeyEvent
    from textual.events import Paste
    from textual.strip import Strip

MOST = 20_000
"""Characters that are taken at once where the engine does not tell how many it accepts."""
BURST_S = 0.02
BURST_KEYS = 12
"""So many keys within BURST_S were pasted, by a terminal that does not say so."""


class PromptArea(TextArea):
    """Enter submits, since a prompt is mostly one paragraph; ctrl+j breaks the line.

    At its first and last row up and down go on to the fields beside it.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("alt+b", "cursor_word_left", show=False),
        Binding("alt+f", "cursor_word_right", show=False),
        Binding("alt+d", "delete_word_right", show=False),
        Binding("ctrl+f", "cursor_right", show=False),
        Binding("ctrl+b", "cursor_left", show=False),
        Binding("ctrl+p", "cursor_up", show=False),
        Binding("ctrl+n", "cursor_down", show=False),
        Binding("ctrl+h", "delete_left", show=False),
    ]

    class Submitted(Message):
        """Enter was pressed in the prompt."""

    class CutShort(Message):
        """More was pasted than is taken."""

        def __init__(self, given: int, kept: int) -> None:
            super().__init__()
            self.given = given
            self.kept = kept

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id, soft_wrap=True, show_line_numbers=False, compact=True)
        self.cursor_blink = False
        self.most = MOST
        """Characters of a prompt at most. What stood elsewhere already, in an editor, is kept beyond it."""
        self._key_times: deque[float] = deque(maxlen=BURST_KEYS)

    def render_line(self, y: int) -> Strip:
        return visible(super().render_line(y))

    async def _on_key(self, event: KeyEvent) -> None:
        self._key_times.append(event.time)
        pasted = len(self._key_times) == BURST_KEYS and event.time - self._key_times[0] < BURST_S
        if event.key == "enter":
            event.stop()
            event.prevent_default()
            if pasted:
                # Some multiplexers pass a paste on as keys: its lines are one prompt all the same, and the
                # letters after a line's end must not become the dashboard's keys.
                self.insert("\n")
            else:
                self.post_message(self.Submitted())
        elif event.key == "ctrl+j":
            event.stop()
            event.prevent_default()
            self.insert("\n")
        else:
            await super()._on_key(event)

    async def _on_paste(self, event: Paste) -> None:
        event.stop()
        event.prevent_default()
        text = typeable(event.text)
        room = max(0, self.most - len(self.text) + len(self.selected_text))
        if len(text) > room:
            self.post_message(self.CutShort(len(text), room))
        self.replace(text[:room], *self.selection)

    def action_cursor_up(self, select: bool = False) -> None:
        if not select and self.wrapped_document.location_to_offset(self.cursor_location).y == 0:
            self.screen.focus_previous()
        else:
            super().action_cursor_up(select)

    def action_cursor_down(self, select: bool = False) -> None:
        last = self.wrapped_document.height - 1
        if not select and self.wrapped_document.location_to_offset(self.cursor_location).y >= last:
            self.screen.focus_next()
        else:
            super().action_cursor_down(select)

    def take(self, text: str) -> None:
        """Put `text` in place of everything, as one change that ctrl+z takes back."""
        self.replace(typeable(text)[: max(MOST, self.most)], self.document.start, self.document.end)
        self.move_cursor(self.document.end)
