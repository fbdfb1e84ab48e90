"""Memory put somewhere on purpose: it must appear in its own part, and no other part may move."""

from __future__ import annotations

from engine.wire import Balance

MIB = 2**20
GIB = 2**30
SLACK_BYTES = 4 * MIB
UNEXPLAINED = ("unexplained", "", None)


def parts_by_name(balance: Balance) -> dict[tuple[str, str, int | None], int]:
    """Bytes by kind, label and pid, the remainder as a part of its own.

    Raises:
        AssertionError: one cannot be known, or the whole does not add up.
    """
    found: dict[tuple[str, str, int | None], int] = {}
    for part in balance.parts:
        assert part.bytes is not None, part
        key = (part.kind, part.label if part.kind == "weights" else "", part.pid)
        assert key not in found, key
        found[key] = part.bytes
    found[UNEXPLAINED] = balance.unexplained_bytes
    assert sum(found.values()) == balance.total_bytes
    return found


def assert_only_moved(
    before: Balance, after: Balance, key: tuple[str, str, int | None], num_bytes: int
) -> None:
    """That `key` took `num_bytes`, free lost them, and everything else is where it was.

    Raises:
        AssertionError: it is not so.
    """
    assert before.coherent and after.coherent, (before.moving, after.moving)
    old, new = parts_by_name(before), parts_by_name(after)
    expected = {key: num_bytes, ("free", "", None): -num_bytes}
    for name in old.keys() | new.keys():
        moved = new.get(name, 0) - old.get(name, 0)
        wrong = moved - expected.get(name, 0)
        assert abs(wrong) <= SLACK_BYTES, f"{name} moved by {moved / MIB:.1f} MiB"
