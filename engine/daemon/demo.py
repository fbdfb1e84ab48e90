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
from engine.errors import WorkFailed
from engine.worker.entry import make_demo_models as make_in_child


async def make_demo_models(nursery: Nursery, models: Path, logbook: LogBook) -> None:
    """Make them below `models`; returns when they are complete.

    Raises:
        WorkFailed: the process failed; its own words are in the engine's log.
    """
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
        process = await nursery.fork(make_in_child, theirs, nursery.pid, str(models))
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
