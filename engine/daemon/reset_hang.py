"""A reset that does not end, of this engine or of one before it: we keep away from the GPUs until it has.

Keeping away needs no disk and comes first. What is owed after it, persistence mode above all, is done
by whoever watches it to its end. Event loop's thread only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from engine.daemon.own_processes import OwnProcesses


class HangingReset:
    """One at a time."""

    def __init__(self, own: OwnProcesses, *, log: Callable[[str], None]) -> None:
        self.why: str | None = None
        """Why no other reset may begin, while it runs and while what is owed after it is done."""
        self._own = own
        self._log = log
        self._watching: asyncio.Task[None] | None = None

    def begin(
        self, name: str, why: str, wait: Callable[[], Awaitable[None]], after: Callable[[], Awaitable[None]]
    ) -> None:
        """Keep all of ours away until `wait` returns; then bring it back, and do what `after` owes."""
        self.why = why
        self._own.keep_away(why)
        self._log(why)
        self._watch(name, wait, after)

    def owe(self, name: str, after: Callable[[], Awaitable[None]]) -> None:
        """It has ended already; `after` is still owed."""
        self._watch(name, None, after)

    def close(self) -> None:
        """The engine ends, the reset may go on: nothing is waited for or brought back any more."""
        if self._watching is not None:
            self._watching.cancel()

    def _watch(
        self, name: str, wait: Callable[[], Awaitable[None]] | None, after: Callable[[], Awaitable[None]]
    ) -> None:
        self._watching = asyncio.create_task(self._wait(name, wait, after))
        self._watching.add_done_callback(self._watched)

    async def _wait(
        self, name: str, wait: Callable[[], Awaitable[None]] | None, after: Callable[[], Awaitable[None]]
    ) -> None:
        if wait is not None:
            await wait()
        self.why = f"the reset of {name} has ended, and what it left is looked after; ask again in a minute"
        if wait is not None:
            self._own.keep_away(None)
            self._own.bring_back()
        await after()

    def _watched(self, task: asyncio.Task[None]) -> None:
        self.why = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log(f"what a reset left could not be looked after: {type(error).__name__}: {error}")
