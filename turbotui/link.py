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
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from engine.errors import EngineError
from turbotui.history import History
from turbotui.past.seen import Seen
from turbotui.state import (
    ConsoleState,
    DeviceChosen,
    DeviceWatched,
    LinkLost,
    LinkOpened,
    LinkOpening,
    reduce,
)

if TYPE_CHECKING:
    from engine.wire import CheckReport, DeviceStatus, Event, EventFrame, Hello
    from turbotui.bystander import Bystander
    from turbotui.client.base import Client, Stream
    from turbotui.state import LinkEvent

PAST_S = 600
"""How far back the engine remembers, a column a second."""

ALONE_AFTER_S = 2.0
"""Without an engine for so long the console looks at the devices by itself."""

RETRY_S = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Waits between attempts; the last one repeats."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """What is known of an engine that answers no more."""

    how: str = ""
    """`exit -9`; empty where nobody can tell."""
    printed: tuple[str, ...] = ()


class Link:
    """State and histories may be read from any thread; what is told goes through one lock.

    `ended` tells what became of an engine that was lost. With `look_alone` the devices of this host
    are read by a child of the console while no engine answers.
    """

    def __init__(
        self,
        client_factory: Callable[[], Client],
        *,
        on_change: Callable[[], None],
        start_engine: Callable[[], None] | None = None,
        ended: Callable[[Hello], Ended] | None = None,
        look_alone: bool = False,
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
        self._ended = ended
        self._look_alone = look_alone
        self._bystander: Bystander | None = None
        self._alone: threading.Timer | None = None
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
        self._stop_looking_alone()

    # ------------------------------------------------------------------ without an engine

    def _soon_look_alone(self) -> None:
        if self._look_alone and self._alone is None and not self._closed.is_set():
            self._alone = threading.Timer(ALONE_AFTER_S, self._look_now)
            self._alone.daemon = True
            self._alone.start()

    def _look_now(self) -> None:
        from turbotui.bystander import Bystander

        if self._bystander is None:
            self._bystander = Bystander(self._watched)
        if self.state.link != "connected" and not self._closed.is_set():
            device = self.state.device
            self._bystander.start(None if device is None else device.id)
        if self._closed.is_set():
            self._bystander.stop()

    def _watched(self, device: DeviceStatus) -> None:
        self._take(DeviceWatched(device=device))
        if device.balance is not None and self.state.own_probe:
            self.history(device.id).add(device.balance, self._wall())
        self._on_change()

    def _stop_looking_alone(self) -> None:
        if self._alone is not None:
            self._alone.cancel()
            self._alone = None
        if self._bystander is not None:
            self._bystander.stop()

    def _what_became_of_it(self) -> Ended:
        hello = self.state.hello
        if self._ended is None or hello is None or self.state.link == "lost":
            return Ended()
        return self._ended(hello)

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
                self._stop_looking_alone()
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
            ended = self._what_became_of_it()
            retry_at = self._monotonic() + wait
            self._take(LinkLost(reason=reason, retry_at=retry_at, ended=ended.how, printed=ended.printed))
            self._soon_look_alone()
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
