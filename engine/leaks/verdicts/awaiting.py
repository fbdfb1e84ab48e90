"""Blocks that were freed while another stream might still use them.

The allocator looks whether it still does when somebody asks for memory or empties the cache. So what
waits right after a job is in order, and what still waits at a second look, with nothing running, is
memory that a stream holds on to: it was told of the tensor (`record_stream`) and has not come to its end.
"""

from __future__ import annotations

from engine.leaks.facts import Facts
from engine.leaks.verdicts.words import LEAST_LEAK, LEAST_NAMED
from engine.units import size_text
from engine.wire import Remedy, Verdict


def awaiting(facts: Facts) -> tuple[Verdict, ...]:
    """One for each stream."""
    look = facts.look
    if look is not None and look.allocator is not None:
        streams = tuple(look.allocator.awaiting.items())
    else:
        streams = (("", facts.part_bytes("awaiting_free")),)
    return tuple(
        _verdict(facts, stream, size)
        for stream, size in streams
        if size >= (LEAST_LEAK if _stayed(facts, stream, size) else LEAST_NAMED)
    )


def _stayed(facts: Facts, stream: str, num_bytes: int) -> bool:
    """Whether most of it waited at the look before as well, with nothing running between the two."""
    before = dict(facts.awaited_before).get(stream, 0)
    return facts.idle and before >= LEAST_LEAK and min(before, num_bytes) >= num_bytes / 2


def _verdict(facts: Facts, stream: str, num_bytes: int) -> Verdict:
    size, stayed = size_text(num_bytes), _stayed(facts, stream, num_bytes)
    return Verdict(
        kind="awaiting_free",
        leak=stayed,
        title=f"{size} on {facts.name} are freed and wait for another stream.",
        evidence=(
            f"Blocks of {size} were given back, and {_named(stream)} may still use them.",
            "They waited at the look before this one as well, and no job runs."
            if stayed
            else "The allocator takes them back once that stream has ended and memory is asked for.",
        ),
        bytes=num_bytes,
        device_id=facts.device_id,
        remedy=Remedy(
            action="free",
            text="Empty the cache, which waits for the stream's end and takes them back first.",
            command="turbotui free",
            predicted_bytes=num_bytes,
        ),
    )


def _named(stream: str) -> str:
    return f"stream {stream}" if stream else "a stream that is not told"
