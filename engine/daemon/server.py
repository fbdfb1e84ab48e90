"""The socket and the HTTP server on it.

We bind the socket ourselves: uvicorn would make it 0666, and asyncio silently unlinks a socket
that another engine still serves. A peer must be our own user or root, whatever the file's mode.
The socket is bound again when its file is deleted: logging out removes /run/user/UID unless
the user lingers, and people clean /tmp.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from engine.errors import EngineError
from engine.paths import private_dir

WATCH_S = 0.5
"""How soon a deleted socket is bound again."""
GRACE_S = 0.8
"""What open connections get to end; a stopped console must not hold a stop beyond 2 s."""


def bind_socket(path: Path) -> socket.socket:
    """A listening Unix socket at `path`, 0600 before anybody can connect, in a 0700 folder of ours.

    Only the holder of the engine's lock may call this: it removes what lies at `path`.

    Raises:
        StorageUnusable: the folder is not ours or cannot be made.
        OSError: the path cannot be bound.
    """
    private_dir(path.parent)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(64)
    except BaseException:
        listener.close()
        raise
    return listener


def peer_of(connection: Any) -> tuple[int, int]:
    """(uid, pid) of the process at the other end of a Unix socket."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _gid = struct.unpack("3i", raw)
    return uid, pid


class OwnerOnlyProtocol(H11Protocol):
    """HTTP for our own user and root; anybody else's connection is closed unanswered."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        uid, pid = peer_of(transport.get_extra_info("socket"))
        if uid not in (os.getuid(), 0):
            transport.abort()
            return
        super().connection_made(transport)
        self.client = (f"uid:{uid}", pid)  # the audit's "who"; reaches handlers as request.client


class SocketServer(uvicorn.Server):
    """uvicorn on our socket, with signals left to the daemon and the socket kept in place."""

    def __init__(
        self,
        app: Any,
        path: Path,
        listener: socket.socket,
        *,
        may_bind: Callable[[], bool],
        on_rebound: Callable[[], None],
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=OwnerOnlyProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                timeout_graceful_shutdown=1,
                h11_max_incomplete_event_size=64 * 1024,
            )
        )
        self.path = path
        self._listener = listener
        self._may_bind = may_bind
        self._on_rebound = on_rebound

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def run_until_stopped(self) -> None:
        """Serve until `should_exit` is set."""
        watcher = asyncio.create_task(self._keep_bound())
        try:
            await self.serve(sockets=[self._listener])
        finally:
            watcher.cancel()
            if self._may_bind():
                self.path.unlink(missing_ok=True)

    async def _wait_tasks_to_complete(self) -> None:
        # uvicorn waits in steps of 0.1 s without an end of its own for connections whose peer
        # is stopped; ours are cut off so that `engine stop` keeps its promise.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                await super()._wait_tasks_to_complete()
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()

    async def _keep_bound(self) -> None:
        inode = _inode(self.path)
        while True:
            await asyncio.sleep(WATCH_S)
            # Without the lock the path may be another engine's: taking it would steal its clients.
            if _inode(self.path) == inode or self.should_exit or not self._may_bind():
                continue
            # The folder may be on its way out too, or not be makeable yet after a logout; next time.
            with contextlib.suppress(OSError, EngineError):
                fresh = bind_socket(self.path)
                loop = asyncio.get_running_loop()
                server = await loop.create_server(self._protocol, sock=fresh, backlog=64)
                self.servers.append(server)
                inode = _inode(self.path)
                self._on_rebound()

    def _protocol(self) -> OwnerOnlyProtocol:
        return OwnerOnlyProtocol(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        info = path.stat()
    except OSError:
        return None
    return info.st_dev, info.st_ino
