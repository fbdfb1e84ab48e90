"""The steps of an action that the daemon itself takes, as its receipt tells them."""

from __future__ import annotations

import time
from collections.abc import Callable

from engine.wire import ReceiptStep


class Steps:
    """One step begins where the last one ended, so that together they take as long as the action."""

    def __init__(self, told: Callable[[ReceiptStep], None]) -> None:
        """`told` is called with each step as it ends."""
        self.began = time.monotonic()
        self.taken: list[ReceiptStep] = []
        self._last = self.began
        self._told = told

    @property
    def elapsed_s(self) -> float:
        """Until the end of the newest step."""
        return self._last - self.began

    def took(self, step: ReceiptStep) -> None:
        """A step that the worker took and told itself; one that is still under way is none yet."""
        if step.total_bytes is not None:
            return
        self.taken.append(step)
        self._last = time.monotonic()

    def ended(self, name: str, num_bytes: int | None = None) -> None:
        now = time.monotonic()
        self.taken.append(ReceiptStep(name=name, bytes=num_bytes, elapsed_s=now - self._last))
        self._last = now
        self._told(self.taken[-1])
