"""The engine's own look at the device in use, once a second: background view, pressure, what goes unasked.

What it sees is published, logged when it is news, and kept for whoever asks. Event loop's thread only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from engine.checks.facts import gpu_name
from engine.config import EngineConfig
from engine.daemon.actions import Actions
from engine.daemon.background import BackgroundNews, background
from engine.daemon.growth import GrowthWatch, holders_of
from engine.daemon.logbook import LogBook
from engine.daemon.memory import MemoryView
from engine.daemon.pressure import (
    LEAST_OFFER_BYTES,
    LEVELS,
    Ladder,
    Peak,
    cache_bytes,
    device_offers,
    host_offers,
    judge,
    pressure_text,
)
from engine.daemon.queue import QueueRunner
from engine.daemon.supervisor import Supervisor
from engine.daemon.threads import in_thread
from engine.embeddings import EmbeddingStore, EmbeddingUsage
from engine.jobs.store import JobStore
from engine.wire import (
    TERMINAL_STATES,
    Background,
    BackgroundChanged,
    DeviceStatus,
    Event,
    Growth,
    JobChanged,
    Logged,
    ModelStatus,
    Pressure,
    PressureChanged,
    PressureOffer,
    Receipt,
)

DROP_AGAIN_S = 30.0
"""Between two times that something goes unasked: what filled the device again is in use."""


class Overview:
    """Keeps the newest background and pressure."""

    def __init__(
        self,
        config: EngineConfig,
        *,
        memory: MemoryView,
        supervisor: Supervisor,
        queue: QueueRunner,
        store: JobStore,
        actions: Actions,
        embeddings: EmbeddingStore,
        logbook: LogBook,
        publish: Callable[[Event], None],
        models: Callable[[], Sequence[ModelStatus]],
    ) -> None:
        """`embeddings` is for this object alone."""
        self._config = config
        self._memory = memory
        self._supervisor = supervisor
        self._queue = queue
        self._store = store
        self._actions = actions
        self._embeddings = embeddings
        self._logbook = logbook
        self._publish = publish
        self._models = models
        self._news = BackgroundNews()
        self._told_lines: tuple[str, ...] = ()
        self._usage: EmbeddingUsage | None = None
        self._usage_due = True
        self._counting: asyncio.Task[None] | None = None
        self._ladders: dict[str, Ladder] = {}
        self._growth: tuple[str, GrowthWatch] = ("", GrowthWatch())
        self._dropped_at = float("-inf")
        self._dropping: asyncio.Task[Receipt] | None = None
        self.pressure: tuple[Pressure, ...] = ()

    def heard(self, event: Event) -> None:
        """What changes the embeddings on disk: a job's end, and clearing them."""
        if isinstance(event, JobChanged):
            self._usage_due = self._usage_due or event.job.status in TERMINAL_STATES
        elif isinstance(event, Logged):
            self._usage_due = self._usage_due or event.line.event == "cache"

    def background(self) -> Background:
        """What the device in use holds now."""
        return background(self._device(), self._models(), self._supervisor.statuses(), self._usage)

    def look(self) -> None:
        """Called once a second."""
        if self._usage_due and (self._counting is None or self._counting.done()):
            self._usage_due = False
            self._counting = asyncio.create_task(self._count_embeddings())
        now = self.background()
        if self._news.is_news(now):
            for line in now.lines:
                if line not in self._told_lines:  # what is as it was told last is no news
                    self._logbook.write("background", line, memory=True)
            self._told_lines = now.lines
            self._publish(BackgroundChanged(background=now))
        self._look_at_pressure()

    async def _count_embeddings(self) -> None:
        # In a thread: the home of many is on a network.
        self._usage = await in_thread(self._embeddings.usage, name="embeddings")

    def _device(self) -> DeviceStatus | None:
        return next((device for device in self._memory.statuses() if device.in_use), None)

    # ----------------------------------------------------------------- pressure

    def _look_at_pressure(self) -> None:
        before, self.pressure = self.pressure, tuple(self._judged(time.monotonic()))
        told = {pressure.device_id: pressure.level for pressure in before}
        for pressure in self.pressure:
            old = told.get(pressure.device_id, "none")
            if pressure.level != old:
                rises = LEVELS.index(pressure.level) > LEVELS.index(old)
                self._logbook.write(
                    "pressure", pressure_text(pressure), level="warning" if rises else "info", memory=True
                )
        pressed = any(pressure.level != "none" for pressure in (*before, *self.pressure))
        if pressed and before != self.pressure:
            self._publish(PressureChanged(pressure=self.pressure))
        self._drop_unasked()

    def _judged(self, now: float) -> list[Pressure]:
        device, host = self._device(), self._memory.host
        found = []
        if device is not None and device.balance is not None:
            free = next((part.bytes or 0 for part in device.balance.parts if part.kind == "free"), 0)
            used = device.total_bytes - free
            if device.id == "cpu" and host is not None:
                # What the worker maps of files counts as its own in the balance; the kernel could take it.
                used = host.total_bytes - host.available_bytes
            offers = device_offers(device.balance, self._models())
            found.append(
                judge(
                    device.id,
                    name=gpu_name(device),
                    ladder=self._ladder(device.id),
                    now=now,
                    total_bytes=device.total_bytes,
                    used_bytes=used,
                    peak=self._peak(),
                    grew=self._grew(device, now),
                    offers=offers + self._host_offers() if device.id == "cpu" else offers,
                )
            )
        if host is not None and device is not None and device.id != "cpu":
            found.append(
                judge(
                    "host",
                    ladder=self._ladder("host"),
                    now=now,
                    total_bytes=host.total_bytes,
                    used_bytes=host.total_bytes - host.available_bytes,
                    peak=None,
                    grew=(),
                    offers=self._host_offers(),
                )
            )
        return found

    def _host_offers(self) -> tuple[PressureOffer, ...]:
        return host_offers(self._supervisor.warm.registered_bytes or 0)

    def _ladder(self, device_id: str) -> Ladder:
        if device_id not in self._ladders:
            self._ladders[device_id] = Ladder(self._config.pressure_warn, self._config.pressure_act)
        return self._ladders[device_id]

    def _grew(self, device: DeviceStatus, now: float) -> tuple[Growth, ...]:
        if self._growth[0] != device.id:
            self._growth = (device.id, GrowthWatch())
        watch = self._growth[1]
        watch.heard(now, holders_of(device))
        return watch.grew(device.total_bytes)

    def _peak(self) -> Peak | None:
        """Of the running job, else of the one whose turn is next."""
        job = self._queue.running
        if job is None and self._store.count_waiting():
            job = next(iter(self._store.list_runnable()), None)
        if job is None or job.expected_peak_bytes is None:
            return None
        used = self._memory.used_at(job.expected_peak_bytes)
        return None if used is None else Peak(job_id=job.id, bytes=used)

    def _drop_unasked(self) -> None:
        """Let go of what the settings say where the device's use itself is at `pressure_act`.

        Not for a predicted peak: a job makes its own room. What is leased stays: see `Actions.free`.
        """
        policy, now = self._config.pressure_drop, time.monotonic()
        device = self._device()
        pressure = next(iter(self.pressure), None)
        if policy == "none" or device is None or device.balance is None or pressure is None:
            return
        if pressure.device_id != device.id or pressure.used_share < self._config.pressure_act:
            return
        if now - self._dropped_at < DROP_AGAIN_S or self._is_busy():
            return
        whole = sum(offer.bytes for offer in pressure.offers if offer.what == "free")
        can_go = whole if policy == "idle" else cache_bytes(device.balance)
        if can_go < LEAST_OFFER_BYTES:
            return
        self._dropped_at = now
        self._logbook.write("pressure", f"engine.pressure_drop is {policy}: it goes unasked", memory=True)
        self._dropping = asyncio.create_task(self._actions.free(idle=policy == "idle"))
        self._dropping.add_done_callback(lambda done: done.cancelled() or done.exception())

    def _is_busy(self) -> bool:
        """Whether a switch, a cleanup or an earlier drop has the device; a job lets it in between steps."""
        if self._supervisor.worker is None or self._supervisor.starting:
            return True
        if self._dropping is not None and not self._dropping.done():
            return True
        return self._supervisor.device_lock.locked() and self._queue.running is None
