"""Answers that somebody may wait for, and that do not come."""

from __future__ import annotations

import asyncio
from typing import Any


def fail(answer: asyncio.Future[Any], error: Exception) -> None:
    """Let whoever waits for `answer` have `error` instead, unless it has come; nobody need be waiting."""
    if not answer.done():
        answer.set_exception(error)
        answer.exception()  # marked as seen
