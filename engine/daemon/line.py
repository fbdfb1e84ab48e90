"""The line for the device: one has it, the others wait in the order in which they asked.

What was asked first is served first, with one exception: a hard cleanup has the next turn. It has
ended the worker of whoever had the device, and those who waited find what it brings back.
"""

from __future__ import annotations

import asyncio
from collections import deque


class DeviceLine:
    """A lock that is handed on to whoever is next. Event loop's thread only."""

    def __init__(self) -> None:
        self._held = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    def locked(self) -> bool:
        return self._held

    async def acquire(self, *, first: bool = False) -> bool:
        """Wait for the device, with `first` before all others who wait; always True."""
        if not self._held:
            self._held = True
            return True
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if first:
            self._waiting.appendleft(turn)
        else:
            self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release()  # it was given at the last moment to one who does not want it any more
            elif turn in self._waiting:  # else `release` has passed it over already
                self._waiting.remove(turn)
            raise
        return True

    def release(self) -> None:
        """Hand the device on to whoever is next: nobody can come between."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._held = False

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *_: object) -> None:
        self.release()
