"""Owns how the console looks: its theme, its symbols and its language, each of which changes at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import InvalidRequest
from turbotui.symbols import Choice, guess
from turbotui.terminal import TerminalApp
from turbotui.text import choose_language, spell_keys, use_language
from turbotui.text.spoken import spoken
from turbotui.theme import Paint, Palette, greyed, textual_theme, theme_folders
from turbotui.theme_folder import ThemeFolder
from turbotui.widgets.lines import LinePanel

if TYPE_CHECKING:
    from turbotui.screens.dashboard import DashboardScreen

THEME_LOOK_S = 1.0
"""How soon an edited theme shows."""


class PaintedApp(TerminalApp):
    """An app in the colours, symbols and language that its person wants.

    Args:
        theme: By name; the default where it cannot be read, which is said.
        config_dir: Has the person's own themes.
    """

    def __init__(
        self,
        *,
        theme: str,
        language: str,
        symbols: Choice,
        config_dir: Path | None,
        mouse: bool,
        monotonic: Callable[[], float],
    ) -> None:
        use_language(choose_language(language))
        self._colourless = "NO_COLOR" in os.environ
        """As Textual takes it."""
        self._symbols_wanted = symbols
        self.symbols = guess(symbols, os.environ)
        self.themes = ThemeFolder(theme_folders(config_dir))
        palette, self._theme_problem = self.themes.first(theme)
        self._theme_wanted = theme
        self._paint_with(palette)
        super().__init__(mouse=mouse, monotonic=monotonic)
        self.animation_level = "none"
        self.register_theme(textual_theme(self.paint.palette, colourless=self._colourless))
        self.theme = self.paint.palette.name

    @property
    def dashboard(self) -> DashboardScreen:
        """The screen below all others."""
        raise NotImplementedError

    def tell_left_out(self, text: str) -> None:
        """Say what is wrong with a theme."""
        self.say(text, "error")

    def watch_themes(self) -> None:
        """From the start on: what is edited shows."""
        self.set_timer(THEME_LOOK_S / 2, self._look_at_themes)
        self.set_interval(THEME_LOOK_S, self._look_at_themes)

    def _paint_with(self, palette: Palette) -> None:
        whole_cells, colourless = self.symbols.ascii, self._colourless
        spell_keys(self.symbols.ascii)
        self.paint = Paint(palette, whole_cells=whole_cells, colourless=colourless)
        self.grey_paint = Paint(greyed(palette), whole_cells=whole_cells, colourless=colourless)

    def use_theme(self, name: str) -> None:
        """Change the colours at once; the file is read again, so an edited one shows."""
        try:
            palette = self.themes.read(name)
        except InvalidRequest as error:
            self.say(spoken(str(error)), "error")
            return
        self._theme_wanted = name
        self._paint_with(palette)
        self.register_theme(textual_theme(palette, colourless=self._colourless))
        if self.theme == palette.name:
            self._watch_theme(palette.name)  # the same name, other colours
        else:
            self.theme = palette.name
        self.dashboard.tick()
        for panel in self.screen.query(LinePanel):
            if panel.view is not None:
                panel.show(replace(panel.view, paint=self.paint))

    def _look_at_themes(self) -> None:
        """Take over what was edited; a file with errors is named and changes nothing."""
        changed, problems = self.themes.look()
        if self._theme_wanted in changed and self._theme_wanted in self.themes.names():
            self._theme_problem = None
            self.use_theme(self._theme_wanted)
        if self._theme_problem is not None:
            problems = [self._theme_problem, *(text for text in problems if text != self._theme_problem)]
            self._theme_problem = None
        if problems:
            self.tell_left_out("; ".join(map(spoken, problems)))

    def symbols_changed(self) -> None:
        self._paint_with(self.paint.palette)
        self.dashboard.redraw_all()

    def speak(self, language: str) -> None:
        """Change the language at once."""
        use_language(language)
        self.dashboard.redraw_all()
