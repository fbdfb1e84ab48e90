"""Owns what the app is to its terminal: the symbols it can be given, and how fast it takes pictures."""

from __future__ import annotations

import codecs
import io
import os
import sys
import time
from typing import TYPE_CHECKING, Any, cast

from textual import events
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.app import App

from turbotui.output import UNICODE, LeanUpdate, is_behind
from turbotui.symbols import ANSWER_S, ASK, Choice, Symbols, measured

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.filter import LineFilter
    from textual.screen import Screen

CATCH_UP_S = 0.1
BEHIND_S = 0.25
"""A terminal that keeps a picture waiting for so long is slow; less is a hitch."""
SLOW_S = 5.0
"""How long a terminal that did not keep up is taken for a slow one."""


class Surface(App[None]):
    """An app that writes less than Textual does, no more than is read, and in symbols that can be shown."""

    symbols: Symbols = UNICODE
    _symbols_wanted: Choice = "unicode"
    _symbols_cells: int = 0
    """What the terminal has said that the sample takes; 0 where it has not."""
    _symbols_asked: float = float("-inf")
    _dropped: bool = False
    """A picture was not written, so that the whole has to be drawn again."""
    _behind_since: float | None = None
    _slow_at: float = float("-inf")

    # ------------------------------------------------------------------ symbols

    def ask_for_cells(self) -> None:
        """Before the first picture, which wipes what the question leaves where it is not understood."""
        out = sys.__stderr__
        if isinstance(out, io.TextIOWrapper) and codecs.lookup(out.encoding).name != "utf-8":
            # The locale's encoding lacks our symbols, and maybe a letter of a prompt: that must not end
            # whoever writes to the terminal.
            out.reconfigure(errors="replace")
            self.symbols = Symbols(ascii=True, letters=False)
            self.symbols_changed()
        elif self._driver is not None:
            self._symbols_asked = time.monotonic()
            self._driver.write(ASK)

    def is_about_symbols(self, event: events.CursorPosition) -> bool:
        """Whether it answers `ask_for_cells`, which has not been answered yet."""
        return event.y == 0 and time.monotonic() - self._symbols_asked < ANSWER_S

    def on_cursor_position(self, event: events.CursorPosition) -> None:
        if self.is_about_symbols(event):
            self._symbols_asked = float("-inf")
            self._symbols_cells = event.x
            self.draw_with(self._symbols_wanted)

    def draw_with(self, choice: Choice) -> None:
        """Change the symbols at once."""
        self._symbols_wanted = choice
        symbols = measured(self._symbols_cells, choice, os.environ)
        if symbols != self.symbols:
            self.symbols = symbols
            self.symbols_changed()
            self.screen.refresh()

    def symbols_changed(self) -> None:
        """Draw again what is written differently with the other symbols."""

    # ------------------------------------------------------------------ pictures

    @property
    def behind(self) -> bool:
        """Whether the terminal has not yet taken the last picture: another one would only queue up."""
        if not is_behind(self._driver):
            self._behind_since = None
            return False
        now = time.monotonic()
        if self._behind_since is None:
            self._behind_since = now
        elif now - self._behind_since > BEHIND_S:
            self._slow_at = now
        return True

    @property
    def slow(self) -> bool:
        """Whether the terminal did not keep up lately."""
        return time.monotonic() - self._slow_at < SLOW_S

    def get_line_filters(self) -> Sequence[LineFilter]:
        """None without colours: Textual's make greys of them, and of dim as well, which is to be left."""
        return () if self.no_color else super().get_line_filters()

    def _display(self, screen: Screen[Any], renderable: Any) -> None:
        if self._batch_count or not isinstance(renderable, ChopsUpdate | LayoutUpdate):
            super()._display(screen, renderable)
        elif self.behind:
            if not self._dropped:
                self._dropped = True
                self.set_timer(CATCH_UP_S, self._catch_up)
            self.post_display_hook()
        else:
            update = LeanUpdate(renderable, self.symbols, colours=not self.no_color)
            super()._display(screen, cast("Any", update))

    def _catch_up(self) -> None:
        """Draw the whole again once the terminal reads on."""
        if self.behind:
            self.set_timer(CATCH_UP_S, self._catch_up)
            return
        self._dropped = False
        self.screen.refresh()
