"""Live blocks of the device's allocator in which no tensor of Python lies, and growth with no holder."""

from __future__ import annotations

from collections.abc import Iterator

from engine.leaks.facts import Facts
from engine.leaks.verdicts.words import EXPLAINED, cleanup, growth, least_bytes, rise_bytes
from engine.units import counted, size_text
from engine.wire import Trend, Verdict
from engine.worker.leaks.facts import UnownedBlocks


def unowned(facts: Facts) -> tuple[Verdict, ...]:
    """One for each site and stream, without a library's workspaces; and one for growth with no holder."""
    trend = facts.growing("device")
    found = () if facts.look is None else facts.look.unowned
    blocks = [item for item in found if item.library is None and item.bytes >= least_bytes(trend)]
    return (
        *(_verdict(facts, item, trend) for item in sorted(blocks, key=lambda item: -item.bytes)),
        *_unexplained(facts, trend, sum(item.bytes for item in blocks)),
    )


def _verdict(facts: Facts, item: UnownedBlocks, trend: Trend | None) -> Verdict:
    size = size_text(item.bytes)
    return Verdict(
        kind="unowned_tensor",
        # While a job computes, its graph and its kernels hold blocks that no object of Python does.
        leak=facts.idle or trend is not None,
        title=f"{size} on {facts.name} are live and no object of Python holds them.",
        evidence=tuple(_evidence(item, trend)),
        bytes=item.bytes,
        device_id=facts.device_id,
        component=None if trend is None else trend.component,
        stage=None if trend is None else trend.stage,
        site=item.site,
        site_reason=item.site_reason,
        remedy=cleanup(item.bytes),
    )


def _evidence(item: UnownedBlocks, trend: Trend | None) -> Iterator[str]:
    yield f"{counted(item.blocks, 'block')} of {size_text(item.bytes)} on stream {item.stream}."
    for suspect in item.suspects:
        yield f"Suspected: {suspect}."
    if item.site is not None:
        yield f"They were allocated at {item.site.file}:{item.site.line} in {item.site.function}."
    if trend is not None:
        yield from growth(trend)


def _unexplained(facts: Facts, trend: Trend | None, seen_bytes: int) -> tuple[Verdict, ...]:
    if trend is None:
        return ()
    held = sum(item.bytes for item in facts.held() if item.bytes >= least_bytes(trend))
    rise = rise_bytes(trend)
    if held + seen_bytes >= rise * EXPLAINED:
        return ()
    size = size_text(rise)
    return (
        Verdict(
            kind="unowned_tensor",
            leak=True,
            title=f"What is live on {facts.name} has grown by {size}, and nobody is seen to hold it.",
            evidence=(
                *growth(trend),
                "The worker could not be looked into."
                if facts.look is None
                else f"Holders of {size_text(held + seen_bytes)} were found, far less than that.",
            ),
            bytes=rise,
            device_id=facts.device_id,
            component=trend.component,
            stage=trend.stage,
            site_reason="no block was found to which a site could belong",
            remedy=cleanup(rise),
        ),
    )
