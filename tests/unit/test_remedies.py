"""Whether a remedy kept its promise, by what its receipt says came back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from engine.daemon.remedies import Remedies
from engine.units import MIB
from engine.wire import Receipt, Remedy, RemedyRequest


@pytest.mark.parametrize(
    ("proof", "promised", "returned", "kept"),
    [
        ("process-rss", 4, 0, False),  # a resident set moves by so much, and all of it cannot be that
        ("process-rss", 4, 1, False),
        ("process-rss", 4, 3, True),
        ("process-rss", 60, 57, True),
        ("process-rss", 60, 50, False),
        ("nvml-process", 60, 57, False),
        ("nvml-process", 60, 59, True),
        ("allocator", 4, None, None),
    ],
)
async def test_a_promise_is_kept_by_what_can_be_seen_of_it(
    proof: str, promised: int, returned: int | None, kept: bool | None
) -> None:
    receipt = Receipt(
        action="collect", target="cycles and cache", ok=True, elapsed_s=0.1, proof=proof,  # type: ignore[arg-type]
        returned_bytes=None if returned is None else returned * MIB,
    )  # fmt: skip

    async def tidy(*_: Any) -> Receipt:
        return receipt

    other: Any = SimpleNamespace(tidy=tidy)
    remedies = Remedies(other, other, other, other, other, other, other)
    remedy = Remedy(action="collect", text="", predicted_bytes=promised * MIB)
    assert (await remedies.run(RemedyRequest(remedy=remedy), asker=None)).kept is kept
