"""A hub on this machine: the few answers of the Hub that fetching needs, and the faults that it may have."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

COMMIT = "c" * 40


@dataclass
class HubServer:
    """What it holds, what is wrong with it, and what it was asked."""

    repositories: dict[str, dict[str, bytes]]
    licence: str = "apache-2.0"
    status: int | None = None
    """Answered to everything in place of an answer."""
    gated: bool = False
    cut_after: int | None = None
    """Each download's connection ends after so many bytes of it, as long as there are `cuts`."""
    cuts: int = 0
    pause_after: int | None = None
    """Each download stops after so many bytes of it, its connection held open."""
    elsewhere: str | None = None
    """The address of another host that downloads are redirected to."""
    broken: set[str] = field(default_factory=set)
    """Paths whose bytes come wrong."""
    asked: list[tuple[str, str, str | None, str | None]] = field(default_factory=list)
    """Method, path, Range and Authorization."""
    address: str = ""

    def downloads(self) -> list[tuple[str, str | None]]:
        """Path and Range of each."""
        return [
            (path, ranged) for method, path, ranged, _ in self.asked if method == "GET" and "resolve" in path
        ]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@contextmanager
def serve(hub: HubServer) -> Iterator[HubServer]:
    """`hub` on a free port of the loopback, until the end."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_arguments: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def _answer(self) -> None:
            path = urlsplit(self.path).path
            hub.asked.append(
                (self.command, path, self.headers.get("Range"), self.headers.get("Authorization"))
            )
            if hub.gated:
                self._send(401, {"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"}, b"{}")
            elif hub.status is not None:
                self._send(hub.status, {}, b"{}")
            elif (info := re.fullmatch(r"/api/models/([^/]+/[^/]+)", path)) and info[1] in hub.repositories:
                self._send(200, {"Content-Type": "application/json"}, _info(hub, info[1]))
            elif (file := re.fullmatch(rf"/([^/]+/[^/]+)/resolve/{COMMIT}/(.+)", path)) and (
                data := hub.repositories.get(file[1], {}).get(file[2])
            ) is not None:
                self._file(file[2], data)
            else:
                self._send(404, {"X-Error-Code": "RepoNotFound"}, b"{}")

        def _file(self, name: str, data: bytes) -> None:
            etag = sha256(data)
            headers = {"X-Repo-Commit": COMMIT, "X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(data))}
            if hub.elsewhere is not None and not self.path.startswith("/elsewhere"):
                self._send(302, headers | {"Location": hub.elsewhere + self.path}, b"")
                return
            if name in hub.broken:
                data = bytes(byte ^ 1 for byte in data)
            status, begin = 200, 0
            if (ranged := self.headers.get("Range")) is not None:
                begin = int(ranged.removeprefix("bytes=").partition("-")[0])
                status = 206
                headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
            self._send(status, headers, data[begin:], cut=self.command == "GET")

        def _send(self, status: int, headers: dict[str, str], body: bytes, *, cut: bool = False) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "HEAD":
                return
            if cut and hub.cuts > 0 and hub.cut_after is not None and len(body) > hub.cut_after:
                hub.cuts -= 1
                self.wfile.write(body[: hub.cut_after])
                self.wfile.flush()
                self.close_connection = True
                self.connection.shutdown(2)
                return
            if cut and hub.pause_after is not None and len(body) > hub.pause_after:
                with suppress(ConnectionError):
                    self.wfile.write(body[: hub.pause_after])
                    self.rfile.read(1)  # until the other end goes
                self.close_connection = True
                return
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _info(hub: HubServer, name: str) -> bytes:
    siblings = [
        {
            "rfilename": path,
            "size": len(data),
            "blobId": "0" * 40,
            "lfs": {"size": len(data), "sha256": sha256(data), "pointerSize": 134},
        }
        for path, data in hub.repositories[name].items()
    ]
    told = {"id": name, "sha": COMMIT, "siblings": siblings, "tags": [], "cardData": {"license": hub.licence}}
    return json.dumps(told).encode()
