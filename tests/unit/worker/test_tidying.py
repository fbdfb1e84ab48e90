"""What is given back beside an unload and the cache, and how its receipt tells one from the other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from engine.units import MIB
from engine.worker.channel import CACHE_STEP
from engine.worker.tidying import Tidier


def held_by(*sizes: int) -> Any:
    """A device whose process holds so many MiB, one reading after the other."""
    left = [size * MIB for size in sizes]
    return SimpleNamespace(
        kind="cpu", proof="process-rss", held_bytes=lambda: left.pop(0), free_cache=lambda: None
    )


def test_cache_that_goes_first_is_none_of_what_the_cycles_held() -> None:
    receipt = Tidier(held_by(500, 440, 424)).tidy("collect")
    assert receipt.returned_bytes == 16 * MIB
    assert [(step.name, step.bytes) for step in receipt.steps] == [
        (CACHE_STEP, 60 * MIB), ("collect", 16 * MIB),
    ]  # fmt: skip


def test_a_cycle_that_does_not_go_is_not_told_as_gone_since_the_cache_went() -> None:
    assert Tidier(held_by(500, 440, 440)).tidy("collect").returned_bytes == 0


def test_without_a_cache_there_is_one_step_and_it_is_not_named() -> None:
    receipt = Tidier(held_by(500, 501, 480)).tidy("collect")
    assert receipt.steps == () and receipt.returned_bytes == 21 * MIB
