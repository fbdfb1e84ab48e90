"""What survives when a process is killed: the queue, the truth about every job, and nothing else."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine.errors import StorageUnusable, WorkerDied, WorkerSilent
from engine.jobs.store import JobStore
from engine.wire import JobSpec, Receipt, SwitchRequest
from tests.attempts import attempts_of
from tests.daemon.live import LiveEngine, is_gone, stop_process, wait_for


def test_a_killed_worker_interrupts_its_job_which_then_runs_again(live: LiveEngine, long: JobSpec) -> None:
    job = live.client.submit(long)
    live.until_running(job.id)
    killed = live.worker_pid()
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    again = wait_for(
        lambda: (found := live.client.job(job.id)).attempt == 2 and found, 20, "the second attempt"
    )
    assert again.status == "running"
    live.until_running(job.id)
    assert live.worker_pid() != killed
    live.client.cancel(job.id)
    assert live.settle(job.id).status == "cancelled"
    store = JobStore(live.paths.jobs)
    try:
        first = attempts_of(store, job.id)[0]
    finally:
        store.close()
    assert first.outcome == "interrupted"
    assert first.cause is not None and str(killed) in first.cause and "SIGKILL" in first.cause


def test_a_worker_killed_in_the_middle_of_a_switch_leaves_the_model_that_was_there(live: LiveEngine) -> None:
    small, large = "wan-demo-small", "wan-demo-large"
    killed_in_time = 0
    for after_ms in (5, 20, 35, 50, 65, 80):
        assert live.client.switch(SwitchRequest(model=small)).ok
        worker = live.worker_pid()
        assert worker is not None
        receipts: list[Receipt] = []
        asking = threading.Thread(
            target=lambda found=receipts: found.append(live.client.switch(SwitchRequest(model=large)))
        )
        asking.start()
        time.sleep(after_ms / 1000)
        os.kill(worker, signal.SIGKILL)
        asking.join(30)
        (receipt,) = receipts
        if not receipt.ok:
            killed_in_time += 1
            assert receipt.error is not None and receipt.error_code == "worker_died"
            assert str(worker) in receipt.error
            assert receipt.error.endswith(f"; and {small} is loaded again")
            assert receipt.steps[-1].name == f"bring back {small}"
        wait_for(lambda killed=worker: live.worker_pid() != killed, 5, "the worker's end")
        loaded = {
            (model.name, part.name): part.state for model in live.client.models() for part in model.components
        }
        states = {state for (name, _), state in loaded.items() if name == small}
        assert states == ({"absent"} if receipt.ok else {"resident"}), receipt
        active = [model.name for model in live.client.models() if model.active]
        assert active == ([] if receipt.ok else [small])
    assert killed_in_time


def test_the_daemon_maps_no_torch_after_a_killed_and_a_cancelled_job(live: LiveEngine) -> None:
    maps = live.mapped_files()
    assert not [name for name in ("libtorch", "libcuda", "libnvidia-ml") if name in maps]


def test_a_killed_daemon_takes_worker_and_nursery_along_and_the_next_one_runs_the_job(
    spare: LiveEngine, long: JobSpec, short: JobSpec
) -> None:
    assert spare.start() < 10
    job = spare.client.submit(long)
    waiting = spare.client.submit(short)
    spare.until_running(job.id)
    worker, nursery = spare.worker_pid(), spare.nursery_pid()
    assert worker is not None and nursery is not None
    stop_process(worker)  # a stopped process runs no watchdog of its own: only the kernel reaches it
    spare.kill()
    wait_for(lambda: is_gone(worker) and is_gone(nursery), 2, "the end of worker and nursery")

    spare.start()
    found = spare.client.job(job.id)
    assert found.status in ("queued", "running")
    assert found.attempt >= 1
    spare.until_running(job.id)
    assert spare.client.job(job.id).attempt == 2
    shutil.rmtree(spare.paths.runtime)
    wait_for(spare.answers, 5, "the socket's return")
    assert spare.client.job(job.id).status == "running"
    spare.client.cancel(job.id)
    assert spare.settle(job.id).status == "cancelled"
    assert spare.settle(waiting.id).status == "done"


def test_a_job_store_of_a_newer_build_is_refused_and_left_as_it_is(spare: LiveEngine) -> None:
    spare.paths.state.mkdir(parents=True)
    shutil.copy(Path(__file__).parent.parent / "data" / "jobs-schema-1.sqlite", spare.paths.jobs)
    with sqlite3.connect(spare.paths.jobs) as connection:
        connection.execute("PRAGMA user_version = 9999")
    connection.close()
    before = spare.paths.jobs.read_bytes()
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "engine.daemon"],
        env=spare.environ,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert ended.returncode == StorageUnusable.exit_code
    assert "9999" in ended.stderr and len(ended.stderr.splitlines()) == 1
    assert spare.paths.jobs.read_bytes() == before


def test_a_stop_while_the_worker_starts_leaves_the_job_queued_and_whole(
    spare: LiveEngine, short: JobSpec
) -> None:
    spare.start()
    job = spare.client.submit(short)
    for _ in range(2):
        wait_for(lambda: spare.client.job(job.id).status == "running", 10, "its start")
        spare.stop()
        spare.start()
    assert spare.settle(job.id).status == "done"


def test_a_worker_that_is_stopped_freezes_nobody_and_ends_by_a_second_cancel(
    live: LiveEngine, long: JobSpec, short: JobSpec
) -> None:
    job = live.client.submit(long)
    live.until_running(job.id)
    worker = live.worker_pid()
    assert worker is not None
    stop_process(worker)
    for _ in range(300):
        live.client.cancel(job.id)
    assert live.client.job(job.id).status == "running"
    time.sleep(3.1)
    live.client.cancel(job.id)
    assert live.settle(job.id, 10).status == "cancelled"
    assert is_gone(worker)
    assert live.run(short).status == "done"


def test_a_cancel_before_the_job_began_does_not_reach_its_next_attempt(
    spare: LiveEngine, short: JobSpec
) -> None:
    spare.start()
    job = spare.client.submit(short)
    wait_for(lambda: spare.client.job(job.id).status == "running", 10, "its start")
    spare.client.cancel(job.id)
    assert spare.settle(job.id, 2).status == "cancelled"
    spare.client.retry(job.id)
    assert spare.settle(job.id).status == "done"


def test_a_switch_of_a_worker_that_is_stopped_fails_and_is_told_of_when_it_happens_after_all(
    spare: LiveEngine,
) -> None:
    spare.start()
    assert spare.client.switch(SwitchRequest(model="wan-demo-small")).ok
    worker = spare.worker_pid()
    assert worker is not None
    stop_process(worker)
    asking = ThreadPoolExecutor(1).submit(spare.client.switch, SwitchRequest(model="wan-demo-large"))
    wait_for(lambda: spare.status().workers[0].state == "silent", 6, "the word that it is silent")
    with pytest.raises(WorkerSilent, match="turbotui cleanup"):
        asking.result(20)
    os.kill(worker, signal.SIGCONT)
    wait_for(
        lambda: [model.name for model in spare.client.models() if model.active] == ["wan-demo-large"],
        10,
        "the switch",
    )
    (line,) = [
        line for line in spare.client.logs() if line.event == "switch" and "wan-demo-large" in line.text
    ]
    assert line.level == "info"
    wait_for(lambda: spare.status().workers[0].state == "idle", 2, "a worker at rest")
    assert spare.worker_pid() == worker


def test_a_nursery_that_is_stopped_fails_the_start_and_is_replaced(spare: LiveEngine) -> None:
    spare.start()
    wait_for(lambda: spare.status().engine.nursery.state == "ready", 60, "the nursery")
    nursery = spare.nursery_pid()
    assert nursery is not None
    stop_process(nursery)
    began = time.monotonic()
    with pytest.raises(WorkerDied, match=f"pid {nursery}.*is replaced; ask again"):
        spare.client.switch(SwitchRequest(model="wan-demo-small"))
    assert time.monotonic() - began < 10
    wait_for(lambda: is_gone(nursery), 2, "its end")
    assert spare.client.switch(SwitchRequest(model="wan-demo-small")).ok
    assert spare.nursery_pid() not in (None, nursery)
    assert spare.status().workers[0].forked
