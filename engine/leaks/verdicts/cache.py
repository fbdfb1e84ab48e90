"""The allocator's cache, which `free` returns: no leak, and the first thing that people take for one."""

from __future__ import annotations

from engine.leaks.facts import Facts
from engine.leaks.verdicts.words import LEAST_NAMED
from engine.units import size_text
from engine.wire import Remedy, Verdict


def cache(facts: Facts) -> tuple[Verdict, ...]:
    """Segments with nothing alive in them, by the allocator's map or else by the balance."""
    look = facts.look
    if look is not None and look.allocator is not None:
        num_bytes = look.allocator.releasable_bytes
    else:
        num_bytes = facts.part_bytes("releasable")
    if num_bytes < LEAST_NAMED:
        return ()
    size = size_text(num_bytes)
    return (
        Verdict(
            kind="cache",
            leak=False,
            title=f"{size} on {facts.name} are cache, which is no leak.",
            evidence=(
                f"The allocator keeps {size} in segments with nothing alive in them.",
                "The next step of that size takes them without asking the driver.",
            ),
            bytes=num_bytes,
            device_id=facts.device_id,
            remedy=Remedy(
                action="free",
                text="Leave it, or give it back to others; it is safe under a running job.",
                command="turbotui free",
                predicted_bytes=num_bytes,
            ),
        ),
    )
