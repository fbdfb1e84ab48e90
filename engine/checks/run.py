"""All detectors over one set of facts, and what they could not know."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from engine.checks import engine, floor, processes, worker
from engine.checks.facts import Facts
from engine.checks.unseen import unseen
from engine.wire import NOBODYS, Finding, Severity

RANK: dict[Severity, int] = {"info": 0, "notice": 1, "warning": 2, "critical": 3}
STALE_S = 5.0
DETECTORS: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    engine.driver,
    processes.orphans,
    processes.web_ui_leftovers,
    processes.unreachable_by_signals,
    unseen,
    floor.floors,
    worker.residue,
    worker.unexplained,
    worker.silence,
    worker.fragmentation,
    worker.pressure,
    worker.allocator,
    worker.cudnn,
    worker.host_memory,
    worker.cache,
    processes.other_engines,
    engine.nursery,
    engine.probe,
)


def find(facts: Facts) -> tuple[Finding, ...]:
    """Everything that is found, the worst and largest first."""
    found = [finding for detector in DETECTORS for finding in detector(facts)]
    return tuple(sorted(found, key=lambda finding: (-RANK[finding.severity], -(finding.bytes or 0))))


def unknown(facts: Facts) -> tuple[str, ...]:
    """What this check could say nothing about, and why."""
    return tuple(_unknown(facts))


def _unknown(facts: Facts) -> Iterable[str]:
    if not facts.scanned:
        yield "processes: /proc was not looked through within the time; leftovers may be missing"
    for device in facts.gpus:
        name = f"GPU {device.index}" if device.index is not None else device.id
        if device.age_s is not None and device.age_s > STALE_S:
            yield f"{name}: its newest reading is {device.age_s:.0f} s old"
        if device.balance is None:
            yield f"{name}: its memory was not read yet"
            continue
        if not device.balance.coherent:
            yield f"{name}: memory moved while it was read: nothing is said of unseen memory or cache"
        for part in device.balance.parts:
            if part.kind in NOBODYS and part.bytes is None:
                yield f"{name}: unseen memory, since {part.reason or 'the driver does not tell'}"
    if not facts.devices:
        yield "devices: nothing was read yet"
    if facts.workers and facts.versions is None:
        yield "libraries: the worker is not ready, so its versions are not known"
