"""The device given back to others where the settings say so: after long rest, or when it is full."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

from engine.config import EngineConfig
from engine.daemon.actions import Actions
from engine.daemon.logbook import LogBook
from engine.daemon.memory import MemoryView
from engine.daemon.queue import QueueRunner
from engine.daemon.supervisor import Supervisor
from engine.wire import Receipt


class Unasked:
    """Parks and frees without being asked, one at a time. Event loop's thread only."""

    def __init__(
        self,
        config: EngineConfig,
        actions: Actions,
        supervisor: Supervisor,
        queue: QueueRunner,
        memory: MemoryView,
        logbook: LogBook,
    ) -> None:
        self._config = config
        self._actions = actions
        self._supervisor = supervisor
        self._queue = queue
        self._memory = memory
        self._logbook = logbook
        self._acting: asyncio.Task[Receipt] | None = None

    def look(self) -> None:
        """Once a second."""
        supervisor = self._supervisor
        if self._acting is not None and not self._acting.done():
            return
        if supervisor.worker is None or supervisor.device_lock.locked() or self._queue.running is not None:
            return
        rest_s = self._config.idle_unload_s
        if rest_s and time.monotonic() - supervisor.used_at > rest_s:
            self._logbook.write("park", f"nothing was asked for {rest_s:g} s: everything leaves the device")
            self._begin(self._actions.park())
        elif self._memory.others_press() and supervisor.residents.resident_bytes():
            text = "others need what engine.keep_free_bytes keeps for them"
            self._logbook.write("free", text, memory=True)
            self._begin(self._actions.free())

    def _begin(self, action: Coroutine[Any, Any, Receipt]) -> None:
        self._acting = asyncio.create_task(action)
        self._acting.add_done_callback(lambda done: done.cancelled() or done.exception())
