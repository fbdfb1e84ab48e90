"""A worker's start: what it is started with, and what it tells until it is ready."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.config import EngineConfig
from engine.daemon.answers import fail
from engine.daemon.nursery import Nursery
from engine.daemon.rates import Rates
from engine.daemon.worker import WorkerExit, WorkerProcess, start_worker
from engine.errors import WorkerDied
from engine.models.layout import vae_precision_on
from engine.planning.allocator import choose_allocator
from engine.worker.channel import Connected, FromWorker, Wanted, WorkerReady, WorkerSettings


class WorkerStarter:
    """Starts workers, one after the other. Event loop's thread only."""

    def __init__(
        self, config: EngineConfig, *, embeddings: Path, nursery: Nursery, rates: Rates, log_path: Path
    ) -> None:
        """`embeddings` is the folder of those of earlier prompts, `log_path` what workers print to."""
        self._config = config
        self._embeddings = embeddings
        self._nursery = nursery
        self.rates = rates
        self._log_path = log_path
        self._allocator = choose_allocator(config.allocator)
        self._connected = asyncio.Event()
        self._ready: asyncio.Future[WorkerReady] | None = None
        self.ready_s: float | None = None
        """What the newest start took; None before its worker was ready."""
        self.allocator_told: str | None = None
        """The allocator's settings as the newest worker told them."""

    @property
    def allocator_reason(self) -> str | None:
        """Why the settings were asked for, or which did not come true; None before a worker told."""
        return None if self.allocator_told is None else self._allocator.outcome(self.allocator_told)

    async def start(
        self,
        device_id: str,
        opened: tuple[Wanted, ...],
        *,
        on_message: Callable[[WorkerProcess, FromWorker], None],
        on_exit: Callable[[WorkerProcess, WorkerExit], None],
    ) -> WorkerProcess:
        """The process of a worker for the device, which looks at the files of `opened` meanwhile.

        Raises:
            WorkerDied: there is none.
        """
        self.ready_s = None
        self._ready = asyncio.get_running_loop().create_future()
        return await start_worker(
            device_id,
            self._nursery,
            WorkerSettings(
                warm_budget_bytes=self._config.warm_budget_bytes,
                stream=self._config.stream,
                ring_rate=self.rates.ring(device_id),
                allocator=self._allocator.settings,
                vae_precision=vae_precision_on(device_id, self._config.vae_precision),
                embeddings=str(self._embeddings),
                embeddings_bytes=self._config.embedding_cache_bytes,
                preview=self._config.preview,
                nan_guard=self._config.nan_guard,
                opened=opened,
            ),
            needs_fresh_import=self._allocator.needs_fresh_import,
            log_path=self._log_path,
            on_message=on_message,
            on_exit=on_exit,
        )

    async def ready(self, worker: WorkerProcess) -> WorkerReady:
        """What `worker`, the one started last, says when it can take work.

        Raises:
            WorkerDied: before it was.
        """
        assert self._ready is not None
        ready = await self._ready
        self.ready_s = round(time.monotonic() - worker.asked_at, 3)
        self.allocator_told = ready.allocator
        return ready

    async def connected(self, starting: asyncio.Future[WorkerProcess], *, timeout_s: float) -> bool:
        """Wait for the context of the worker that `starting` brings; False where it does not come in time."""
        event = self._connected
        connected = asyncio.ensure_future(event.wait())
        waits: set[asyncio.Future[Any]] = {starting, connected}
        try:
            await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            connected.cancel()
        return event.is_set()

    def heard(self, message: Connected | WorkerReady) -> None:
        if isinstance(message, Connected):
            self._connected.set()
        elif self._ready is not None and not self._ready.done():
            self._ready.set_result(message)

    def worker_died(self, died: WorkerDied) -> None:
        self._connected = asyncio.Event()
        if self._ready is not None:
            fail(self._ready, died)
