"""Owns reading a terminal whose answers about pictures come among the keys.

Textual would take what it does not know for keys that were pressed.
"""

from __future__ import annotations

import os
import selectors
from codecs import getincrementaldecoder
from collections.abc import Iterable
from typing import TYPE_CHECKING

from textual._parser import ParseError
from textual._xterm_parser import XTermParser
from textual.drivers.linux_driver import LinuxDriver
from textual.message import Message

from turbotui.pastes import Pastes
from turbotui.picture.asking import Replies, may_ask

if TYPE_CHECKING:
    from textual.app import App

TICK_S = 0.1


class AskingDriver(LinuxDriver):
    """Textual's own, but for `replies`."""

    def __init__(
        self,
        app: App[object],
        *,
        debug: bool = False,
        mouse: bool = True,
        size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(app, debug=debug, mouse=mouse, size=size)
        self.replies = Replies()

    def ask(self) -> None:
        """Ask once what pictures the terminal takes; `replies` knows when it has said."""
        if not self.replies.asked and may_ask(os.environ):
            self.write(self.replies.ask())
            self.flush()

    def run_input_thread(self) -> None:
        """Until the driver ends: keys and all else to the app, answers to `replies`."""
        parser = XTermParser(self._debug)
        pastes = Pastes()
        # A byte that is no UTF-8 (another locale, a line that tears) costs itself, not the console.
        decode = getincrementaldecoder("utf-8")(errors="replace").decode

        def tell(messages: Iterable[Message]) -> None:
            for message in messages:
                self.process_message(message)

        with selectors.SelectSelector() as selector:
            selector.register(self.fileno, selectors.EVENT_READ)
            ending = False
            try:
                while not ending:
                    ending = self.exit_event.is_set()
                    text = ""
                    if selector.select(TICK_S):
                        data = os.read(self.fileno, 4096)
                        if not data:  # its other end is gone: the app looks after that
                            self.exit_event.wait(TICK_S)
                        text = decode(data, final=ending)
                    else:
                        pastes.waited()
                    if text := pastes.keys_of(self.replies.keys_of(text)):
                        tell(parser.feed(text))
                    tell(parser.tick())
            finally:
                try:
                    tell(parser.feed(""))
                except (EOFError, ParseError):
                    pass
