"""Live tensors that Python holds although neither the engine nor a running call needs them."""

from __future__ import annotations

from collections.abc import Iterator

from engine.leaks.facts import Facts, What
from engine.leaks.holders import held_by, named
from engine.leaks.verdicts.words import SHARE_OF_RISE, cleanup, collect, growth, least_bytes, rise_bytes
from engine.units import counted, size_text
from engine.wire import Remedy, Trend, Verdict
from engine.worker.leaks.facts import SUSPECTS, LiveTensors

MOST = 12
"""Verdicts of one look; further ones are smaller."""


def tensor(facts: Facts) -> tuple[Verdict, ...]:
    """One for each place in Python that holds some, the largest first; of pinned ones `pinned` tells."""
    found = sorted((item for item in facts.held() if not item.pinned), key=lambda item: -item.bytes)
    return tuple(_verdict(facts, item) for item in found if item.bytes >= least_bytes(trend_of(facts, item)))[
        :MOST
    ]


def trend_of(facts: Facts, item: LiveTensors) -> Trend | None:
    """The floors that it would raise, where they rise."""
    on_gpu = facts.device is not None and facts.device.kind == "cuda"
    # On cpu the arenas and tensors lie in host memory, and are counted as the device's.
    places: tuple[What, ...] = ("device",) if item.place == "device" else ("host",)
    if item.pinned:
        places = ("pinned", "host")
    if not on_gpu:
        places = ("device", "host")
    return next((trend for what in places if (trend := facts.growing(what)) is not None), None)


def is_leak(facts: Facts, item: LiveTensors) -> bool:
    """A memo is kept on purpose, and what a thread has at hand it works with: a leak only where it may be
    what grows; all else stays though nothing needs it.
    """
    trend = trend_of(facts, item)
    if item.holder.kind != "cache" and not item.running:
        return trend is not None or facts.idle
    return trend is not None and item.bytes >= rise_bytes(trend) * SHARE_OF_RISE


def _verdict(facts: Facts, item: LiveTensors) -> Verdict:
    trend, size = trend_of(facts, item), size_text(item.bytes)
    where = facts.name if item.place == "device" else "the host"
    by = held_by(item.holder, running=item.running)
    return Verdict(
        kind="tensor",
        leak=is_leak(facts, item),
        title=f"{size} of tensors on {where} are held by nothing in Python."
        if item.holder.kind == "none"
        else f"{named(item.holder)} holds {size} of tensors on {where} ({by}).",
        evidence=tuple(told(item, trend, leak=is_leak(facts, item))),
        bytes=item.bytes,
        device_id=facts.device_id,
        component=None if trend is None else trend.component,
        stage=None if trend is None else trend.stage,
        site=item.site,
        site_reason=item.site_reason,
        holder=item.holder,
        remedy=_remedy(item),
    )


def told(item: LiveTensors, trend: Trend | None, *, leak: bool) -> Iterator[str]:
    """How much it is, by what it is reached, and where that is written."""
    shape = "x".join(str(axis) for axis in item.shape) or "scalar"
    size = size_text(item.bytes)
    yield f"{counted(item.storages, 'tensor')} of {size}, the largest {shape} in {item.dtype}."
    yield f"It is reached by {' > '.join(item.holder.path)}."
    if item.holder.file is not None and item.holder.line is not None:
        yield f"The holder is written at {item.holder.file}:{item.holder.line}."
    if item.site is not None:
        yield f"It was allocated at {item.site.file}:{item.site.line} in {item.site.function}."
    if item.holder.kind == "none":
        yield from (f"Suspected: {suspect}." for suspect in SUSPECTS)
    if trend is not None and (leak or item.holder.kind != "cache"):
        yield from growth(trend)
    if item.running:
        yield "A thread waits in that call though no job runs; it lets go of it when the call ends."
    elif item.holder.kind != "cache":
        yield "Neither the engine's own bookkeeping nor a running call needs it."
    elif leak:
        yield "It is a memo, which is kept on purpose, and may be what grows; a mark tells whether it is."
    else:
        yield "It is a memo, which is kept on purpose; it would be a leak if it grew with every job."


def _remedy(item: LiveTensors) -> Remedy:
    # A cycle is the one thing that can be let go of from outside; whatever else holds it still refers to it.
    return collect(item.bytes) if item.holder.kind == "cycle" else cleanup(item.bytes)
