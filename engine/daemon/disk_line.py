"""Calls that touch a disk, one after the other in a thread: a disk that hangs holds them, and nobody else."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

MOST_WAITING = 1000
"""Calls behind one that hangs; more are refused."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Call:
    work: Callable[[], None]
    failed: Callable[[OSError], None]
    loop: asyncio.AbstractEventLoop


class DiskLine:
    """Keeps their order. Asked from the event loop's thread."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.Queue[_Call] = queue.Queue(MOST_WAITING)
        self._thread: threading.Thread | None = None

    def put(self, work: Callable[[], None], *, failed: Callable[[OSError], None]) -> bool:
        """Do `work` after all that was put before; False where too much waits already.

        `failed` hears on the event loop why it could not be done.
        """
        try:
            self._calls.put_nowait(_Call(work=work, failed=failed, loop=asyncio.get_running_loop()))
        except queue.Full:
            return False
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        return True

    async def done(self, timeout_s: float) -> bool:
        """Wait until all that was put so far is done; False where it is not in time."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def tell() -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(done.set)

        if not self.put(tell, failed=lambda error: None):
            return False
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await done.wait()
        return done.is_set()

    def _run(self) -> None:
        while True:
            call = self._calls.get()
            try:
                call.work()
            except OSError as error:
                with suppress(RuntimeError):
                    call.loop.call_soon_threadsafe(call.failed, error)
