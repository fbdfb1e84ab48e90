"""What is looked at once a second."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from engine.daemon.lookout import Lookout


def test_a_look_that_fails_is_told_and_those_after_it_are_made() -> None:
    seen: list[str] = []
    log: list[tuple[str, str]] = []

    def fail() -> None:
        raise ValueError("gone")

    logbook: Any = SimpleNamespace(write=lambda event, text, *, level: log.append((level, text)))
    lookout = Lookout((lambda: seen.append("before"), fail, lambda: seen.append("after")), logbook)
    lookout.look()
    lookout.look()
    assert seen == ["before", "after"] * 2
    assert log == [("error", "looking around: ValueError: gone")] * 2
