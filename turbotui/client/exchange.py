"""Requests and answers over an engine's Unix socket: bytes out, wire dataclasses in, and its events.

The standard library's http.client carries the bytes and msgspec decodes them straight into the
wire dataclasses: httpx and pydantic would cost every command a quarter of a second to import.
Each call has a connection of its own, so a client may be used from any number of threads.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from engine.errors import EngineError, EngineUnavailable, InvalidRequest, from_code
from engine.wire import EVENT_TYPES, HEARTBEAT_S, ErrorBody, EventFrame, Goodbye
from turbotui.client.base import Stream
from turbotui.client.sse import SseParser
from turbotui.client.unix import SocketStream, UnixConnection

TIMEOUT_S = 10.0
"""For calls that the engine answers from what it knows."""
SILENCE_S = 3 * HEARTBEAT_S

Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True, slots=True)
class FileAnswer:
    """The beginning of an answer, and its bytes as they come."""

    status: int
    etag: str | None
    length: int | None
    chunks: Iterator[bytes]


class Exchange:
    """With the engine on `socket_path`; see `turbotui.client.base.Client` for what is raised."""

    def __init__(
        self, socket_path: str | Path, timeout: float = TIMEOUT_S, *, where: str | None = None
    ) -> None:
        """`where` is what the errors call the place, the socket's path unless given."""
        self.socket_path = str(socket_path)
        self.where = where or self.socket_path
        self.timeout = timeout

    def subscribe(self, on_frame: Callable[[EventFrame], None], *, on_open: Callable[[Stream], None]) -> None:
        """Hand each event to `on_frame` until the engine says goodbye or the stream is closed.

        `on_open` gets the stream as soon as the engine is connected, before it has answered, so
        that waiting for the answer can be ended too. Events of a name that this build does not
        know come from a newer engine and are passed over.

        Raises:
            EngineUnavailable: nothing answers, the stream broke, or it said nothing for
                three heartbeats.
        """
        connection = UnixConnection(self.socket_path, timeout=SILENCE_S, where=self.where)
        connection.connect()
        stream = SocketStream(connection.sock)
        try:
            on_open(stream)
            for frame in self._frames(connection):
                # What arrived in the same bytes as the close is no longer wanted.
                if stream.closed:
                    return
                on_frame(frame)
                if isinstance(frame.event, Goodbye):
                    return
            if not stream.closed:
                raise EngineUnavailable(f"the engine on {self.where} ended its events without a word")
        except EngineUnavailable:
            if not stream.closed:
                raise
        finally:
            stream.release()
            connection.close()

    def _frames(self, connection: UnixConnection) -> Iterator[EventFrame]:
        """The stream's events in order."""
        connection.send_request("GET", "/events", headers={"Accept": "text/event-stream"})
        with connection.answer() as answer:
            if answer.status != 200:
                raise self._error("GET", "/events", answer.status, connection.read_whole(answer))
            parser = SseParser()
            while chunk := connection.read_some(answer):
                for message in parser.feed(chunk):
                    model = EVENT_TYPES.get(message.event)
                    if model is not None:
                        event = self._decode(f"the event {message.event}", message.data, model)
                        yield EventFrame(seq=message.id or 0, event=event)

    def ask(self, path: str, model: type[Answer], timeout: float) -> Answer:
        """What a GET of `path` answers; for what few ask and at length."""
        return self._call("GET", path, model, None, timeout)

    @contextlib.contextmanager
    def receive_file(self, path: str, headers: dict[str, str], timeout: float) -> Iterator[FileAnswer]:
        """A good answer whose body is read piece by piece.

        Raises:
            EngineUnavailable: also while it is read.
        """
        with contextlib.closing(UnixConnection(self.socket_path, timeout=timeout, where=self.where)) as link:
            link.connect()
            link.send_request("GET", path, headers=headers)
            with link.answer() as answer:
                if not 200 <= answer.status < 300:
                    raise self._error("GET", path, answer.status, link.read_whole(answer))
                yield FileAnswer(
                    status=answer.status,
                    etag=answer.headers.get("ETag"),
                    length=answer.length,
                    chunks=iter(lambda: link.read_some(answer), b""),
                )

    def send_file(self, path: str, body: Any, size: int, model: type[Answer], timeout: float) -> Answer:
        """What a PUT of the file `body` answers."""
        with contextlib.closing(UnixConnection(self.socket_path, timeout=timeout, where=self.where)) as link:
            link.connect()
            link.send_request("PUT", path, body, {"Content-Length": str(size)})
            with link.answer() as answer:
                content = link.read_whole(answer)
                if not 200 <= answer.status < 300:
                    raise self._error("PUT", path, answer.status, content)
                return self._decode(f"PUT {path}", content, model)

    def _get(self, path: str, model: type[Answer]) -> Answer:
        return self._call("GET", path, model, None, self.timeout)

    def _post(
        self, path: str, model: type[Answer], body: object = None, timeout: float | None = None
    ) -> Answer:
        return self._call("POST", path, model, body, timeout or self.timeout)

    def _call(self, method: str, path: str, model: type[Answer], body: object, timeout: float) -> Answer:
        data = None
        if body is not None:
            try:
                data = msgspec.json.encode(body)
            except UnicodeEncodeError as error:
                raise InvalidRequest(
                    f"the request holds {error.object[error.start : error.end]!r}, which is no text; "
                    "write it as UTF-8"
                ) from error
        content = self._exchange(method, path, data, timeout)
        return self._decode(f"{method} {path}", content, model)

    def _exchange(
        self, method: str, path: str, data: bytes | None, timeout: float, *, accept: str = "application/json"
    ) -> bytes:
        """The body of a good answer."""
        headers = {"Accept": accept}
        if data is not None:
            headers["Content-Type"] = "application/json"
        connection = UnixConnection(self.socket_path, timeout=timeout, where=self.where)
        try:
            connection.connect()
            connection.send_request(method, path, data, headers)
            with connection.answer() as answer:
                content = connection.read_whole(answer)
                if not 200 <= answer.status < 300:
                    raise self._error(method, path, answer.status, content)
                return content
        finally:
            connection.close()

    def _decode(self, what: str, content: bytes, model: type[Answer]) -> Answer:
        key: Any = model  # mypy holds a type[Answer] for unhashable
        try:
            decoded: Answer = _decoder(key).decode(content)
            return decoded
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise EngineUnavailable(
                f"the engine on {self.where} answers {what} in a way that this turbotui does not know "
                f"({error}); they are of different builds: run `turbotui engine restart`"
            ) from error

    def _error(self, method: str, path: str, status: int, content: bytes) -> EngineError:
        try:
            body: ErrorBody = _decoder(ErrorBody).decode(content)
        except (msgspec.DecodeError, UnicodeDecodeError):
            if status in (404, 405):
                return EngineUnavailable(
                    f"the engine on {self.where} knows no {method} {path}; it is of another build: "
                    "run `turbotui engine restart`"
                )
            return EngineError(f"the engine answered {method} {path} with HTTP {status} and no reason")
        return from_code(body.code, body.message)


@functools.cache
def _decoder(model: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(model)
