"""Many jobs and switches on one engine: nothing grows that should not."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from engine.wire import JobSpec, SwitchRequest, UnloadRequest
from tests.daemon.live import LiveEngine

pytestmark = pytest.mark.long

ROUNDS = 12
MIB = 2**20


def rss_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def test_floors_stay_where_they_are_over_many_jobs_switches_and_unloads(
    spare: LiveEngine, short: JobSpec, long: JobSpec, image: Path
) -> None:
    spare.start()
    daemon = spare.client.hello().pid
    floors: list[tuple[int, int]] = []
    handles: list[tuple[int, int, int, int]] = []
    for number in range(ROUNDS):
        for spec in (
            replace(short, seed=number),
            replace(short, model="wan-demo-large", seed=number),
            replace(short, model="wan-demo-i2v", image=str(image), steps=4, seed=number),
        ):
            assert spare.run(spec).status == "done"
        job = spare.client.submit(long)
        spare.until_running(job.id)
        spare.client.cancel(job.id)
        assert spare.settle(job.id).status == "cancelled"
        assert spare.client.switch(SwitchRequest(model="wan-demo-small")).ok
        receipt = spare.client.unload(UnloadRequest())
        assert receipt.ok and receipt.residue_bytes == 0
        worker = spare.worker_pid()
        assert worker is not None
        floors.append((rss_bytes(worker), rss_bytes(daemon)))
        handles.append((open_files(worker), open_files(daemon), threads(worker), threads(daemon)))
    print([(round(worker / MIB), round(daemon / MIB)) for worker, daemon in floors], handles)
    # The first rounds load libraries and fill caches; after that a floor that climbs is a leak.
    settled = floors[ROUNDS // 3 :]
    assert settled[-1][0] - settled[0][0] < 24 * MIB
    assert settled[-1][1] - settled[0][1] < 8 * MIB
    assert handles[-1] == pytest.approx(handles[ROUNDS // 3], abs=2)
    assert not list(spare.paths.output.glob(".*.part"))
