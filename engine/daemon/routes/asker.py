"""Who asks, as the socket's other end is known."""

from __future__ import annotations

from fastapi import Request

from engine.daemon.audit import Asker


def asker_of(connection: Request) -> Asker | None:
    """The process at the other end; None where the server could not tell (see `OwnerOnlyProtocol`)."""
    if connection.client is None:
        return None
    return Asker(uid=int(connection.client.host.removeprefix("uid:")), pid=connection.client.port)
