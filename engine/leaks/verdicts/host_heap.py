"""Host memory of the worker that grows with jobs or switches, and that no tensor explains."""

from __future__ import annotations

from engine.leaks.facts import Facts
from engine.leaks.verdicts.words import EXPLAINED, cleanup, growth, least_bytes, rise_bytes
from engine.units import MIB, size_text
from engine.wire import Remedy, Verdict

TRIM_LEAST = 256 * MIB
"""Freed and kept by the heap: less is what a worker has between two jobs."""


def host_heap(facts: Facts) -> tuple[Verdict, ...]:
    """What grows is a leak; what was freed and is only kept by the C library is none, where nothing grows."""
    trend, free = facts.growing("host"), facts.host.heap_free_bytes
    if trend is None:
        kept = _resident(facts, free)
        return () if kept < TRIM_LEAST else (_kept(facts, kept),)
    rise = rise_bytes(trend)
    told = sum(
        item.bytes
        for item in facts.held()
        if item.place == "host" and item.bytes >= least_bytes(trend) and not _counted_apart(facts)
    )
    if rise and told >= rise * EXPLAINED:
        return ()
    return (
        Verdict(
            kind="host_heap",
            leak=True,
            title=f"The worker's host memory has grown by {size_text(rise)}.",
            evidence=(
                *growth(trend),
                *(
                    ()
                    if not free
                    else (f"Of the worker's heap {size_text(free)} are freed and kept by the C library.",)
                ),
                *_shared(facts, rise),
                "Pages of mapped weight files and weights in host memory are not counted in it.",
            ),
            bytes=rise,
            device_id=facts.device_id,
            component=trend.component,
            stage=trend.stage,
            site_reason="host memory that is no tensor's is not traced",
            remedy=_trim() if free is not None and free >= max(rise, TRIM_LEAST) else cleanup(rise),
        ),
    )


def _shared(facts: Facts, rise: int) -> tuple[str, ...]:
    """That it may be memory of no heap."""
    shared = facts.host.shared_bytes
    if shared is None or shared < rise * EXPLAINED:
        return ()
    return (
        f"Of the worker's memory {size_text(shared)} are shared mappings or files in `/dev/shm`; such a file "
        "stays when its worker ends, until somebody removes it.",
    )


def _counted_apart(facts: Facts) -> bool:
    """On cpu tensors make a floor of their own, the device's: where that grows, the host's does beside it."""
    on_cpu = facts.device is not None and facts.device.kind == "cpu"
    return on_cpu and facts.growing("device") is not None


def _resident(facts: Facts, free: int | None) -> int:
    """Of the heap's free pieces what can be resident at all: they count also where their pages have gone."""
    rss = None if facts.worker is None else facts.worker.rss_bytes
    if free is None or rss is None:
        return 0
    on_cpu = facts.device is not None and facts.device.kind == "cpu"
    weights = sum(item.bytes for item in facts.components) if on_cpu else 0
    return min(free, max(0, rss - weights))


def _kept(facts: Facts, num_bytes: int) -> Verdict:
    size = size_text(num_bytes)
    return Verdict(
        kind="host_heap",
        leak=False,
        title=f"Up to {size} of the worker's heap are freed and kept by the C library, which is no leak.",
        evidence=(f"The heap holds {size} of free pieces, which the next request takes.",),
        bytes=num_bytes,
        device_id=facts.device_id,
        remedy=_trim(),
    )


def _trim() -> Remedy:
    return Remedy(
        action="trim",
        text="Have the C library give free pages of the heap back to the kernel.",
        # The heap counts free pieces also where their pages have gone already, so nothing is predicted.
        predicted_bytes=None,
    )
