"""The probe's way out: answers are kept in order, readings only the newest of each device.

A reader that is slow or stopped must never block what measures, and must not be flooded when it
comes back: what the pipe takes at once is written at once; all else is written by one thread, and while
that waits a newer reading replaces the older one.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable

import msgspec

from engine.telemetry.samples import DeviceReading, FromProbe, HostReading

AT_ONCE_BYTES = select.PIPE_BUF
"""A pipe that has room takes so much whole."""
ANSWER_LIMIT = 1000
"""Answers that wait at most; a reader that is behind by more gets the newest."""


class Outbox:
    """Takes messages from any thread and writes them as JSON lines from its own."""

    def __init__(self, descriptor: int, on_broken: Callable[[], None]) -> None:
        """`on_broken` is called once, from the writing thread, when nobody can read any more."""
        self._descriptor = descriptor
        self._on_broken = on_broken
        self._encoder = msgspec.json.Encoder()
        self._wake = threading.Condition()
        self._answers: deque[FromProbe] = deque(maxlen=ANSWER_LIMIT)
        self._readings: dict[str, FromProbe] = {}
        self._closed = False
        self._writing = False
        """Whether the thread has taken a message that is not yet written."""
        self._room = select.poll()
        self._room.register(descriptor, select.POLLOUT)
        self._thread = threading.Thread(target=self._write_all, name="outbox", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, message: FromProbe) -> None:
        """Send it soon; never blocks."""
        with self._wake:
            if not (self._writing or self._answers or self._readings) and self._wrote(message):
                return
            if isinstance(message, DeviceReading):
                self._readings[message.device_id] = message
            elif isinstance(message, HostReading):
                self._readings["host"] = message
            else:
                self._answers.append(message)
            self._wake.notify()

    def _wrote(self, message: FromProbe) -> bool:
        """Whether it could be written without waiting; nothing else waits to be."""
        if not self._thread.is_alive() or self._room.poll(0) != [(self._descriptor, select.POLLOUT)]:
            return False  # nobody reads, or it is full
        line = self._encoder.encode(message) + b"\n"
        if len(line) > AT_ONCE_BYTES:
            return False
        try:
            os.write(self._descriptor, line)
        except OSError:
            return False  # the thread meets it, too, and says so
        return True

    def close(self, timeout_s: float) -> None:
        """Write what waits, for at most `timeout_s`."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _next(self) -> FromProbe | None:
        """The next message, or None at the end."""
        with self._wake:
            self._writing = False
            while not self._answers and not self._readings and not self._closed:
                self._wake.wait()
            self._writing = True
            if self._answers:
                return self._answers.popleft()
            if self._readings:
                return self._readings.pop(next(iter(self._readings)))
            return None

    def _write_all(self) -> None:
        while (message := self._next()) is not None:
            line = self._encoder.encode(message) + b"\n"
            try:
                while line:
                    line = line[os.write(self._descriptor, line) :]
            except OSError:
                self._on_broken()
                return
