"""The stream of events: one hub, any number of subscribers, none of which can slow the engine.

A subscriber keeps a bounded backlog. Memory samples are coalesced to the newest for each device
while a reader is slow; when even the rest piles up its stream is ended, and the reader comes
back for a fresh snapshot. All of it runs on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable

import msgspec

from engine.wire import EVENT_NAMES, HEARTBEAT_S, Event, Goodbye, Heartbeat, MemorySampled, Snapshot

BACKLOG_EVENTS = 2000
"""About 1 MB; a reader that is further behind is not reading."""

_encoder = msgspec.json.Encoder()


def encode_sse(seq: int, event: Event) -> bytes:
    """One server-sent event: id, name, one line of JSON."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (
        seq,
        EVENT_NAMES[type(event)].encode(),
        _encoder.encode(event),
    )


class Subscriber:
    """One reader's backlog."""

    def __init__(self) -> None:
        self._frames: OrderedDict[object, bytes] = OrderedDict()
        self._arrived = asyncio.Event()
        self._ended = False

    def offer(self, seq: int, event: Event, frame: bytes) -> None:
        if self._ended:
            return  # a reader must never see a stream with a hole in it
        # A newer sample of a device takes its elder's key, so that one of each waits at most.
        key: object = seq
        if isinstance(event, MemorySampled):
            key = ("memory", event.device.id)
            self._frames.pop(key, None)
        if len(self._frames) >= BACKLOG_EVENTS:
            self._frames.clear()
            self.end()
            return
        self._frames[key] = frame
        self._arrived.set()

    def end(self) -> None:
        self._ended = True
        self._arrived.set()

    async def next(self, timeout_s: float) -> bytes | None:
        """Everything that waits, joined; b"" after `timeout_s` of silence; None at the end."""
        if not self._frames and not self._ended:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._arrived.wait()
            except TimeoutError:
                return b""
        self._arrived.clear()
        if not self._frames:
            return None if self._ended else b""
        data = b"".join(self._frames.values())
        self._frames.clear()
        if self._ended:
            self._arrived.set()
        return data


class EventHub:
    """Numbers events and hands them to every subscriber."""

    def __init__(self) -> None:
        self._seq = 0
        self._subscribers: set[Subscriber] = set()
        self._goodbye: Goodbye | None = None
        self._listeners: list[Callable[[Event], None]] = []

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Let a part of the engine hear every event as it is published; it must not raise."""
        self._listeners.append(listener)

    @property
    def watched(self) -> bool:
        """Whether anybody listens; samples need not be composed otherwise."""
        return bool(self._subscribers)

    def publish(self, event: Event) -> None:
        self._seq += 1
        for listener in self._listeners:
            listener(event)
        if not self._subscribers:
            return
        frame = encode_sse(self._seq, event)
        for subscriber in tuple(self._subscribers):
            subscriber.offer(self._seq, event, frame)

    def publish_if_watched(self, compose: Callable[[], Event]) -> None:
        """Publish what `compose` gives, unless nobody listens, for whom it need not be made."""
        if self.watched:
            self.publish(compose())

    def close(self, reason: str) -> None:
        """Say goodbye on every stream and end it; later subscribers hear goodbye at once."""
        self._goodbye = Goodbye(reason=reason)
        self.publish(self._goodbye)
        for subscriber in self._subscribers:
            subscriber.end()

    async def stream(self, snapshot: Callable[[], Snapshot]) -> AsyncIterator[bytes]:
        """The bytes of one SSE answer: a snapshot, then what happens, and a heartbeat in silence."""
        if self._goodbye is not None:
            yield encode_sse(self._seq, self._goodbye)
            return
        subscriber = Subscriber()
        # Subscribe and take the picture in one go: nothing can happen between the two.
        self._subscribers.add(subscriber)
        try:
            yield encode_sse(self._seq, snapshot())
            while (data := await subscriber.next(HEARTBEAT_S)) is not None:
                yield data or encode_sse(self._seq, Heartbeat(at=time.time()))
        finally:
            self._subscribers.discard(subscriber)
