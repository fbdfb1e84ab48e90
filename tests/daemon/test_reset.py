"""A GPU reset by a real engine, which has none: the program is a stand-in, all else is as it would be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from engine.daemon.audit import AuditEntry
from engine.errors import InvalidRequest, NotFound, Refused
from engine.wire import JobSpec, ResetRequest
from tests.daemon.live import LiveEngine, is_gone, wait_for
from tests.reset_stand_in import UUID, ResetStandIn


@pytest.fixture
def stand_in(tmp_path: Path) -> ResetStandIn:
    return ResetStandIn(tmp_path, persistence_mode="Enabled")


@pytest.fixture
def resettable(spare: LiveEngine, stand_in: ResetStandIn) -> Iterator[LiveEngine]:
    spare.environ["TURBOTUI_ENGINE_RESET_PROGRAM"] = str(stand_in.path)
    spare.start()
    yield spare


def test_a_reset_ends_all_of_ours_and_brings_it_back_with_the_job(
    resettable: LiveEngine, stand_in: ResetStandIn, long: JobSpec
) -> None:
    client = resettable.client
    wait_for(lambda: resettable.status().engine.nursery.state == "ready", 60, "the nursery")
    job = client.submit(long)
    resettable.until_running(job.id)
    before = {
        role: next(p.pid for d in resettable.status().devices for p in d.processes if p.ours == role)
        for role in ("worker", "nursery", "probe")
    }
    with pytest.raises(Refused, match="cpu has no reset"):
        client.reset_plan("cpu")
    with pytest.raises(NotFound):
        client.reset_plan("7")
    plan = client.reset_plan("3")
    assert any(f"worker {before['worker']}; job {job.id} is interrupted" in text for text in plan.ends)
    with pytest.raises(InvalidRequest, match="not 0"):
        client.reset(ResetRequest(device_id=UUID, index=0))
    assert stand_in.deeds() == [] and not is_gone(before["worker"])

    receipt = client.reset(ResetRequest(device_id=UUID, index=3))
    assert receipt.ok, receipt.error
    assert [args[:2] for args in stand_in.deeds()] == [["-pm", "0"], ["--gpu-reset", "-i"], ["-pm", "1"]]
    assert all(is_gone(pid) for pid in before.values())
    wait_for(lambda: resettable.status().engine.nursery.state == "ready", 60, "a new nursery")
    again = wait_for(lambda: resettable.worker_pid(), 30, "a new worker")
    assert again != before["worker"]
    ended = resettable.settle(job.id)
    assert ended.status == "done" and ended.attempt == 2
    assert resettable.status().engine.probe_age_s is not None
    assert any("GPU reset was asked for" in line.text for line in client.logs() if line.job_id == job.id)

    lines = resettable.paths.audit.read_bytes().splitlines()
    entries = [msgspec.json.decode(line, type=AuditEntry) for line in lines]
    assert [entry.result.partition(":")[0] for entry in entries] == ["refused", "asked", "done"]
    assert all(entry.uid is not None and entry.pid for entry in entries)
    assert resettable.paths.audit.stat().st_mode & 0o777 == 0o600
