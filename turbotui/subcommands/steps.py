"""The steps of an action that a command waits for, on a terminal, as they happen."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from engine.errors import EngineError
from engine.wire import ActionProgressed, EventFrame, ReceiptStep
from turbotui.client.base import Stream
from turbotui.client.http import HttpClient
from turbotui.format import bytes_text, seconds
from turbotui.sanitize import clean
from turbotui.subcommands.waiting import ProgressBar
from turbotui.text.spoken import tr, word


@contextmanager
def steps_shown(client: HttpClient, action: str) -> Iterator[None]:
    """Draw each step of `action`, and of the loads that belong to it, over one line until the block ends."""
    if not sys.stderr.isatty():
        yield
        return
    watch = _Watch(client, action)
    thread = threading.Thread(target=watch.run, name="steps", daemon=True)
    thread.start()
    try:
        yield
    finally:
        watch.close()
        thread.join(1.0)
        watch.bar.clear()


class _Watch:
    def __init__(self, client: HttpClient, action: str) -> None:
        self.bar = ProgressBar(sys.stderr)
        self._client = client
        self._actions = (action, "load")
        self._stream: Stream | None = None
        self._closed = False

    def run(self) -> None:
        with suppress(EngineError):  # the action's own answer says what is wrong
            self._client.subscribe(self._take, on_open=self._opened)

    def close(self) -> None:
        self._closed = True
        if self._stream is not None:
            self._stream.close()

    def _opened(self, stream: Stream) -> None:
        self._stream = stream
        if self._closed:
            stream.close()

    def _take(self, frame: EventFrame) -> None:
        event = frame.event
        if isinstance(event, ActionProgressed) and event.action in self._actions and not self._closed:
            self.bar.draw(step_text(event.step))


def step_text(step: ReceiptStep) -> str:
    """One step in a line: `load x/dit 12.1 GiB of 26.7 GiB, 1.2 s`."""
    size = "" if step.bytes is None else f" {bytes_text(step.bytes)}"
    if step.total_bytes is not None:
        size += tr(" of {total_bytes}", total_bytes=bytes_text(step.total_bytes))
    return clean(f"{word(step.name)}{size}, {seconds(step.elapsed_s)}")
