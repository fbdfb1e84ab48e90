"""Owns who may come in: a browser on this machine, or at the end of a tunnel to it, that knows the token.

Pure. A page of another site can make a browser send requests here, and by DNS rebinding even under a name
of its own: so the name that was asked for must be a loopback name, what comes from a page must come from
ours, and all of it must bring the cookie that only the printed address gives.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Door:
    """The token, and the cookie that stands for it."""

    token: str
    cookie: str

    def knows(self, given: str | None) -> bool:
        return given is not None and hmac.compare_digest(given.encode(), self.token.encode())

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
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.rpartition(":")[0].lower() if ":" in host else host.lower()


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
