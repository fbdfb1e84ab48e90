"""Cache that shares a segment with something alive: no leak either, but nothing short of a fresh worker
returns it, and a large request may fail beside it."""

from __future__ import annotations

from engine.leaks.facts import Facts
from engine.leaks.verdicts.words import LEAST_NAMED, cleanup
from engine.units import counted, size_text
from engine.wire import Segment, Verdict


def fragmentation(facts: Facts) -> tuple[Verdict, ...]:
    """By the allocator's map, or else by the balance."""
    look, again_bytes = facts.look, 0
    if look is not None and look.allocator is not None:
        num_bytes, segments = look.allocator.fragmented_bytes, look.segments
        again_bytes = look.allocator.beside_weights_bytes
    else:
        num_bytes, segments = facts.part_bytes("fragmented"), ()
    if num_bytes < LEAST_NAMED:
        return ()
    size = size_text(num_bytes)
    return (
        Verdict(
            kind="fragmented",
            leak=False,
            title=f"{size} on {facts.name} are free and cut up between live blocks.",
            evidence=(
                f"The allocator keeps {size} free inside segments that are partly in use.",
                *_cut(segments),
                *_again(again_bytes),
                "`free` cannot return them; a large request may fail beside them.",
            ),
            bytes=num_bytes,
            device_id=facts.device_id,
            remedy=None if num_bytes - again_bytes < LEAST_NAMED else cleanup(num_bytes - again_bytes),
        ),
    )


def _again(num_bytes: int) -> tuple[str, ...]:
    if not num_bytes:
        return ()
    return (f"Of it {size_text(num_bytes)} lie beside weights: a fresh worker has such gaps again.",)


def _cut(segments: tuple[Segment, ...]) -> tuple[str, ...]:
    """How badly: in how many segments, and the longest stretch that one request could have of it."""
    mixed = [
        segment.blocks
        for segment in segments
        if {"live", "free"} <= {state for state, _size in segment.blocks}
    ]
    if not mixed:
        return ()
    longest = max(size for blocks in mixed for state, size in blocks if state == "free")
    return (f"They lie in {counted(len(mixed), 'segment')}; the longest stretch is {size_text(longest)}.",)
