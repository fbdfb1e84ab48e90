"""What a person wants warm, remembered for the workers and engines to come."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec

from engine.daemon.threads import in_thread
from engine.whole_file import write_whole
from engine.wire import Receipt


class KeptWarm:
    """Model and component of each, in memory and in a file. Event loop's thread only."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._writing = asyncio.Lock()
        self.names = _read(file)

    async def add(self, names: Iterable[tuple[str, str]]) -> str | None:
        """Keep these too; None, or why it will not be remembered."""
        return await self._set(self.names | set(names))

    async def remove(self, names: Iterable[tuple[str, str]] | None) -> str | None:
        """Keep these, or (None) any, no longer; None, or why that will not be remembered."""
        return await self._set(set() if names is None else self.names - set(names))

    async def _set(self, names: set[tuple[str, str]]) -> str | None:
        self.names = names
        async with self._writing:  # the newest goes last, whoever waits for the disk
            data = msgspec.json.encode(sorted(self.names))
            try:
                await in_thread(partial(write_whole, self._file, data), name="kept")
            except OSError as error:
                return f"{self._file} cannot be written: {error.strerror}"
        return None


def not_remembered(receipt: Receipt, problem: str | None) -> Receipt:
    """`receipt` with the `problem` that kept a wish from being remembered, if there was one."""
    if problem is None:
        return receipt
    verb = "kept warm" if receipt.action == "warm" else "let go of"
    told = f"what is {verb} will not be remembered when the engine starts again: {problem}"
    return replace(receipt, ok=False, error=f"{receipt.error}; and {told}" if receipt.error else told)


def _read(file: Path) -> set[tuple[str, str]]:
    try:
        return set(msgspec.json.decode(file.read_bytes(), type=list[tuple[str, str]]))
    except (OSError, msgspec.MsgspecError):
        return set()
