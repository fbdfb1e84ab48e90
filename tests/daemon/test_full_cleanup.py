"""A full cleanup, and what is on the disk, by a real engine without a GPU."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine.errors import InvalidRequest, NotNow
from engine.wire import FullCleanupRequest, JobSpec, KillRequest, PruneRequest
from tests.daemon.live import LiveEngine, is_gone, wait_for


def test_back_to_the_baseline_in_ten_seconds_with_nothing_lost(
    spare: LiveEngine, short: JobSpec, long: JobSpec, tmp_path: Path
) -> None:
    spare.start()
    client = spare.client
    wait_for(lambda: spare.status().engine.nursery.state == "ready", 60, "the nursery")
    done = spare.run(short)
    running = client.submit(long)
    spare.until_running(running.id)
    waiting = client.submit(long)
    worker, nursery = spare.worker_pid(), spare.nursery_pid()
    assert worker is not None and nursery is not None

    plan = client.full_cleanup_plan()
    assert (plan.worker_pid, plan.job_id, plan.waiting, plan.nursery_pid) == (worker, running.id, 1, nursery)
    assert plan.videos == 1 and plan.logs >= 3 and plan.candidates == () and plan.worker_bytes
    with pytest.raises(InvalidRequest):
        client.full_cleanup(FullCleanupRequest(move_logs="relative"))
    assert not is_gone(worker)

    request = FullCleanupRequest(
        also=(KillRequest(pid=1, start_time=1.0),),
        move_outputs=str(tmp_path / "aside"),
        move_logs=str(tmp_path / "aside"),
    )
    began = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(client.full_cleanup, request) for _ in range(2)]
    assert time.monotonic() - began < 10
    [second] = [asked.exception() for asked in both if asked.exception() is not None]
    assert isinstance(second, NotNow) and "already under way" in str(second)
    [receipt] = [asked.result() for asked in both if asked.exception() is None]
    assert is_gone(worker) and is_gone(nursery) and spare.worker_pid() is None
    assert receipt.action == "full_cleanup" and receipt.returned_bytes and receipt.proof == "process-rss"
    # A process that may not be ended keeps nothing else from going on, and is told.
    assert not receipt.ok and "never ended" in (receipt.error or "")
    assert any("no GPU is read here" in note for note in receipt.notes)
    assert receipt.target == "everything of ours and process 1"
    shown = client.job(done.id).output
    assert shown is not None and Path(shown).exists() and str(tmp_path / "aside") in shown
    assert client.job(running.id).status == "interrupted"
    assert client.job(waiting.id).status == "queued"
    assert spare.status().engine.queue.held_reason is not None
    assert done.output is not None and not Path(done.output).exists()
    moved = {path.name for path in (tmp_path / "aside").rglob("*") if path.is_file()}
    assert Path(done.output).name in moved and {"engine.log", "engine.jsonl.1", "probe.log"} <= moved
    assert spare.paths.audit.exists() and client.outputs().videos == ()

    client.cancel(waiting.id)
    client.resume_queue()
    again = spare.run(short)
    assert again.status == "done"
    listed = client.outputs()
    assert [video.job_id for video in listed.videos] == [again.id]
    assert client.prune_outputs(PruneRequest(before=time.time() - 3600)).videos == ()
    gone = client.prune_outputs(PruneRequest(before=time.time() + 60, delete=True))
    assert len(gone.videos) == 1 and again.output is not None and not Path(again.output).exists()

    def audited() -> list[str]:
        lines = spare.paths.audit.read_text().splitlines()
        return [line.partition('"action":"')[2].partition('"')[0] for line in lines]

    wait_for(lambda: audited().count("prune") == 2, 5, "the audit's last line")
    assert audited().count("full_cleanup") == 6 and "kill" in audited()
