"""A GPU reset by a real engine, which has none: the program is a stand-in, all else is as it would be."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from engine.daemon.audit import AuditEntry
from engine.daemon.reset_mark import ResetMark
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
    job = client.submit(replace(long, frames=9))  # long enough for the plan, and it runs to its end later
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


def test_an_engine_that_is_started_under_a_reset_keeps_away_until_it_has_ended(
    resettable: LiveEngine, stand_in: ResetStandIn, short: JobSpec
) -> None:
    mark = resettable.paths.state / "reset-running.json"
    stand_in.set(reset_sleep=60.0)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(resettable.client.reset, ResetRequest(device_id=UUID, index=3))
        wait_for(mark.exists, 20, "the note of the reset")
        resettable.kill()
        assert asked.exception() is not None
    pid = msgspec.json.decode(mark.read_bytes(), type=ResetMark).pid
    try:
        assert not is_gone(pid)
        resettable.start()
        engine = resettable.status().engine
        assert "still runs" in (engine.queue.held_reason or "")
        job = resettable.client.submit(short)
        assert "still runs" in (job.waits_for or "")
        time.sleep(1.5)
        engine = resettable.status().engine
        assert engine.probe_age_s is None and engine.nursery.pid is None
        assert resettable.worker_pid() is None and resettable.client.job(job.id).attempt == 0
        assert [args[0] for args in stand_in.deeds()] == ["-pm", "--gpu-reset"]
    finally:
        os.kill(pid, signal.SIGTERM)  # the stand-in that this test has had started
    assert resettable.settle(job.id).status == "done"
    wait_for(lambda: not mark.exists(), 10, "nothing owed any more")
    assert stand_in.deeds()[-1][:2] == ["-pm", "1"]
    assert any("nobody saw how" in line.text for line in resettable.client.logs())
