"""One engine from its start to its end: who it is, how it stands, and when it stops."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

from engine.daemon.lock import EngineLock
from engine.daemon.logbook import LogBook
from engine.daemon.queue import QueueRunner
from engine.errors import NotNow
from engine.jobs.liveness import read_start_time
from engine.paths import user_name
from engine.version import build_id
from engine.wire import WIRE_VERSION, Hello

State: TypeAlias = Literal["starting", "ready", "stopping"]


class Life:
    """Of this process's engine. Event loop's thread only."""

    def __init__(
        self,
        instance: str,
        lock: EngineLock,
        queue: QueueRunner,
        logbook: LogBook,
        *,
        home: Path,
        schema: int,
        on_change: Callable[[], None],
    ) -> None:
        """`lock` guards `home`, the state directory; `schema` is that of the job store."""
        self.build = build_id()
        self.instance = instance
        self.state: State = "starting"
        self.started_at = time.time()
        self._started = time.monotonic()
        self._lock = lock
        self._queue = queue
        self._logbook = logbook
        self._home = home
        self._schema = schema
        self._on_change = on_change
        self._ended = asyncio.Event()

    def hello(self) -> Hello:
        """Who answers on the socket."""
        return Hello(
            wire=WIRE_VERSION,
            build=self.build,
            schema=self._schema,
            pid=os.getpid(),
            start_time=read_start_time(os.getpid()) or 0.0,
            instance=self.instance,
            host=socket.gethostname(),
            user=user_name(),
        )

    @property
    def uptime_s(self) -> float:
        return time.monotonic() - self._started

    @property
    def stopping(self) -> bool:
        return self.state == "stopping"

    def ready(self) -> None:
        """All parts run."""
        self.state = "ready"

    def request_stop(self, *, after_job: bool = False) -> None:
        """End the engine, at once or after the running job."""
        running = self._queue.running
        self._queue.drain()
        if not self.stopping:
            self.state = "stopping"
            wait = f" after job {running.id}" if after_job and running else ""
            self._logbook.write("engine", f"engine stops{wait}")
            self._on_change()
        if not after_job or running is None:
            self._ended.set()

    def refuse_when_stopping(self) -> None:
        """Refuse new work that this engine would not begin.

        Raises:
            NotNow: it stops.
        """
        if self.stopping:
            raise NotNow("the engine is stopping; submit again once it has been started")

    def look(self) -> None:
        """Once a second: stop when the last job has ended, and when the state directory is gone."""
        if not self.stopping and not self._lock.still_held():
            self._logbook.write("engine", f"{self._home} was removed; nothing can be kept", level="error")
            self.request_stop()
        elif self.stopping and self._queue.running is None:
            self._ended.set()

    async def wait_ended(self) -> None:
        """Until it is time to stop everything."""
        await self._ended.wait()
