"""Host memory that the driver holds in place for torch: its allocator gives nothing back by itself, and
rounds each block up to the next power of two. Source: pytorch issue 134332."""

from __future__ import annotations

from collections.abc import Iterator

from engine.leaks.facts import Facts
from engine.leaks.holders import held_by, named
from engine.leaks.verdicts.tensor import is_leak, told, trend_of
from engine.leaks.verdicts.words import EXPLAINED, LEAST_NAMED, cleanup, growth, least_bytes, rise_bytes
from engine.units import size_text
from engine.wire import Remedy, Verdict
from engine.worker.leaks.facts import LiveTensors


def pinned(facts: Facts) -> tuple[Verdict, ...]:
    """Pinned tensors that Python holds, the allocator's cache, and growth that neither explains."""
    return tuple(_verdicts(facts))


def _verdicts(facts: Facts) -> Iterator[Verdict]:
    trend, host = facts.growing("pinned"), facts.host
    held = [item for item in facts.held() if item.pinned and item.bytes >= least_bytes(trend)]
    yield from (_held(facts, item) for item in sorted(held, key=lambda item: -item.bytes))
    if host.pinned_bytes is not None:
        idle = max(0, host.pinned_bytes - (host.pinned_used_bytes or 0))
        if idle >= LEAST_NAMED:
            yield _cached(facts, host.pinned_bytes, idle)
    if trend is not None:
        rise = rise_bytes(trend)
        if sum(item.bytes for item in held) < rise * EXPLAINED:
            yield Verdict(
                kind="pinned",
                leak=True,
                title=f"Pinned host memory has grown by {size_text(rise)}.",
                evidence=(*growth(trend), "The kernel can neither swap it nor give it to others."),
                bytes=rise,
                device_id=facts.device_id,
                component=trend.component,
                stage=trend.stage,
                site_reason="pinned memory that is no tensor's is not traced",
                remedy=_empty(rise),
            )


def _held(facts: Facts, item: LiveTensors) -> Verdict:
    trend = trend_of(facts, item)
    return Verdict(
        kind="pinned",
        leak=is_leak(facts, item),
        title=f"{size_text(item.bytes)} of pinned host memory are held by nothing in Python."
        if item.holder.kind == "none"
        else f"{named(item.holder)} holds {size_text(item.bytes)} of pinned host memory "
        f"({held_by(item.holder, running=item.running)}).",
        evidence=(
            *told(item, trend, leak=is_leak(facts, item)),
            "The kernel can neither swap it nor give it to others.",
        ),
        bytes=item.bytes,
        device_id=facts.device_id,
        component=None if trend is None else trend.component,
        stage=None if trend is None else trend.stage,
        site=item.site,
        site_reason=item.site_reason,
        holder=item.holder,
        remedy=cleanup(item.bytes),
    )


def _cached(facts: Facts, held_bytes: int, idle_bytes: int) -> Verdict:
    size = size_text(idle_bytes)
    return Verdict(
        kind="pinned",
        leak=False,
        title=f"{size} of host memory are pinned and not in use, which is a cache.",
        evidence=(
            f"torch holds {size_text(held_bytes)} of pinned blocks, of which {size} are in no tensor.",
            "It keeps them for the next copy; until then the kernel can give them to nobody.",
        ),
        bytes=idle_bytes,
        device_id=facts.device_id,
        remedy=_empty(idle_bytes),
    )


def _empty(num_bytes: int) -> Remedy:
    return Remedy(
        action="free_pinned",
        text="Empty the cache of pinned blocks; the next copy pins new ones.",
        predicted_bytes=num_bytes,
    )
