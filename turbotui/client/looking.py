"""Owns what of an engine a console that only looks may ask: all that changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from engine.errors import NotNow
from turbotui.text import t

if TYPE_CHECKING:
    from turbotui.client.base import Client

LOOKS = frozenset(
    {
        "hello", "status", "models", "jobs", "job", "preview", "course", "forecast", "forecast_many",
        "full_cleanup_plan", "outputs", "reset_plan", "reset_helper", "explain", "explain_switch", "check",
        "last_check", "audit", "ledger", "cache", "history", "logs", "metrics", "subscribe", "ask",
        "receive_file", "socket_path", "where", "scan_models", "released_models", "get_plan", "model_errand",
        "plan_quantising", "leaks", "out_of_memory",
    }
)  # fmt: skip
"""What a client does that changes nothing, by name; what is not here is refused, whoever asks for it."""


class LookingClient:
    """A client whose acting calls raise NotNow: no screen can forget that nothing is to be done."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        if name not in LOOKS:
            raise NotNow(t("why.read_only"))
        return getattr(self._client, name)


def only_looking(client: Client | None) -> Client | None:
    """`client` for a console that only looks."""
    return None if client is None else cast("Client", LookingClient(client))
