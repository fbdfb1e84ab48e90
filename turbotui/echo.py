"""Owns knowing that the terminal has drawn something: it is asked for its cursor, and answers in turn.

What was typed before a dialog was in sight comes before that answer, however slow the link is: a
terminal sends keys and answers in one order. tmux and screen answer in the terminal's place, so that
behind them it is known of them alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

ASK = "\x1b[6n"
WAIT_S = 1.0
"""A terminal that does not answer within it is not asked again."""


class Echo:
    """Calls back once the terminal has drawn all that was written before."""

    def __init__(
        self, write: Callable[[str], None], later: Callable[[float, Callable[[], None]], object]
    ) -> None:
        """`write` puts bytes behind the picture, `later` calls a function after so many seconds."""
        self._write = write
        self._later = later
        self._waiting: deque[Callable[[], None]] = deque()
        self._silent = False

    def when_drawn(self, then: Callable[[], None]) -> None:
        if self._silent:
            then()
            return
        self._waiting.append(then)
        self._write(ASK)
        self._later(WAIT_S, lambda: self._given_up(then))

    def answered(self) -> None:
        """The terminal has said where its cursor is."""
        if self._waiting:
            self._waiting.popleft()()

    def _given_up(self, then: Callable[[], None]) -> None:
        if then in self._waiting:
            self._silent = True
            self._waiting.remove(then)
            then()
