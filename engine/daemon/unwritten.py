"""What the disk has refused to take, tried again until it takes it, while everything else goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from engine.errors import EngineError, StorageUnusable

RETRY_S = 1.0
"""Between two tries."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Write:
    what: str
    call: Callable[[], None]


class Unwritten:
    """Writes to the job store, in the order in which they were asked for. Event loop's thread only."""

    def __init__(self, *, on_refused: Callable[[str], None], on_taken: Callable[[], None]) -> None:
        """`on_refused` hears each new reason once; `on_taken` runs when nothing is left to be written."""
        self._on_refused = on_refused
        self._on_taken = on_taken
        self._waiting: list[_Write] = []
        self._reason: str | None = None
        self._trying: asyncio.Task[None] | None = None

    @property
    def problem(self) -> str | None:
        """What is still to be written, and why it is not; None where nothing is."""
        if not self._waiting:
            return None
        what = ", ".join(write.what for write in self._waiting)
        return f"{what} cannot be written down yet, which is tried again: {self._reason}"

    def waits(self, what: str) -> bool:
        """Whether the write of this name is still to be done."""
        return any(write.what == what for write in self._waiting)

    def forget(self, what: str) -> None:
        """It is not wanted any more."""
        self._waiting = [write for write in self._waiting if write.what != what]

    def write(self, what: str, call: Callable[[], None]) -> bool:
        """Do `call` now, or once the disk takes it and what came before; whether it was done now.

        What else it raises is the caller's where it was tried now.
        """
        if not self._waiting:
            try:
                call()
                return True
            except StorageUnusable as error:
                self._reason = str(error)
        self._waiting.append(_Write(what=what, call=call))
        self._on_refused(self.problem or what)
        if self._trying is None or self._trying.done():
            self._trying = asyncio.create_task(self._try_again())
        return False

    async def _try_again(self) -> None:
        while self._waiting:
            await asyncio.sleep(RETRY_S)
            if not self._waiting:
                break  # forgotten meanwhile
            write = self._waiting[0]
            try:
                write.call()
            except StorageUnusable as error:
                if self._reason != str(error):
                    self._reason = str(error)
                    self._on_refused(self.problem or write.what)
                continue
            except EngineError as error:  # it has become pointless: the job was settled by another
                self._on_refused(f"{write.what} is not written down any more: {error}")
            self.forget(write.what)
        self._on_taken()
