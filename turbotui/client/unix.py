"""One HTTP connection over a Unix socket, whose every failure is an EngineUnavailable that says why."""

from __future__ import annotations

import errno
import http.client
import os
import socket
import struct
import threading
import time
from collections.abc import Mapping
from typing import Any

from engine.errors import EngineUnavailable

_CHUNK_BYTES = 65536


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket; every failure of the connection becomes EngineUnavailable."""

    sock: socket.socket

    def __init__(self, socket_path: str, timeout: float, where: str | None = None) -> None:
        """`where` is what the errors call the place, the socket's path unless given."""
        super().__init__("localhost", timeout=timeout)
        self._path = socket_path
        self._where = where or socket_path
        self._seconds = timeout

    def connect(self) -> None:
        """Connect, or raise EngineUnavailable with the reason."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self._seconds)
            self._connect_patiently(sock)
            _refuse_foreign_peer(sock, self._path)
        except (OSError, EngineUnavailable) as error:
            sock.close()
            if isinstance(error, EngineUnavailable):
                raise
            raise EngineUnavailable(f"no engine answers on {self._where}: {_reason(error)}") from error
        self.sock = sock

    def _connect_patiently(self, sock: socket.socket) -> None:
        deadline = time.monotonic() + self._seconds
        while True:
            try:
                sock.connect(self._path)
                return
            except BlockingIOError:
                # A Unix socket with a full backlog says EAGAIN at once instead of waiting.
                if time.monotonic() >= deadline:
                    raise TimeoutError("its backlog stays full") from None
                time.sleep(0.02)

    def send_request(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> None:
        try:
            self.request(method, path, body, headers or {})
        except (OSError, http.client.HTTPException) as error:
            # An engine that refuses a body early has answered before it closed; that counts.
            if not isinstance(error, BrokenPipeError | ConnectionResetError):
                raise self._lost(error) from error

    def answer(self) -> http.client.HTTPResponse:
        try:
            return self.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(error) from error

    def read_whole(self, answer: http.client.HTTPResponse) -> bytes:
        try:
            return answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(error) from error

    def read_some(self, answer: http.client.HTTPResponse) -> bytes:
        """What has arrived, at least one byte; nothing at the end of the stream."""
        try:
            return answer.read1(_CHUNK_BYTES)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise self._lost(error) from error

    def _lost(self, error: Exception) -> EngineUnavailable:
        if isinstance(error, TimeoutError):
            return EngineUnavailable(f"the engine on {self._where} has said nothing for {self._seconds:g} s")
        return EngineUnavailable(f"the engine on {self._where} went away: {_reason(error)}")


class SocketStream:
    """Ends a stream from any thread: shutting the socket down wakes whoever reads from it."""

    def __init__(self, sock: socket.socket) -> None:
        # A duplicate, so that it stays valid whatever http.client does with its own.
        self._sock = sock.dup()
        self._lock = threading.Lock()
        self.closed = False

    def close(self) -> None:
        with self._lock:
            if self.closed:
                return
            self.closed = True
            if self._sock.fileno() >= 0:
                try:
                    self._sock.shutdown(socket.SHUT_RDWR)
                except OSError as error:
                    if error.errno != errno.ENOTCONN:
                        raise

    def release(self) -> None:
        with self._lock:
            self._sock.close()


def _refuse_foreign_peer(sock: socket.socket, path: str) -> None:
    """Who listens there must be us or root: another user's engine must not be told our prompts."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _pid, uid, _gid = struct.unpack("3i", credentials)
    if os.getuid() not in (0, uid) and uid != 0:
        raise EngineUnavailable(
            f"{path} is served by uid {uid}, not by us ({os.getuid()}); "
            "set TURBOTUI_HOME to a folder of your own"
        )


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "its socket is not there"
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens"
    if isinstance(error, http.client.RemoteDisconnected | http.client.IncompleteRead):
        return "the connection ended before the answer did"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
