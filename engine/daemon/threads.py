"""Calls that may hang in the kernel, kept off the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

Answer = TypeVar("Answer")


async def in_thread(call: Callable[[], Answer], *, name: str) -> Answer:
    """As `asyncio.to_thread`, in a thread that nobody waits for at the end.

    The loop's own pool is joined when it closes: a disk that does not answer would keep the engine
    from ending.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Answer] = loop.create_future()

    def settle(value: Answer | None, error: BaseException | None) -> None:
        if answer.done():  # nobody waits any more
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(value)  # type: ignore[arg-type]  # None only where the call gives None

    def run() -> None:
        value: Answer | None = None
        failed: BaseException | None = None
        try:
            value = call()
        except BaseException as error:  # whoever waits gets it
            failed = error
        with suppress(RuntimeError):  # the loop is closed: the daemon is at its end
            loop.call_soon_threadsafe(settle, value, failed)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await answer
