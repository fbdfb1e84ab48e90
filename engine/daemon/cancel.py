"""A person's wish to give up one action, from before it begins until its receipt."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from engine.errors import JobCancelled

Answer = TypeVar("Answer")


class Cancel:
    """One action's. Event loop's thread only."""

    def __init__(self, target: str) -> None:
        """`target` is what the action is about, as its receipt names it."""
        self.target = target
        self._asked = asyncio.Event()
        self._tell: Callable[[], None] | None = None

    @property
    def asked(self) -> bool:
        return self._asked.is_set()

    def ask(self) -> None:
        """Give it up. Whoever works on it is told; asked again, they are told again."""
        self._asked.set()
        if self._tell is not None:
            self._tell()

    def tell(self, tell: Callable[[], None] | None) -> None:
        """Who works on it from now on, or (None) nobody any more; told at once where it was asked before."""
        self._tell = tell
        if tell is not None and self.asked:
            tell()

    async def unless(self, work: Awaitable[Answer]) -> Answer:
        """What `work` gives, unless it is given up first; `work` is then cancelled.

        Raises:
            JobCancelled: it was.
        """
        doing = asyncio.ensure_future(work)
        asked = asyncio.ensure_future(self._asked.wait())
        try:
            await asyncio.wait({doing, asked}, return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                doing.cancel()
                await asyncio.wait({doing})
            if doing.cancelled() and self.asked:
                raise JobCancelled("cancelled before anything was moved")
            return doing.result()  # also where it was done at the last moment: what it took is not lost
        finally:
            asked.cancel()
            doing.cancel()
