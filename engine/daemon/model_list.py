"""The models on disk, as viewers see them: looked at again and again, with what is loaded of each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from engine.daemon.demo import DemoModels
from engine.daemon.events import EventHub
from engine.daemon.logbook import LogBook
from engine.daemon.model_use import ModelUse
from engine.daemon.queue import QueueRunner
from engine.daemon.supervisor import Supervisor
from engine.daemon.threads import in_thread
from engine.models.catalog import Catalog
from engine.models.model import Model
from engine.models.siblings import other_of
from engine.wire import ModelsChanged, ModelStatus, QuantiseProgress


class ModelList:
    """Of this engine's home. Event loop's thread only."""

    def __init__(
        self,
        catalog: Catalog,
        supervisor: Supervisor,
        queue: QueueRunner,
        use: ModelUse,
        demo: DemoModels,
        hub: EventHub,
        logbook: LogBook,
    ) -> None:
        self._catalog = catalog
        self._supervisor = supervisor
        self._queue = queue
        self._use = use
        self._demo = demo
        self._hub = hub
        self._logbook = logbook
        self.quantising_of: Callable[[str], QuantiseProgress | None] = lambda name: None
        """How far the making of a model's int8 sibling is."""
        self._scanning = asyncio.Lock()
        self._looking: set[asyncio.Task[None]] = set()

    def statuses(self) -> tuple[ModelStatus, ...]:
        return tuple(self._status(model) for model in self._catalog.models())

    def changed(self) -> None:
        """Tell the viewers."""
        self._hub.publish_if_watched(lambda: ModelsChanged(models=self.statuses()))

    def look(self) -> None:
        """Once a second: look at the disk again, unless a look is under way. Waits for nothing."""
        if not self._scanning.locked():
            task = asyncio.create_task(self.rescan())
            self._looking.add(task)  # the loop itself keeps no strong reference
            task.add_done_callback(self._looked)

    async def rescan(self) -> None:
        """Look at the models on disk, one look at a time.

        In a thread: a disk that wakes up or a network that hangs would hold the loop, which then
        hears nobody.
        """
        async with self._scanning:
            if self._catalog.apply(await in_thread(self._catalog.scan, name="catalog")):
                self.changed()

    async def make_demo_models(self) -> tuple[ModelStatus, ...]:
        """Make the demo models unless they are there.

        Raises:
            NotNow, WorkFailed: as `DemoModels.make`.
        """
        if not self._catalog.has_demo_models():
            await self._demo.make()
            await self.rescan()
        return tuple(model for model in self.statuses() if model.demo)

    def close(self) -> None:
        """Look no more, and make nothing."""
        for task in self._looking:
            task.cancel()
        self._demo.close()

    def _status(self, model: Model) -> ModelStatus:
        residents = self._supervisor.residents
        sibling = other_of(model, self._catalog.models())
        status = self._catalog.status(
            model,
            residents.of_model(model.name),
            rate=residents.rate,
            warm=self._supervisor.warm.of_model(model.name),
            active=self._is_active(model.name),
            last_used_at=self._use.last_used_at(model.name),
        )
        return replace(
            status,
            sibling=None if sibling is None else sibling.name,
            quantising=self.quantising_of(model.name),
        )

    def _is_active(self, name: str) -> bool:
        """Whether it was asked for last, and is there or on its way: a worker may have taken it along."""
        if name != self._use.active:
            return False
        running = self._queue.running
        runs = running is not None and running.model == name
        return runs or bool(self._supervisor.residents.of_model(name))

    def _looked(self, task: asyncio.Task[None]) -> None:
        self._looking.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            text = f"looking at the models: {type(error).__name__}: {error}"
            self._logbook.write("bug", text, level="error")
