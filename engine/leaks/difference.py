"""What has grown between two looks into a worker: by the line that allocated it, and by what holds it."""

from __future__ import annotations

from engine.leaks.holders import Key, holder_key
from engine.wire import Grown, SinceMark
from engine.worker.leaks.facts import Findings, LiveTensors

MOST = 64
"""Sites, and holders, that are told."""
LEAST_BYTES = 4096
"""What moves by less is noise: a counter's tensor, a number that a job keeps."""


def since(before: Findings, after: Findings | None) -> SinceMark:
    """Two looks into one worker compared; of another worker nothing can be."""
    if after is None:
        return SinceMark(at=before.at, lost="the worker could not be looked into")
    if after.pid != before.pid:
        return SinceMark(at=before.at, lost=f"the worker of the mark, {before.pid}, has ended; mark again")
    return SinceMark(
        at=before.at, sites=by_site(before, after)[:MOST], holders=by_holder(before, after)[:MOST]
    )


def by_site(before: Findings, after: Findings) -> tuple[Grown, ...]:
    """Traced memory that came or went, the largest growth first; only what a trace saw is in it."""
    old = {(site.file, site.line, site.function): site for site in before.sites}
    new = {(site.file, site.line, site.function): site for site in after.sites}
    grown = []
    for place in old.keys() | new.keys():
        first, last = old.get(place), new.get(place)
        num_bytes = (last.bytes if last else 0) - (first.bytes if first else 0)
        count = (last.blocks if last else 0) - (first.blocks if first else 0)
        if num_bytes or count:
            grown.append(Grown(bytes=num_bytes, count=count, site=last or first))
    return _ordered(grown)


def by_holder(before: Findings, after: Findings) -> tuple[Grown, ...]:
    """The same of what Python holds, traced or not, but for what a job's calls have at hand."""
    old, new = _held(before), _held(after)
    grown = []
    for key in old.keys() | new.keys():
        first, last = old.get(key, ()), new.get(key, ())
        num_bytes = sum(item.bytes for item in last) - sum(item.bytes for item in first)
        count = sum(item.storages for item in last) - sum(item.storages for item in first)
        if num_bytes or count:
            told = max(last or first, key=lambda item: item.bytes)
            grown.append(Grown(bytes=num_bytes, count=count, site=told.site, holder=told.holder))
    return _ordered(grown)


def _held(look: Findings) -> dict[Key, list[LiveTensors]]:
    found: dict[Key, list[LiveTensors]] = {}
    for item in look.tensors:
        if not item.running or look.job_id is None:
            found.setdefault((item.place, *holder_key(item.holder)), []).append(item)
    return found


def _ordered(grown: list[Grown]) -> tuple[Grown, ...]:
    told = (growth for growth in grown if abs(growth.bytes) >= LEAST_BYTES)
    return tuple(sorted(told, key=lambda growth: (-growth.bytes, -growth.count)))
