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
"""What was asked is not waited for any longer."""
LATE_S = 10.0
"""An answer may still come until then, and is not taken for the next one's."""
TRIES = 3
"""A terminal that answered none of so many questions is asked no more."""


class _Question:
    """One that was asked; `then` goes once it was called."""

    __slots__ = ("then",)

    def __init__(self, then: Callable[[], None]) -> None:
        self.then: Callable[[], None] | None = then


class Echo:
    """Calls back once the terminal has drawn all that was written before."""

    def __init__(
        self, write: Callable[[str], None], later: Callable[[float, Callable[[], None]], object]
    ) -> None:
        """`write` puts bytes behind the picture, `later` calls a function after so many seconds."""
        self._write = write
        self._later = later
        self._waiting: deque[_Question] = deque()
        self._in_vain = 0
        """Questions without an answer in a terminal that never gave one."""
        self._answers = False

    def when_drawn(self, then: Callable[[], None]) -> None:
        if self._in_vain >= TRIES and not self._answers:
            then()
            return
        question = _Question(then)
        self._waiting.append(question)
        self._write(ASK)
        self._later(WAIT_S, lambda: self._given_up(question))

    def answered(self) -> None:
        """The terminal has said where its cursor is."""
        if self._waiting:
            # A hitch is none: from here on it is known to answer.
            self._answers = True
            _call(self._waiting.popleft())

    def _given_up(self, question: _Question) -> None:
        if question.then is None:
            return
        self._in_vain += 1
        self._later(LATE_S, lambda: self._forget(question))
        _call(question)

    def _forget(self, question: _Question) -> None:
        if question in self._waiting:
            self._waiting.remove(question)


def _call(question: _Question) -> None:
    then, question.then = question.then, None
    if then is not None:
        then()
