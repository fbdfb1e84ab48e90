"""Server-sent events out of a stream of bytes, however it was cut into pieces.

Source: the HTML standard, section "Server-sent events": lines end with LF, CR LF or CR, an
empty line ends an event, a line that begins with a colon says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from engine.errors import EngineUnavailable

EVENT_LIMIT_BYTES = 64 * 2**20
"""Far above any snapshot; a stream that never ends its event is no engine's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SseMessage:
    """One event: its name, its data, and the number it was given."""

    event: str
    data: bytes
    id: int | None


class SseParser:
    """Fed with bytes as they arrive; gives the events that they complete."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._held_bytes = 0
        self._event = ""
        self._data: list[bytes] = []
        self._id: int | None = None

    def feed(self, chunk: bytes) -> Iterator[SseMessage]:
        """Each event that `chunk` completes.

        Raises:
            EngineUnavailable: an event goes on for more than 64 MiB.
        """
        self._pending += chunk
        if len(self._pending) + self._held_bytes > EVENT_LIMIT_BYTES:
            raise EngineUnavailable("the engine sends an event without an end; run `turbotui engine restart`")
        if b"\n" not in chunk and b"\r" not in chunk:
            return
        # A CR at the very end may be the first half of CR LF: it waits for the next bytes.
        end = len(self._pending) - self._pending.endswith(b"\r")
        lines = bytes(self._pending[:end]).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._pending = bytearray(lines.pop()) + self._pending[end:]
        for line in lines:
            message = self._line(line)
            if message is not None:
                yield message

    def _line(self, line: bytes) -> SseMessage | None:
        if not line:
            message = None
            if self._data:
                event = self._event or "message"
                message = SseMessage(event=event, data=b"\n".join(self._data), id=self._id)
            self._event, self._data, self._held_bytes = "", [], 0
            return message
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"data":
            self._data.append(value)
            self._held_bytes += len(value)
        elif name == b"id" and value.isdigit():
            self._id = int(value)
        return None
