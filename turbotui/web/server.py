"""Serves the console: each page gets a console process of its own, which ends with the page.

textual-serve has the page's terminal and the protocol between it and the console. What it leaves open is
done here: who may come in, no shell, nothing from the network, an end to a console that hangs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from textual_serve.app_service import AppService
from textual_serve.server import Server, to_int

from engine.errors import NotNow
from turbotui.text.spoken import spoken
from turbotui.web.door import SECURITY, Door
from turbotui.web.page import page

MOST_CONSOLES = 8
"""Each is a process of 60 MiB."""
END_S = 3.0
"""What a console gets to end by itself when its page is gone."""
STRANGE = frozenset({"TMUX", "TMUX_PANE", "STY", "SSH_TTY", "COLORTERM", "COLUMNS", "LINES", "NO_COLOR"})
"""Variables about the terminal in which the server runs: the browser's is another one."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def listen(address: str, port: int) -> socket.socket:
    """A listening socket; with port 0 on one that is free.

    Raises:
        NotNow: the port is taken.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
        listener.listen(64)
    except OSError as error:
        listener.close()
        raise NotNow(
            f"port {port} of {address} is not to be had: {error.strerror}; leave --port out"
        ) from error
    return listener


class Console(AppService):
    """One console process."""

    def __init__(self, argv: list[str], **rest: Any) -> None:
        super().__init__("", **rest)
        self._argv = argv
        self._pidfd: int | None = None

    async def _open_app_process(self, width: int = 80, height: int = 24) -> Process:
        environment = self._build_environment(width=width, height=height)
        environment = {name: value for name, value in environment.items() if name not in STRANGE}
        environment |= {"TERM": "xterm-256color", "COLUMNS": str(width), "LINES": str(height)}
        self._process = await asyncio.create_subprocess_exec(
            *self._argv, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environment
        )
        with contextlib.suppress(ProcessLookupError):
            self._pidfd = os.pidfd_open(self._process.pid)
        assert self._process.stdin is not None
        self._stdin = self._process.stdin
        return self._process

    async def run(self) -> None:
        try:
            await super().run()
        finally:
            # Also one that broke closes its page; textual-serve would leave it there, dead.
            with contextlib.suppress(Exception):
                await self.remote_close()

    async def stop(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(super().stop(), END_S)
        process = self._process
        if process is not None:
            for number in (signal.SIGTERM, signal.SIGKILL):
                if process.returncode is None:
                    self._signal(number)
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(process.wait(), END_S)
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        self._task = None

    def _signal(self, number: int) -> None:
        """Not by the process's own method: that reaps what has just ended, and asyncio misses its end."""
        if self._pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)


class ConsoleServer(Server):
    """Serves `argv`, a console's command line, to whoever brings the token."""

    def __init__(self, argv: list[str], listener: socket.socket, *, title: str) -> None:
        address, port = listener.getsockname()[:2]
        super().__init__("turbotui", host=address, port=port, title=title)
        self._argv = argv
        self._listener = listener
        self._consoles: set[Console] = set()
        self.door = Door(token=secrets.token_urlsafe(24), cookie=f"turbotui_{port}")

    @property
    def address(self) -> str:
        """What is to be opened."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/?token={self.door.token}"

    async def serve_until_ended(self) -> None:
        """Serve until SIGINT, SIGTERM or SIGHUP, and end every console."""
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, ended.set)
        runner = web.AppRunner(await self._make_app(), access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.SockSite(runner, self._listener).start()
            await ended.wait()
        finally:
            await asyncio.gather(*(console.stop() for console in list(self._consoles)))
            await runner.cleanup()

    async def _make_app(self) -> web.Application:
        @web.middleware
        async def gate(request: web.Request, handler: Handler) -> web.StreamResponse:
            answer = await self._answer(request, handler)
            if not answer.prepared:
                answer.headers.update(SECURITY)
            return answer

        app = web.Application(middlewares=[gate])
        app.add_routes(
            [
                web.get("/{page}/", self.handle_index),
                web.get("/{page}/ws", self.handle_websocket),
                web.get("/{page}/download/{key}", self.handle_download),
                web.get("/{page}/static/{name:.+}", self.handle_static),
            ]
        )
        return app

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        refusal = self.door.refusal(request.headers, socket=request.path.endswith("/ws"))
        if refusal is not None:
            return web.Response(status=403, text=f"{spoken(refusal)}\n")
        if request.path == "/" and self.door.knows(request.query.get("token")):
            # The address keeps no token, and neither does what a page could tell of where it came from.
            path, value = self.door.open()
            answer = web.Response(status=303, headers={"Location": f"/{path}/"})
            answer.set_cookie(self.door.cookie, value, httponly=True, samesite="Strict", path=f"/{path}/")
            return answer
        if not self.door.admits(request.match_info.get("page"), request.cookies.get(self.door.cookie)):
            why = "open the whole address that was printed, with its token"
            return web.Response(status=403, text=f"{spoken(why)}\n")
        try:
            return await handler(request)
        except web.HTTPException as error:
            return web.Response(status=error.status, text=f"{spoken(error.reason)}\n")

    async def handle_index(self, request: web.Request) -> Any:
        size = max(6, min(48, to_int(request.query.get("fontsize", "15"), 15)))
        text = page(title=self.title, host=request.host, path=request.match_info["page"], font_size=size)
        return web.Response(text=text, content_type="text/html")

    async def handle_static(self, request: web.Request) -> web.StreamResponse:
        """A file of the terminal's, and nothing beside them."""
        folder = self.statics_path.resolve()
        with contextlib.suppress(OSError, ValueError):
            file = (folder / request.match_info["name"]).resolve()
            if file.is_relative_to(folder) and file.is_file():
                return web.FileResponse(file)
        raise web.HTTPNotFound

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """One page's console, from its beginning to its end."""
        if len(self._consoles) >= MOST_CONSOLES:
            raise web.HTTPServiceUnavailable(reason=f"{MOST_CONSOLES} consoles are open already")
        width = max(20, min(500, to_int(request.query.get("width", "80"), 80)))
        height = max(5, min(200, to_int(request.query.get("height", "24"), 24)))
        page_socket = web.WebSocketResponse(heartbeat=15)
        console = Console(
            self._argv,
            write_bytes=page_socket.send_bytes,
            write_str=page_socket.send_str,
            close=page_socket.close,
            download_manager=self.download_manager,
        )
        # Counted before anything is waited for: other pages open at the same time.
        self._consoles.add(console)
        try:
            await page_socket.prepare(request)
            await console.start(width, height)
            await self._process_messages(page_socket, console)
        except (ConnectionError, ValueError, LookupError, TypeError, AttributeError, AssertionError):
            pass  # the page went, or said what no page of ours says: its console ends
        finally:
            self._consoles.discard(console)
            await console.stop()
        return page_socket
