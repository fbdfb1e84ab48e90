"""What all wire models have in common, and what both ends know of the wire itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

WIRE_VERSION = 1
"""Raised when a client of the previous version could no longer talk to the engine."""

HEARTBEAT_S = 2.0
"""An event stream says something at least this often; silence for three of these is loss."""


class Wire:
    """Base of every wire model: unknown fields of a request are refused by name."""

    __slots__ = ()
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorBody(Wire):
    """The body of every refusal."""

    code: str
    message: str
    """One sentence that names the value and the way out."""
