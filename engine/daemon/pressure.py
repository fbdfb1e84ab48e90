"""Whether memory runs short, who filled it and what could go: a plain judgement, and its steady level.

Two things are looked at: what is in use now, and what will be at the peak of the running or the
next job. Nothing is dropped here; see `engine.daemon.overview`.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from engine.units import MIB, size_text
from engine.wire import (
    Balance,
    ComponentStatus,
    Growth,
    ModelStatus,
    Pressure,
    PressureLevel,
    PressureOffer,
)

LEVELS: tuple[PressureLevel, ...] = ("none", "warn", "act")
MARGIN = 0.03
"""A level is left only when the share is so far below it: the job that fills a device to just its
threshold would else raise it ten times a minute."""
HOLD_S = 5.0
"""And not sooner than this after it was reached."""
LEAST_OFFER_BYTES = 16 * MIB
"""What frees less helps nobody."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Peak:
    """What will be in use at the peak of a job, all else of ours gone."""

    job_id: int
    bytes: int


class Ladder:
    """The level of one device: up at once, down with a margin and not at once."""

    def __init__(self, warn: float, act: float) -> None:
        """`warn` and `act` are the shares from which these levels hold."""
        self._starts: dict[PressureLevel, float] = {"none": 0.0, "warn": warn, "act": act}
        self.level: PressureLevel = "none"
        self._reached = float("-inf")

    def step(self, share: float, now: float) -> PressureLevel:
        """The level at `now` (monotonic) with `share` of the memory in use or predicted."""
        wanted: PressureLevel = "none"
        for level in LEVELS[1:]:
            if share >= self._starts[level]:
                wanted = level
        if LEVELS.index(wanted) >= LEVELS.index(self.level):
            if wanted != self.level:
                self.level, self._reached = wanted, now
            return self.level
        left = share < self._starts[self.level] - MARGIN
        if left and now - self._reached >= HOLD_S:
            self.level, self._reached = wanted, now
        return self.level


def judge(
    device_id: str,
    *,
    name: str = "",
    ladder: Ladder,
    now: float,
    total_bytes: int,
    used_bytes: int,
    peak: Peak | None,
    grew: tuple[Growth, ...],
    offers: tuple[PressureOffer, ...],
) -> Pressure:
    """How things stand with a device (or `host`), in figures and one sentence, which calls it by `name`."""
    used_share = _share(used_bytes, total_bytes)
    predicted_share = None if peak is None else _share(peak.bytes, total_bytes)
    level = ladder.step(max(used_share, predicted_share or 0.0), now)
    whose = {"cpu": "host memory", "host": "host memory"}.get(device_id, name or device_id)
    why = f"{100 * used_share:.0f} % of {size_text(total_bytes)} {whose} in use"
    if peak is not None and predicted_share is not None and predicted_share > used_share:
        why += f", {100 * predicted_share:.0f} % predicted at the peak of job {peak.job_id}"
    if grew:
        why += ": " + ", ".join(growth_text(growth) for growth in grew)
    return Pressure(
        device_id=device_id,
        level=level,
        total_bytes=total_bytes,
        used_bytes=used_bytes,
        used_share=used_share,
        predicted_bytes=None if peak is None else peak.bytes,
        predicted_share=predicted_share,
        predicted_job=None if peak is None else peak.job_id,
        why=why,
        grew=grew,
        offers=offers if level != "none" else (),
    )


def growth_text(growth: Growth) -> str:
    """`liwei 90112 +6.20 GiB in 40 s`."""
    return f"{growth.who} +{size_text(growth.bytes)} in {growth.over_s:.0f} s"


def pressure_text(pressure: Pressure) -> str:
    """A pressure as the log and a notification tell it."""
    if pressure.level == "none":
        return f"over: {pressure.why}"
    going = ", ".join(
        f"{offer.target} {size_text(offer.bytes)} (`{offer.command}`)" for offer in pressure.offers
    )
    return f"{pressure.level}: {pressure.why}; can go: {going or 'nothing of ours'}"


def device_offers(balance: Balance, models: Sequence[ModelStatus]) -> tuple[PressureOffer, ...]:
    """What of ours could leave the device now: all at once, then each idle component, the largest first.

    What is leased or on its way is not offered.
    """
    idle = sorted(
        (
            (f"{model.name}/{part.name}", part.bytes)
            for model in models
            for part in model.components
            if _is_idle(part)
        ),
        key=lambda item: -item[1],
    )
    cache = cache_bytes(balance)
    offers = []
    whole = cache + sum(size for _, size in idle)
    if whole >= LEAST_OFFER_BYTES:
        named = "cache and idle components" if idle and cache else "cache" if cache else "idle components"
        offers.append(
            PressureOffer(what="free", target=named, bytes=whole, command="turbotui free", action="free")
        )
    offers += [
        PressureOffer(
            what="component",
            target=label,
            bytes=size,
            command=f"turbotui unload {shlex.quote(label)}",
            action="unload",
        )
        for label, size in idle
        if size >= LEAST_OFFER_BYTES
    ]
    return tuple(offers)


def host_offers(warm_bytes: int) -> tuple[PressureOffer, ...]:
    """What of ours could leave host memory: the warm tier, which costs time and nothing else."""
    if warm_bytes < LEAST_OFFER_BYTES:
        return ()
    return (
        PressureOffer(
            what="warm",
            target="warm weight files",
            bytes=warm_bytes,
            command="turbotui drop-warm",
            action="warm",
        ),
    )


def cache_bytes(balance: Balance) -> int:
    """What `free` returns without touching a component."""
    return sum(part.bytes or 0 for part in balance.parts if part.kind == "releasable")


def _is_idle(part: ComponentStatus) -> bool:
    return part.state == "resident" and not part.leased


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0
