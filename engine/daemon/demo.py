"""Has the demo models made, in a process of its own: forked from the nursery, or the slow way."""

from __future__ import annotations

import asyncio
import sys
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from engine.daemon.logbook import LogBook
from engine.daemon.nursery import Nursery
from engine.errors import NotNow, WorkFailed
from engine.worker.entry import make_demo_models


class DemoModels:
    """Made once for all who ask meanwhile. Event loop's thread only."""

    def __init__(self, nursery: Nursery, models: Path, logbook: LogBook) -> None:
        """They go below `models`."""
        self._nursery = nursery
        self._models = models
        self._logbook = logbook
        self._making: asyncio.Task[None] | None = None

    async def make(self) -> None:
        """Returns when they are complete.

        Raises:
            WorkFailed: the process failed; its own words are in the engine's log.
            NotNow: the engine ended meanwhile.
        """
        if self._making is None:
            self._making = asyncio.create_task(_make(self._nursery, self._models, self._logbook))
        making = self._making
        try:
            await asyncio.shield(making)
        except asyncio.CancelledError:
            if making.cancelled():
                raise NotNow("the engine stops before the demo models are made") from None
            raise
        finally:
            if making.done() and self._making is making:
                self._making = None

    def close(self) -> None:
        """Give up."""
        if self._making is not None:
            self._making.cancel()


async def _make(nursery: Nursery, models: Path, logbook: LogBook) -> None:
    models.mkdir(parents=True, exist_ok=True)
    logbook.write("models", "making the demo models")
    if await nursery.wait_settled() == "ready":
        code = await _make_forked(nursery, models, logbook)
    else:
        code = await _make_slowly(models, logbook)
    if code != 0:
        raise WorkFailed(
            f"the demo models could not be made below {models} (exit code {code}); "
            "`turbotui logs` has the reason, a full disk being the likeliest"
        )
    logbook.write("models", "the demo models are ready")


async def _make_forked(nursery: Nursery, models: Path, logbook: LogBook) -> int:
    ours, theirs = Pipe(duplex=False)
    try:
        process = await nursery.fork(make_demo_models, theirs, nursery.pid, str(models))
    finally:
        theirs.close()
    try:
        while (text := await asyncio.to_thread(_receive, ours)) is not None:
            logbook.write("models", text)
        await asyncio.to_thread(process.join)
    finally:
        ours.close()
    return int(process.exitcode or 0)


async def _make_slowly(models: Path, logbook: LogBook) -> int:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "engine.models.demo",
        str(models),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=models,
    )
    assert process.stdout is not None
    async for line in process.stdout:
        logbook.write("models", line.decode("utf-8", "replace").strip())
    return await process.wait()


def _receive(connection: Connection[Any, Any]) -> str | None:
    try:
        return connection.recv_bytes().decode("utf-8", "replace")
    except EOFError:
        return None
