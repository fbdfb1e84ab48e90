"""A verdict keeps its number from one report to the next, and no other thing ever gets it."""

from __future__ import annotations

from dataclasses import replace

from engine.leaks.numbers import MOST_KNOWN, Numbers
from engine.wire import Holder, Remedy, Verdict

CACHE = Verdict(kind="cache", leak=False, title="5 GiB", evidence=(), bytes=5, device_id="gpu")
KEPT = Verdict(
    kind="tensor", leak=True, title="64 MiB", evidence=(), bytes=64, device_id="gpu",
    holder=Holder(path=("module plants", "KEPT", "[3]"), kind="global"),
)  # fmt: skip
TENANT = Verdict(
    kind="process", leak=False, title="a process", evidence=(), bytes=7, device_id="gpu",
    remedy=Remedy(action="kill", text="End it.", pid=41, start_time=1.0),
)  # fmt: skip


def numbers(found: tuple[Verdict, ...]) -> list[int]:
    return [verdict.number for verdict in found]


def test_the_same_thing_keeps_its_number_whatever_comes_and_goes() -> None:
    given = Numbers()
    assert numbers(given.give((KEPT, CACHE, TENANT))) == [1, 2, 3]
    holder = Holder(path=("module plants", "KEPT", "[0]"), kind="global")
    grown = replace(KEPT, title="96 MiB", bytes=96, holder=holder)
    other = replace(TENANT, remedy=Remedy(action="kill", text="End it.", pid=41, start_time=9.0))
    assert numbers(given.give((TENANT, grown))) == [3, 1]
    assert numbers(given.give((other, CACHE))) == [4, 2], "the same pid, another process"


def test_two_that_nothing_tells_apart_have_two_numbers() -> None:
    given = Numbers()
    assert numbers(given.give((CACHE, CACHE))) == [1, 2] == numbers(given.give((CACHE, CACHE)))


def test_what_has_been_gone_for_long_is_forgotten_and_its_number_is_never_given_again() -> None:
    given = Numbers()
    given.give((CACHE, KEPT))
    for pid in range(MOST_KNOWN):
        remedy = Remedy(action="kill", text="End it.", pid=pid, start_time=1.0)
        given.give((CACHE, replace(TENANT, remedy=remedy)))
    assert len(given._known) == MOST_KNOWN
    assert numbers(given.give((CACHE, KEPT))) == [1, MOST_KNOWN + 3]
