"""Two looks compared: what grew comes first, what left is negative, what stayed is not told."""

from __future__ import annotations

import msgspec

from engine.leaks.difference import by_holder, by_site, since
from engine.units import KIB
from engine.wire import Holder, Site, Tracing
from engine.worker.leaks.facts import Findings, LiveTensors


def site(line: int, num_bytes: int, blocks: int = 1) -> Site:
    return Site(file="plugin.py", line=line, function="keep", bytes=num_bytes, blocks=blocks)


def tensors(num_bytes: int, *path: str, running: bool = False, storages: int = 1) -> LiveTensors:
    return LiveTensors(
        place="host",
        bytes=num_bytes,
        storages=storages,
        shape=(1,),
        dtype="float32",
        holder=Holder(path=path, kind="global"),
        running=running,
    )


def look(
    *, sites: tuple[Site, ...] = (), held: tuple[LiveTensors, ...] = (), job_id: int | None = None
) -> Findings:
    return Findings(
        at=0,
        elapsed_s=0,
        pid=1,
        objects=1,
        sites=sites,
        tensors=held,
        tracing=Tracing(on=True),
        job_id=job_id,
    )


def test_sites_that_grew_came_or_went_by_more_than_a_counter() -> None:
    before = look(sites=(site(1, 100 * KIB), site(2, 50 * KIB), site(3, 7 * KIB), site(4, 204)))
    after = look(sites=(site(1, 400 * KIB, 4), site(3, 7 * KIB), site(9, 20 * KIB), site(5, 204)))
    grown = by_site(before, after)
    lines = [(growth.site.line, growth.bytes // KIB, growth.count) for growth in grown if growth.site]
    assert lines == [(1, 300, 3), (9, 20, 1), (2, -50, -1)]


def test_holders_are_the_same_whatever_the_place_in_their_list_and_what_runs_is_left_out() -> None:
    before = look(held=(tensors(10 * KIB, "module p", "KEPT", "[0]"), tensors(5 * KIB, "module p", "GONE")))
    after = look(
        held=(
            tensors(30 * KIB, "module p", "KEPT", "[7]", storages=3),
            tensors(99 * KIB, "local x of f", running=True),
        ),
        job_id=3,
    )
    grown = by_holder(before, after)
    assert [(growth.bytes // KIB, growth.count) for growth in grown] == [(20, 2), (-5, -1)]
    assert grown[0].holder is not None and grown[0].holder.path[-1] == "[7]"
    waits = by_holder(before, msgspec.structs.replace(after, job_id=None))[0]
    assert (waits.bytes, waits.holder and waits.holder.path) == (99 * KIB, ("local x of f",)), "a thread's"


def test_what_came_since_a_mark_is_told_of_the_same_worker_alone() -> None:
    before, after = look(), look(sites=(site(1, 100 * KIB),), held=(tensors(100 * KIB, "module p", "KEPT"),))
    found = since(before, after)
    assert found.lost is None and len(found.sites) == len(found.holders) == 1
    other = since(before, msgspec.structs.replace(after, pid=2))
    assert "the worker of the mark, 1, has ended" in (other.lost or "") and not other.sites + other.holders
    assert "could not be looked into" in (since(before, None).lost or "")
