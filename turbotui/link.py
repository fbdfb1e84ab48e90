"""Owns the console's tie to an engine: the thread that listens, the state it builds, and coming back.

One daemon thread asks the factory for a client, follows its events and puts each through `reduce`.
When the stream ends it says so, waits a little longer each time and begins again. Nothing ever
waits for this thread: a call that hangs in a socket must not keep the console from closing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from engine.errors import EngineError
from turbotui.history import History
from turbotui.past.seen import Seen
from turbotui.state import ConsoleState, DeviceChosen, LinkLost, LinkOpened, LinkOpening, reduce

if TYPE_CHECKING:
    from engine.wire import CheckReport, Event, EventFrame
    from turbotui.client.base import Client, Stream
    from turbotui.state import LinkEvent

PAST_S = 600
"""How far back the engine remembers, a column a second."""

RETRY_S = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Waits between attempts; the last one repeats."""


class Link:
    """State and histories may be read from any thread; what is told goes through one lock."""

    def __init__(
        self,
        client_factory: Callable[[], Client],
        *,
        on_change: Callable[[], None],
        start_engine: Callable[[], None] | None = None,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.state = ConsoleState()
        self.histories: dict[str, History] = {}
        self.seen = Seen()
        self.client: Client | None = None
        self._factory = client_factory
        self._start_engine = start_engine
        self._on_change = on_change
        self._wall = wall
        self._monotonic = monotonic
        self._stream: Stream | None = None
        self._closed = threading.Event()
        self._retry = threading.Event()
        self._frames = 0
        self._reducing = threading.Lock()

    def start(self) -> None:
        threading.Thread(target=self._listen, name="link", daemon=True).start()

    def retry_now(self) -> None:
        """Do not wait for the next attempt."""
        self._retry.set()

    def close(self) -> None:
        """End the stream; the thread follows when it can."""
        self._closed.set()
        self._retry.set()
        if self._stream is not None:
            self._stream.close()

    def history(self, device_id: str) -> History:
        return self.histories.setdefault(device_id, History())

    def look_at(self, device_id: str) -> None:
        """Show another device; the console's own choice, which the engine is not told."""
        self._take(DeviceChosen(device_id=device_id))

    def _take(self, event: Event | LinkEvent) -> None:
        with self._reducing:
            wall = self._wall()
            before = self.state
            self.state = reduce(before, event, wall=wall, monotonic=self._monotonic())
            # A new stream begins with everything as it stands: what was between is not known.
            self.seen.keep(self.state, wall, anew=self.state.engine_heard_at != before.engine_heard_at)

    def _listen(self) -> None:
        from engine.errors import EngineError

        failures = 0
        self._take(LinkOpening())
        self._on_change()
        while not self._closed.is_set():
            frames = self._frames
            try:
                if self._start_engine is not None and not frames:
                    self._start_engine()
                client = self._factory()
                hello = client.hello()
                self.client = client
                self._take(LinkOpened(hello=hello))
                self._on_change()
                client.subscribe(self._on_frame, on_open=self._on_open)
                reason = self.state.goodbye or "the stream of events ended"
            except EngineError as error:
                reason = str(error)
            except Exception as error:  # The edge of this thread: whatever broke, the console lives on.
                reason = f"{type(error).__name__}: {error}"
            if self._closed.is_set():
                return
            failures = 0 if self._frames != frames else failures + 1
            wait = RETRY_S[min(failures, len(RETRY_S) - 1)]
            self._stream = None
            self._take(LinkLost(reason=reason, retry_at=self._monotonic() + wait))
            self._on_change()
            self._retry.wait(wait)
            self._retry.clear()

    def _on_open(self, stream: Stream) -> None:
        self._stream = stream
        if self._closed.is_set():
            stream.close()

    def _ask_for_the_past(self, device_id: str) -> None:
        """Fill the graph with what happened before; without an answer it begins here."""
        if self.client is not None:
            with suppress(EngineError):
                past = self.client.history(device_id, seconds=PAST_S, columns=PAST_S)
                self.history(device_id).fill(past)

    def take_findings(self, report: CheckReport) -> None:
        """A check that somebody asked for; from any thread."""
        from engine.wire import FindingsChanged

        self._take(FindingsChanged(report=report))
        self._on_change()

    def _ask_what_was_found(self, client: Client) -> None:
        with suppress(EngineError):
            self.take_findings(client.last_check())

    def _on_frame(self, frame: EventFrame) -> None:
        from engine.wire import MemorySampled, Snapshot

        event = frame.event
        self._frames += 1
        self._take(event)
        match event:
            case MemorySampled(device=device):
                # Drawn by the console's own timer: ten messages a second would only wake it twice.
                if device.balance is not None:
                    self.history(device.id).add(device.balance, self._wall())
                return
            case Snapshot(status=status):
                for device in status.devices:
                    if device.balance is not None:
                        self.history(device.id).add(device.balance, self._wall())
                        self._ask_for_the_past(device.id)
                if self.client is not None:
                    # Apart: where none was made yet it is made first, and the stream goes on meanwhile.
                    ask = partial(self._ask_what_was_found, self.client)
                    threading.Thread(target=ask, name="findings", daemon=True).start()
        self._on_change()
