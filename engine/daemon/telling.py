"""What is worth telling a person who looks elsewhere, out of everything that the engine publishes.

Event loop's thread only.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from engine.checks.facts import gpu_name
from engine.config import NotifyKind
from engine.daemon.logbook import LogBook
from engine.daemon.notify import Notification, Notifier
from engine.daemon.pressure import LEVELS, pressure_text
from engine.paths import user_name
from engine.telemetry.procfs import clean
from engine.units import MIB, size_text
from engine.wire import (
    TERMINAL_STATES,
    DeviceStatus,
    Event,
    Job,
    JobChanged,
    PressureChanged,
    PressureLevel,
    nobodys_bytes,
)

TEXT_LIMIT = 500
PROMPT_LIMIT = 200
UNSEEN_BYTES = 256 * MIB
"""Less than this comes and goes with processes that are listed a moment late."""
UNSEEN_LOOKS = 3
"""For how many seconds it must be there: a process that starts has memory before it has a name."""


class UnseenWatch:
    """Says when memory that nobody can be named for has come to a device, and stayed."""

    def __init__(self) -> None:
        self._told = 0
        self._low: list[int] = []

    def look(self, unseen_bytes: int | None) -> int | None:
        """The bytes that came since they were last told, or None. Called once a second."""
        if unseen_bytes is None:
            self._low.clear()
            return None
        self._low = [*self._low, unseen_bytes][-UNSEEN_LOOKS:]
        self._told = min(self._told, unseen_bytes)
        stayed = min(self._low)
        if len(self._low) < UNSEEN_LOOKS or stayed - self._told < UNSEEN_BYTES:
            return None
        came, self._told = stayed - self._told, stayed
        return came


class Telling:
    """Turns events and devices into notifications."""

    def __init__(
        self,
        notifier: Notifier,
        logbook: LogBook,
        *,
        devices: Callable[[], Sequence[DeviceStatus]],
        is_idle: Callable[[], bool],
    ) -> None:
        """`is_idle` says whether nothing runs and nothing waits."""
        self._notifier = notifier
        self._logbook = logbook
        self._devices = devices
        self._is_idle = is_idle
        self._levels: dict[str, PressureLevel] = {}
        self._unseen: dict[str, UnseenWatch] = {}
        self._host = socket.gethostname()
        self._user = user_name()

    def heard(self, event: Event) -> None:
        """Every event that is published; whatever is wrong here must not reach whoever publishes."""
        if not isinstance(event, JobChanged | PressureChanged):
            return
        try:
            if isinstance(event, PressureChanged):
                self._pressed(event)
            elif event.job.status in TERMINAL_STATES:
                self._ended(event.job)
        except Exception as error:  # a listener of the hub must not raise
            self._logbook.write("bug", f"telling of it: {type(error).__name__}: {error}", level="error")

    def look(self) -> None:
        """Called once a second."""
        for device in self._devices():
            if device.balance is None or device.kind != "cuda":
                continue
            came = self._unseen.setdefault(device.id, UnseenWatch()).look(nobodys_bytes(device.balance))
            if came is not None:
                text = f"{size_text(came)} on {gpu_name(device)} that no process we can see holds"
                self._tell("unseen", text, device=device.id, num_bytes=came)
        self._notifier.look()

    def _ended(self, job: Job) -> None:
        where = f"{job.spec.model}, {job.output}" if job.status == "done" else job.error or job.status
        text = f"job {job.id} {job.status}: {where}"
        if job.status == "done":
            self._tell("done", text, job=job)
        elif job.status in ("failed", "interrupted"):
            oom = job.error_code == "out_of_memory" and self._notifier.wants("oom")
            self._tell("oom" if oom else "failed", text, job=job)
        if self._is_idle():
            self._tell("queue_empty", f"nothing runs and nothing waits; job {job.id} was the last", job=job)

    def _pressed(self, event: PressureChanged) -> None:
        for pressure in event.pressure:
            before = self._levels.get(pressure.device_id, "none")
            self._levels[pressure.device_id] = pressure.level
            if LEVELS.index(pressure.level) > LEVELS.index(before):
                self._tell(
                    "pressure",
                    pressure_text(pressure),
                    device=pressure.device_id,
                    num_bytes=pressure.used_bytes,
                )

    def _tell(
        self,
        kind: NotifyKind,
        text: str,
        *,
        job: Job | None = None,
        device: str | None = None,
        num_bytes: int | None = None,
    ) -> None:
        self._notifier.tell(
            Notification(
                event=kind,
                text=clean(text, TEXT_LIMIT),
                host=self._host,
                user=self._user,
                at=time.time(),
                job=None if job is None else _told_of(job),
                device=device,
                bytes=num_bytes,
            )
        )


def _told_of(job: Job) -> dict[str, Any]:
    began, ended = job.started_at, job.finished_at
    return {
        "id": job.id,
        "model": job.spec.model,
        "status": job.status,
        "prompt": clean(job.spec.prompt, PROMPT_LIMIT),
        "output": job.output,
        "error": None if job.error is None else clean(job.error, TEXT_LIMIT),
        "error_code": job.error_code,
        "elapsed_s": None if began is None or ended is None else round(ended - began, 3),
    }
