"""Lets a question wait for the device: for a moment after the start nobody has looked at it yet."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from engine.daemon.devices import DeviceInUse
from engine.daemon.memory import MemoryView
from engine.errors import NotNow

FIRST_READING_S = 3.0
"""A probe reads the device within its first second; one that takes longer is not well."""


class FirstReading:
    """Whether the device in use has been chosen and read. Event loop's thread only."""

    def __init__(
        self, memory: MemoryView, device: DeviceInUse, *, timeout_s: float = FIRST_READING_S
    ) -> None:
        self._memory = memory
        self._device = device
        self._timeout_s = timeout_s
        self._settled = asyncio.Event()

    def look(self) -> None:
        """Called whenever the probe has said something or a device may have been chosen."""
        if self._memory.budget() is not None or self._device.problem is not None:
            self._settled.set()
        else:
            self._settled.clear()

    async def wait(self) -> None:
        """Until the device has been read; at once from the first reading on.

        Raises:
            NotNow: there is no device that can be used, or it was not read within the time.
        """
        self.look()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout_s):
                await self._settled.wait()
        if self._device.problem is not None:
            raise NotNow(self._device.problem)
        if self._memory.budget() is None:
            raise NotNow(
                f"the device was not read within {self._timeout_s:g} s; "
                "`turbotui status` and `turbotui logs` say what the probe does"
            )
