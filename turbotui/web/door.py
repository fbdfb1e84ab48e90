"""Owns who may come in: a browser on this machine, or at the end of a tunnel to it, that knows the token.

Pure. A page of another site can make a browser send requests here, and by DNS rebinding even under a name
of its own: so the name that was asked for must be a loopback name, and what comes from a page must come
from ours. A cookie knows no port: any other server on this machine that the browser visits may be told it.
So the token, which only the printed address has, is exchanged for two secrets, and one without the other
opens nothing: a page's part of the path, which no other server is asked for, and the cookie of that path.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.errors import InvalidRequest

NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
SECURITY = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Of every answer: nothing is loaded from elsewhere, and no page holds ours in a frame."""


MOST_SESSIONS = 256
"""The oldest is forgotten: its page is to be opened by the printed address again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Door:
    """The token, and the sessions that were opened with it: each path's secret with its cookie's."""

    token: str
    cookie: str
    """Its name."""
    _sessions: dict[str, str] = field(default_factory=dict)

    def knows(self, given: str | None) -> bool:
        """Whether that is the token."""
        return _same(given, self.token)

    def open(self) -> tuple[str, str]:
        """A new session for whoever brought the token: its part of the path, and its cookie's value."""
        while len(self._sessions) >= MOST_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        path, value = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        self._sessions[path] = value
        return path, value

    def admits(self, path: str | None, value: str | None) -> bool:
        """Whether the two belong together."""
        held = None if path is None else self._sessions.get(path)
        return held is not None and _same(value, held)

    def refusal(self, headers: Mapping[str, str], *, socket: bool) -> str | None:
        """Why a request is refused whatever it brings; None where it may be looked at.

        `socket`: it opens the console's own connection, which only a page does.
        """
        host = headers.get("Host", "")
        if name_of(host) not in NAMES:
            return "ask by the address that was printed: localhost or 127.0.0.1"
        origin = headers.get("Origin")
        if origin is None and socket:
            return "a page of this server opens it, and nothing else"
        if origin is not None and origin != f"http://{host}":
            return "that comes from a page of another site"
        return None


def name_of(host: str) -> str:
    """The name in a Host header, without its port."""
    end = host.find("]") + 1 if host.startswith("[") else host.find(":") if ":" in host else len(host)
    name, port = host[:end], host[end:]
    if port and not (port[0] == ":" and port[1:].isascii() and port[1:].isdigit()):
        return ""
    return name.removeprefix("[").removesuffix("]").lower()


def _same(given: str | None, secret: str) -> bool:
    """Also of what is no text at all: a request's bytes may come as halves of characters."""
    return given is not None and hmac.compare_digest(given.encode("utf-8", "surrogatepass"), secret.encode())


def loopback(address: str) -> str:
    """`address`, if only this machine reaches it.

    Raises:
        InvalidRequest: others would.
    """
    name = "127.0.0.1" if address == "localhost" else address
    try:
        if ipaddress.ip_address(name).is_loopback:
            return name
    except ValueError:
        pass
    raise InvalidRequest(
        f"the console is not served on {address}: whoever reaches it could do everything that you can; "
        "leave --address out, and come by `ssh -L`"
    )
