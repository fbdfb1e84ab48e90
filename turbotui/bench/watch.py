"""The engine's events while something is measured: memory ten times a second, and every receipt."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass

from engine.errors import EngineUnavailable
from engine.wire import EventFrame, MemorySampled, Receipt, ReceiptIssued
from turbotui.client.base import Stream
from turbotui.client.http import HttpClient

OPEN_TIMEOUT_S = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """One reading of the device in use."""

    at: float
    """Wall clock."""
    worker_bytes: int | None
    """The worker's own entry; None where the driver does not tell."""
    ours_bytes: int
    """Weights, live tensors, cache and context by the worker's counters."""


class Watch:
    """A stream of events for the length of a `with`, on a thread of its own."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client
        self._stream: Stream | None = None
        self._open = threading.Event()
        self._lock = threading.Lock()
        self._seen: list[Seen] = []
        self._receipts: list[Receipt] = []
        self._thread = threading.Thread(target=self._run, name="bench-watch", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        self._open.wait(OPEN_TIMEOUT_S)
        return self

    def __exit__(self, *raised: object) -> None:
        if self._stream is not None:
            self._stream.close()
        self._thread.join(OPEN_TIMEOUT_S)

    def between(self, start: float, end: float) -> list[Seen]:
        """The readings between two wall-clock times."""
        with self._lock:
            return [seen for seen in self._seen if start <= seen.at <= end]

    def receipts(self) -> list[Receipt]:
        with self._lock:
            return list(self._receipts)

    def _run(self) -> None:
        with suppress(EngineUnavailable):  # whoever measures meets that by itself
            self._client.subscribe(self._take, on_open=self._opened)

    def _opened(self, stream: Stream) -> None:
        self._stream = stream

    def _take(self, frame: EventFrame) -> None:
        self._open.set()
        event = frame.event
        with self._lock:
            if isinstance(event, ReceiptIssued):
                self._receipts.append(event.receipt)
            elif isinstance(event, MemorySampled) and event.device.in_use:
                balance = event.device.balance
                worker = [process.bytes for process in event.device.processes if process.ours == "worker"]
                parts = () if balance is None else balance.parts
                self._seen.append(
                    Seen(
                        at=time.time() if balance is None else balance.taken_at,
                        worker_bytes=worker[0] if worker else None,
                        ours_bytes=sum(part.bytes or 0 for part in parts if part.owner == "ours"),
                    )
                )
