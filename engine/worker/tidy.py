"""What gives memory of the worker back beside `Free`: how the daemon asks for it. Imports no torch."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

TidyWhat: TypeAlias = Literal["collect", "free_pinned", "trim"]

TIDIED: dict[TidyWhat, str] = {
    "collect": "cycles and cache",
    "free_pinned": "cache of pinned memory",
    "trim": "free pages of the heap",
}
"""What each names in its receipt."""


class Tidy(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Look for cycles, empty the pinned allocator's cache, or trim the heap; answered by ActionEnded."""

    action_id: int
    what: TidyWhat
