"""Owns a script of wire events and its replay to a subscriber, event by event as a daemon streams them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from engine.errors import EngineError, EngineUnavailable
from engine.wire import Event, EventFrame, Snapshot
from turbotui.client.base import Stream


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """An event and how long after the one before it comes."""

    event: Event
    after_s: float = 0.0


@dataclass(kw_only=True, slots=True)
class ScriptedStream:
    """Ends the replay."""

    closed: threading.Event = field(default_factory=threading.Event)

    def close(self) -> None:
        self.closed.set()


class Script:
    """Replays `steps` to every subscriber, then stays silent until closed.

    Args:
        ends: What to raise when the script is over, instead of staying silent.
    """

    def __init__(self, steps: Iterable[Step], *, ends: EngineError | None = None) -> None:
        self._steps = steps
        self._ends = ends
        self._pushed: list[Event] = []
        self._wake = threading.Condition()
        self.snapshot: Snapshot | None = None
        self._stream: ScriptedStream | None = None

    def push(self, *events: Event) -> None:
        """Send more events, after the script."""
        with self._wake:
            self._pushed += events
            self._wake.notify_all()

    def end(self, error: EngineError | None = None) -> None:
        """End the stream now, as a lost engine does."""
        with self._wake:
            self._ends = error or EngineUnavailable("the engine's stream broke")
            if self._stream is not None:
                self._stream.close()
            self._wake.notify_all()

    def subscribe(self, on_frame: Callable[[EventFrame], None], *, on_open: Callable[[Stream], None]) -> None:
        stream = ScriptedStream()
        self._stream = stream
        on_open(stream)
        seq = 0
        for step in self._steps:
            if step.after_s and stream.closed.wait(step.after_s):
                break
            if stream.closed.is_set():
                break
            seq += 1
            self._remember(step.event)
            on_frame(EventFrame(seq=seq, event=step.event))
        while self._ends is None and not stream.closed.is_set():
            with self._wake:
                if not self._pushed:
                    self._wake.wait(0.02)
                events, self._pushed = self._pushed, []
            for event in events:
                seq += 1
                self._remember(event)
                on_frame(EventFrame(seq=seq, event=event))
        if self._ends is not None:
            raise self._ends

    def _remember(self, event: Event) -> None:
        if isinstance(event, Snapshot):
            self.snapshot = event
