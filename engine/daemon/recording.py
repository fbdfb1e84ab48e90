"""The recording as the engine keeps it: what the event loop hands over, and the thread that writes.

The loop only puts what it has into a bounded line, a microsecond each; a disk that is slow, full
or hangs costs the recording and never a reading or an action.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

from engine.daemon.threads import in_thread
from engine.errors import NotFound
from engine.recording.entries import (
    EngineStarted,
    EngineStopped,
    Entry,
    Gap,
    Happening,
    JobProgressed,
    is_kept,
)
from engine.recording.reader import Extent, Recording
from engine.recording.writer import Writer
from engine.wire import (
    TERMINAL_STATES,
    DeviceStatus,
    EngineChanged,
    Event,
    Job,
    JobChanged,
    Logged,
    ModelsChanged,
    ReceiptIssued,
    RecordedTier,
    RecordingStatus,
    Snapshot,
    Status,
)

TURN_S = 0.5
"""How often the thread takes what has come."""
MOST_WAITING = 20_000
"""Readings and events that may wait for a disk; the oldest go beyond it."""
STAND_S = 3600.0
"""How often everything is written down, so that a reader need not go further back."""
PROGRESS_S = 5.0
WAITING_S = 60.0
"""How often it is told what a job waits for: the bytes of others change all the time."""
PROMPT_CHARS = 500
END_S = 1.0
"""How long the engine's end waits for the last block."""

Answer = TypeVar("Answer")
Said: TypeAlias = Literal["info", "warning"]


class FlightRecorder:
    """Event loop's thread only, but for `_run`."""

    def __init__(self, folder: Path, max_bytes: int, *, on_log: Callable[[str, Said], None]) -> None:
        """With `max_bytes` 0 nothing is kept; `on_log` is called on the loop's thread."""
        self.folder = folder
        self.max_bytes = max_bytes
        self._on_log = on_log
        self._writer = Writer(folder, max_bytes)
        self._waiting: deque[DeviceStatus | Entry] = deque(maxlen=MOST_WAITING)
        self._wake = threading.Event()
        self._ending = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._instance = ""
        self._jobs: dict[int, tuple[Job, float]] = {}
        self._engine: tuple[object, ...] = ()
        self._models: object = None
        self._stood_at: float | None = None
        self._lost_since: float | None = None

    @property
    def problem(self) -> str | None:
        """Why nothing is kept just now, or None."""
        return self._writer.problem

    def start(self, started: EngineStarted) -> None:
        if not self.max_bytes:
            return
        self._instance = started.instance
        self._loop = asyncio.get_running_loop()
        self._put(Entry(time.time(), started))
        # A thread of its own and never joined for long: a disk may not answer at all.
        self._thread = threading.Thread(target=self._run, name="recording", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Write what there is, unless the disk does not take it in time."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._put(Entry(time.time(), EngineStopped(instance=self._instance)))
        self._ending = True
        self._wake.set()
        end = time.monotonic() + END_S
        while thread.is_alive() and time.monotonic() < end:
            await asyncio.sleep(0.01)

    # ----------------------------------------------------------------- what comes

    def sampled(self, status: DeviceStatus) -> None:
        self._put(status)

    def heard(self, event: Event) -> None:
        """An event of the wire, as every viewer gets it."""
        now = time.time()
        if isinstance(event, JobChanged):
            self._heard_of(event.job, now)
            return
        if isinstance(event, (EngineChanged, ModelsChanged, Snapshot)) or not is_kept(event):
            return  # what changes without a person's doing is looked at once a second
        at = event.line.at if isinstance(event, Logged) else now
        if isinstance(event, ReceiptIssued):
            at = event.receipt.at or now
        self._put(Entry(at, event))

    def look(self, status: Callable[[], Status], snapshot: Callable[[], Snapshot]) -> None:
        """Once a second: how the engine and the models stand, and now and then everything."""
        if self._thread is None:
            return
        now = time.monotonic()
        if self._stood_at is None or now - self._stood_at > STAND_S:
            self._stood_at = now
            everything = snapshot()
            # Its lines are there by themselves.
            jobs = tuple(_brief(job) for job in everything.jobs)
            self._put(Entry(time.time(), replace(everything, log=(), jobs=jobs)))
        picture = status()
        engine = picture.engine
        moved = (
            engine.state,
            engine.nursery.state,
            engine.queue,
            engine.problem,
            tuple((worker.pid, worker.state, worker.job_id) for worker in picture.workers),
        )
        if moved != self._engine:
            self._engine = moved
            self._put(Entry(time.time(), EngineChanged(engine=engine, workers=picture.workers)))
        if picture.models != self._models:
            self._models = picture.models
            self._put(Entry(time.time(), ModelsChanged(models=picture.models)))

    def _heard_of(self, job: Job, now: float) -> None:
        """Keep what became of a job; that it came further, or waits for other bytes, now and then."""
        old, told_at = self._jobs.get(job.id, (None, 0.0))
        if old is not None and _state(old) == _state(job):
            progress = job.progress
            if progress is None:
                if now - told_at < WAITING_S:
                    return
            else:
                further = old.progress is None or old.progress.stage != progress.stage
                if further or now - told_at >= PROGRESS_S:
                    self._jobs[job.id] = (job, now)
                    self._put(Entry(now, JobProgressed(job_id=job.id, progress=progress)))
                return
        if job.status in TERMINAL_STATES:
            self._jobs.pop(job.id, None)
        else:
            self._jobs[job.id] = (job, now)
        self._put(Entry(now, JobChanged(job=_brief(job))))

    def _put(self, item: DeviceStatus | Entry) -> None:
        if not self.max_bytes:
            return
        if len(self._waiting) == MOST_WAITING and self._lost_since is None:
            self._lost_since = time.time()
        self._waiting.append(item)

    # ----------------------------------------------------------------- what is asked

    async def ask(self, question: Callable[[Recording], Answer]) -> Answer:
        """`question` answered in a thread, by what is on disk.

        Raises:
            NotFound: nothing is kept.
        """
        if not self.max_bytes:
            raise NotFound("nothing is recorded: engine.recording_bytes is 0")
        return await in_thread(lambda: question(Recording(self.folder)), name="recording-read")

    async def status(self) -> RecordingStatus:
        if not self.max_bytes:
            return RecordingStatus(folder=str(self.folder), max_bytes=0, tiers=())

        def look(recording: Recording) -> tuple[tuple[Extent, ...], tuple[str, ...]]:
            return recording.extents(), tuple(recording.remarks.values())

        try:
            extents, remarks = await self.ask(look)
        except NotFound:  # nothing lies there yet
            extents, remarks = (), ()
        return RecordingStatus(
            folder=str(self.folder),
            max_bytes=self.max_bytes,
            tiers=tuple(
                RecordedTier(
                    name=extent.tier.name,
                    since=extent.since,
                    until=extent.until,
                    blocks=extent.blocks,
                    bytes=extent.bytes,
                )
                for extent in extents
            ),
            problem=self.problem,
            remarks=remarks,
        )

    # ----------------------------------------------------------------- the thread

    def _run(self) -> None:
        told: str | None = None
        while True:
            ending = self._ending
            try:
                self._take()
                if ending:
                    self._writer.close()
                    return
                self._writer.flush()
                problem = self._writer.problem
            except Exception as error:  # the edge of this thread: a bug must not end the recording
                problem = f"the recording met a bug of its own: {type(error).__name__}: {error}"
                self._writer.forget()
                if ending:
                    return
            if (problem is None) != (told is None):
                self._say(problem or "the recording goes on", "info" if problem is None else "warning")
            told = problem
            self._wake.wait(TURN_S)

    def _take(self) -> None:
        """Hand everything that has come to the writer, in the order in which it came."""
        lost, self._lost_since = self._lost_since, None
        if lost is not None:
            gap: Happening = Gap(since=lost, reason="the disk did not keep up")
            self._writer.happened(time.time(), gap)
        for _ in range(len(self._waiting)):
            item = self._waiting.popleft()
            if isinstance(item, DeviceStatus):
                self._writer.status(item)
                continue
            self._writer.happened(item.at, item.what)
            if isinstance(item.what, Snapshot):
                self._writer.stand(item.at)

    def _say(self, text: str, level: Said) -> None:
        assert self._loop is not None
        with suppress(RuntimeError):  # the loop is closed: the daemon is at its end
            self._loop.call_soon_threadsafe(self._on_log, text, level)


def _state(job: Job) -> tuple[object, ...]:
    """What about a job is news at once."""
    return (job.status, job.attempt, job.held, job.position, job.error, job.output)


def _brief(job: Job) -> Job:
    """`job` with the beginning of its prompt: a recording is no second job store."""
    prompt = job.spec.prompt
    if len(prompt) <= PROMPT_CHARS:
        return job
    return replace(job, spec=replace(job.spec, prompt=prompt[: PROMPT_CHARS - 1] + "…"))
