"""Owns what the running console has of its terminal: mouse, clipboard, being set aside, and its end.

A terminal may vanish, be slow, or belong to another program for a while; none of that may keep the console
from ending or make it act on keys that were typed into something else.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from textual import events
from textual.app import App

from turbotui.asking import AskingApp
from turbotui.clipboard import clipboard_sequence, fitting
from turbotui.echo import Echo
from turbotui.format import bytes_text
from turbotui.garbage import SETTLED_S, leave_what_stays
from turbotui.surface import Surface
from turbotui.text import t

if TYPE_CHECKING:
    from textual.driver import Driver

TERMINAL_CHECK_S = 1.0
ESCAPED_S = 0.05
"""After escape, before the key that came with it: what escape closes is closed by then."""
HARD_EXIT_S = 2.0
"""A console that was told to end and cannot (a stalled terminal) ends anyway after this."""


class TerminalApp(AskingApp, Surface):
    """An app that shares a terminal with its person."""

    def __init__(self, *, mouse: bool, monotonic: Callable[[], float]) -> None:
        super().__init__(monotonic=monotonic)
        self.mouse = mouse
        """Whether the console takes the mouse; else the terminal's own selection works."""
        self._echo = Echo(self._to_terminal, self.set_timer)
        self._aside = False
        self._signalled: int | None = None
        self._after_escape: list[events.Key] | None = None
        """Keys that wait for an escape before them to be done; None where none is."""

    def news_came(self) -> None:
        """There is something to draw that did not come while the terminal was another's."""
        raise NotImplementedError

    def get_driver_class(self) -> type[Driver]:
        usual = super().get_driver_class()
        if usual.__name__ != "LinuxDriver":
            return usual
        from turbotui.picture.driver import AskingDriver

        return AskingDriver

    def watch_terminal(self) -> None:
        """From the start on: signals, a terminal that goes, and coming back from a suspension."""
        self.app_resume_signal.subscribe(self, self._resumed)
        if not self.is_headless:
            for number in (signal.SIGHUP, signal.SIGTERM):
                signal.signal(number, self._on_signal)
            self.set_interval(TERMINAL_CHECK_S, self._check_terminal)
            self.set_timer(SETTLED_S, leave_what_stays)
            self.ask_for_cells()

    def _resumed(self, _app: App[None]) -> None:
        """Back from a suspension: whatever the shell wrote over the picture, it is sent whole."""
        self.refresh(layout=True)

    def _on_signal(self, number: int, _frame: object) -> None:
        if self._signalled is None:
            self._signalled = number
            threading.Thread(target=_exit_hard, args=(128 + number,), daemon=True).start()
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._end_by_signal)

    def _end_by_signal(self) -> None:
        self.exit(return_code=128 + (self._signalled or 0))

    def _check_terminal(self) -> None:
        """End when the terminal is gone, also where SIGHUP is ignored: Textual would spin on its end."""
        if sys.__stdin__ is None:
            return
        poll = select.poll()
        poll.register(sys.__stdin__.fileno(), 0)
        if any(flags & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _fd, flags in poll.poll(0)):
            self._on_signal(signal.SIGHUP, None)

    async def on_event(self, event: events.Event) -> None:
        """Escape and a key soon after are one sequence, which is alt and the key: what is bound decides."""
        if isinstance(event, events.Key) and not event.is_forwarded:
            if self._after_escape is not None:
                self._after_escape.append(event)
                return
            if (key := self._key_after_escape(event)) is not None:
                self._after_escape = [key]
                event = events.Key("escape", "\x1b")
                self.set_timer(ESCAPED_S, self._press_after_escape)
        await super().on_event(event)

    def _key_after_escape(self, event: events.Key) -> events.Key | None:
        """The key alone, where it came with an escape that is nothing here together with it."""
        # A terminal that tells alt from escape (kitty's keys) gives no character with it.
        if (
            not event.key.startswith("alt+")
            or not event.character
            or event.key in self.screen.active_bindings
        ):
            return None
        name = event.character if event.character.isalnum() else event.key.removeprefix("alt+")
        return events.Key(name, event.character)

    def _press_after_escape(self) -> None:
        keys, self._after_escape = self._after_escape or [], None
        for key in keys:
            self.post_message(key)

    @contextmanager
    def set_aside(self) -> Iterator[None]:
        """Leave the terminal to another program; news waits in the state, not one message for each.

        Raises:
            SuspendNotSupported: there is no terminal to leave.
        """
        with self.suspend():
            self._aside = True
            try:
                yield
            finally:
                self._aside = False
        self.news_came()

    def when_drawn(self, then: Callable[[], None]) -> None:
        """Call `then` once the person's terminal has drawn what was written before."""
        if self._driver is None or self.is_headless:
            then()
        else:
            self._echo.when_drawn(then)

    def on_cursor_position(self, event: events.CursorPosition) -> None:
        if not self.is_about_symbols(event):
            self._echo.answered()

    def toggle_mouse(self) -> None:
        """Take the mouse from the terminal, or leave it there with its own selection."""
        self.mouse = not self.mouse
        driver = self._driver
        if driver is not None and not self.is_headless:
            # Textual's own way off and on; what it remembers decides after a suspension too.
            driver._mouse = True
            if self.mouse:
                driver._enable_mouse_support()  # type: ignore[attr-defined]  # of the Linux driver
                if getattr(driver, "_mouse_pixels", False):
                    driver._enable_mouse_pixels()  # type: ignore[attr-defined]
            else:
                driver._disable_mouse_support()  # type: ignore[attr-defined]
            driver._mouse = self.mouse
        self.say(t("mouse.on" if self.mouse else "mouse.off", sign=self.key_of("mouse")))

    def _to_terminal(self, text: str) -> None:
        """Write what moves no cursor, as Textual writes its own bell: whole, between two pictures."""
        if self._driver is not None and not self.is_headless:
            self._driver.write(text)

    def copy_text(self, text: str | None) -> None:
        """Put `text` on the clipboard of the person's terminal (OSC 52), or say how much of it."""
        if text:
            fits, whole = fitting(text)
            self.copy_to_clipboard(fits)
            if whole:
                self.say(t("did.copy", text=text))
            else:
                self.say(t("copy.cut", size=bytes_text(len(text.encode("utf-8", "replace")))), "wait")
        else:
            self.say(t("copy.nothing"), "wait")

    def copy_to_clipboard(self, text: str) -> None:
        """As Textual's own, also within tmux and screen; for everybody, such as a field's own copy."""
        fits, _whole = fitting(text)
        self._clipboard = fits
        self._to_terminal(clipboard_sequence(fits, os.environ))


def _exit_hard(code: int) -> None:
    """End the process although its loop cannot: put the terminal back as far as it takes bytes."""
    time.sleep(HARD_EXIT_S)
    try:
        os.set_blocking(2, False)
        os.write(2, b"\x1b[?1049l\x1b[?25h\x1b[?1000l\x1b[?1003l\x1b[?1006l\x1b[?2004l\x1b[?1004l\x1b[<u")
    except OSError:
        pass
    os._exit(code)
