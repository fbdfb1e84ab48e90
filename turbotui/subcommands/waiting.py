"""Waits for a job to end, with a progress bar on a terminal."""

from __future__ import annotations

import sys
import threading
import time
from typing import TextIO

from engine.errors import EngineUnavailable, from_code
from engine.wire import (
    TERMINAL_STATES,
    EngineChanged,
    EngineStatus,
    EventFrame,
    Goodbye,
    Job,
    JobChanged,
    Snapshot,
)
from turbotui.client.base import Stream
from turbotui.client.http import HttpClient
from turbotui.format import bytes_text, clip, percent, time_left
from turbotui.sanitize import clean
from turbotui.subcommands.jobs import held_text, is_waiting
from turbotui.subcommands.output import columns, note
from turbotui.subcommands.session import Session
from turbotui.text.spoken import spoken, tr, word

BAR_CELLS = 20
RECONNECTS = 5
"""How often in a row the engine may be lost under one job before waiting ends."""
RECONNECT_S = 0.5


def wait_for_job(session: Session, client: HttpClient, job: Job) -> Job:
    """`job` as it ended, done or not.

    An engine that dies meanwhile is found or started again, since the job is in its store and
    is queued once more.

    Raises:
        EngineUnavailable: the engine was stopped on purpose, or keeps being lost.
    """
    bar = ProgressBar(sys.stderr)
    losses = 0
    try:
        while True:
            watch = _Watch(job, bar)
            try:
                watch.run(client)
            except EngineUnavailable as error:
                losses = 1 if watch.heard else losses + 1
                if losses > RECONNECTS:
                    raise
                bar.clear()
                note(tr("{error}; asking again", error=spoken(str(error))))
                time.sleep(RECONNECT_S)
                client = session.client()
                continue
            if watch.job.status in TERMINAL_STATES:
                return watch.job
            raise EngineUnavailable(
                f"the engine was stopped under job {job.id} ({watch.goodbye or 'without a reason'}), which "
                f"goes on with the next one: `turbotui engine start`, then `turbotui job show {job.id}`"
            )
    finally:
        bar.clear()


def raise_unless_done(job: Job) -> None:
    """Raise what made an ended job fail.

    Raises:
        WorkFailed or whatever the job's `error_code` names.
    """
    if job.status != "done":
        code = job.error_code or ("cancelled" if job.status == "cancelled" else "work_failed")
        raise from_code(code, f"job {job.id} {job.status}: {job.error or 'no reason was given'}")


class ProgressBar:
    """One line that is drawn over, on a terminal only."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream if stream.isatty() else None
        self._drawn = False

    def draw(self, text: str) -> None:
        if self._stream is not None:
            width = columns(self._stream) or 80
            # One cell short: a full line would wrap on some terminals.
            self._stream.write(f"\r{clip(text, width - 1)}\x1b[K")
            self._stream.flush()
            self._drawn = True

    def clear(self) -> None:
        if self._stream is not None and self._drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._drawn = False


def progress_text(job: Job) -> str:
    """A job's progress in one line: `job 41 denoise 3/4 ███████░░░ 71 %  6.0 s left  peak 19.2 GiB`."""
    progress = job.progress
    if job.status != "running" or progress is None:
        waits = tr(", waits for {waits_for}", waits_for=spoken(job.waits_for)) if job.waits_for else ""
        place = tr(" at place {position}", position=job.position) if job.position else ""
        held = tr(", held") if job.held else ""
        return clean(
            tr(
                "job {id} {status}{place}{held}{waits}",
                id=job.id,
                status=word(job.status),
                place=place,
                held=held,
                waits=waits,
            )
        )
    full = round(max(0.0, min(1.0, progress.fraction)) * BAR_CELLS)
    step = f" {progress.step}/{progress.steps}" if progress.steps else ""
    bar = "█" * full + "░" * (BAR_CELLS - full)
    parts = [
        tr(
            "job {id} {stage}{step} {bar} {fraction}",
            id=job.id,
            stage=word(progress.stage),
            step=step,
            bar=bar,
            fraction=percent(progress.fraction),
        )
    ]
    if progress.eta_s is not None:
        parts.append(tr("{eta_s} left", eta_s=time_left(progress.eta_s)))
    if progress.peak_bytes is not None:
        parts.append(tr("peak {peak_bytes}", peak_bytes=bytes_text(progress.peak_bytes)))
    return clean("  ".join(parts))


class _Watch:
    """One stream of events, followed until the job has ended."""

    def __init__(self, job: Job, bar: ProgressBar) -> None:
        self.job = job
        self.heard = False
        self.goodbye: str | None = None
        self._bar = bar
        self._stream: Stream | None = None
        self._ended = threading.Event()
        self._held_text: str | None = None
        """Why the queue is held, as it was last told."""

    def run(self, client: HttpClient) -> None:
        def opened(stream: Stream) -> None:
            self._stream = stream

        def take(frame: EventFrame) -> None:
            event = frame.event
            if isinstance(event, Snapshot | EngineChanged):
                self._held(event.status.engine if isinstance(event, Snapshot) else event.engine)
            if isinstance(event, Snapshot):
                # The snapshot holds only the newest of those that have ended.
                self._take(client.job(self.job.id))
            elif isinstance(event, JobChanged) and event.job.id == self.job.id:
                self._take(event.job)
            elif isinstance(event, Goodbye):
                self.goodbye = event.reason

        client.subscribe(take, on_open=opened)

    def _held(self, engine: EngineStatus) -> None:
        """Say once for each reason that the queue is held while the job waits for it."""
        held = held_text(engine.queue)
        if held is not None and held != self._held_text and is_waiting(self.job):
            self._bar.clear()
            note(held)
        self._held_text = held

    def _take(self, job: Job) -> None:
        self.job = job
        self.heard = True
        self._bar.draw(progress_text(job))
        if job.status in TERMINAL_STATES and self._stream is not None:
            self._stream.close()
