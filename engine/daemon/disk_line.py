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
    told: Callable[[OSError | None], None]
    loop: asyncio.AbstractEventLoop


class DiskLine:
    """Keeps their order. Asked from the event loop's thread."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.Queue[_Call] = queue.Queue(MOST_WAITING)
        self._thread: threading.Thread | None = None

    def put(self, work: Callable[[], None], *, told: Callable[[OSError | None], None]) -> bool:
        """Do `work` after all that was put before; False where too much waits already.

        `told` hears on the event loop that it is done, or why it could not be.
        """
        try:
            self._calls.put_nowait(_Call(work=work, told=told, loop=asyncio.get_running_loop()))
        except queue.Full:
            return False
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        return True

    async def done(self, timeout_s: float) -> bool:
        """Wait until all that was put so far is done; False where it is not in time."""
        done = asyncio.Event()
        if not self.put(lambda: None, told=lambda _error: done.set()):
            return False
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await done.wait()
        return done.is_set()

    def _run(self) -> None:
        while True:
            call = self._calls.get()
            failure: OSError | None = None
            try:
                call.work()
            except OSError as error:
                failure = error
            with suppress(RuntimeError):  # the loop is closed: the daemon is at its end
                call.loop.call_soon_threadsafe(call.told, failure)
