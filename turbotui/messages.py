"""Owns what the console's threads tell the app: each is posted from a thread, handled in the loop.

The threads only post. Whoever posts StateChanged has already put the new state where the app
reads it, so a newer one may replace an older one that still waits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from textual.message import Message


class StateChanged(Message):
    """There is a newer state to draw."""

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, StateChanged)


class CallEnded(Message):
    """A question to the engine was answered, or failed."""

    def __init__(
        self,
        call_id: int,
        *,
        result: Any = None,
        error: str | None = None,
        then: Callable[[Any], None] | None = None,
        failed: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__()
        self.call_id = call_id
        self.result = result
        self.error = error
        self.then = then
        self.failed = failed
