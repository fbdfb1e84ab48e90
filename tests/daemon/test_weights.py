"""Weights through a real engine: cleaned up, parked, explained, and never lost to two wishes at once."""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec

from engine.errors import EngineError
from engine.wire import (
    CleanupRequest,
    JobSpec,
    Manifest,
    Receipt,
    SwitchRequest,
    UnloadRequest,
    WarmRequest,
)
from tests.daemon.live import LiveEngine, stop_process, wait_for

SMALL, LARGE = "wan-demo-small", "wan-demo-large"


def _resident(live: LiveEngine) -> set[str]:
    return {
        f"{model.name}/{part.name}"
        for model in live.client.models()
        for part in model.components
        if part.state == "resident"
    }


def test_a_cleanup_replaces_the_worker_and_brings_back_what_was_there(live: LiveEngine) -> None:
    assert live.client.switch(SwitchRequest(model=SMALL)).ok
    before, pid = _resident(live), live.worker_pid()
    receipt = live.client.cleanup(CleanupRequest(reload=True))
    assert (receipt.action, receipt.ok, receipt.error) == ("cleanup", True, None)
    assert receipt.loaded_bytes > 0
    assert [step.name.split()[0] for step in receipt.steps] == ["worker", "gone", "worker", "reload"]
    assert live.worker_pid() not in (None, pid)
    assert _resident(live) == before
    empty = live.client.cleanup(CleanupRequest(reload=False))
    assert (empty.ok, empty.loaded_bytes) == (True, 0)
    assert _resident(live) == set()


def test_two_cleanups_at_once_are_one(live: LiveEngine) -> None:
    assert live.client.switch(SwitchRequest(model=SMALL)).ok
    before = _resident(live)
    receipts: list[Receipt] = []
    asking = [
        threading.Thread(target=lambda: receipts.append(live.client.cleanup(CleanupRequest())))
        for _ in range(2)
    ]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join(30)
    assert [receipt.ok for receipt in receipts] == [True, True]
    assert _resident(live) == before


def test_two_switches_at_once_come_one_after_the_other(live: LiveEngine) -> None:
    receipts: dict[str, Receipt] = {}

    def switch(name: str) -> None:
        receipts[name] = live.client.switch(SwitchRequest(model=name))

    asking = [threading.Thread(target=switch, args=(name,)) for name in (SMALL, LARGE)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join(30)
    assert all(receipts[name].ok for name in (SMALL, LARGE))
    models = {label.split("/")[0] for label in _resident(live)}
    assert len(models) == 1


def test_a_cleanup_under_a_job_interrupts_it_even_where_the_worker_hangs(
    live: LiveEngine, long: JobSpec, short: JobSpec
) -> None:
    job = live.client.submit(long)
    live.until_running(job.id)
    pid = live.worker_pid()
    assert pid is not None
    stop_process(pid)
    assert live.client.cleanup(CleanupRequest(reload=False)).ok
    ended = live.settle(job.id)
    assert (ended.status, ended.error_code) == ("interrupted", "cleaned_up")
    assert live.run(short).status == "done"
    again = live.client.retry(job.id)
    assert again.status in ("queued", "running")
    live.client.cancel(job.id)
    live.settle(job.id)


def test_park_ends_the_worker_and_the_next_work_starts_one(live: LiveEngine, long: JobSpec) -> None:
    assert live.client.switch(SwitchRequest(model=SMALL)).ok
    receipt = live.client.park()
    assert (receipt.action, receipt.ok, receipt.residue_bytes) == ("park", True, 0)
    assert live.worker_pid() is None
    job = live.client.submit(long)
    wait_for(lambda: live.client.job(job.id).status == "running", 20, "the job's start")
    try:
        live.client.park()
    except EngineError as error:
        assert error.code == "not_now"
    else:
        raise AssertionError("a park under a job was not refused")
    live.client.cancel(job.id)
    live.settle(job.id)


def test_what_is_explained_is_what_happens(live: LiveEngine) -> None:
    live.client.unload(UnloadRequest())
    plan = live.client.explain_switch(SwitchRequest(model=LARGE))
    assert plan.fits
    receipt = live.client.switch(SwitchRequest(model=LARGE))
    loads = [step.component for step in plan.steps if step.action == "load"]
    done = [step.name.rpartition("/")[2] for step in receipt.steps if step.name.startswith("load ")]
    assert loads == done == ["text", "dit", "vae"]
    assert all(step.reason for step in plan.steps)


def test_a_prompt_that_was_seen_needs_no_text_encoder(live: LiveEngine, short: JobSpec) -> None:
    first, again = live.run(short), live.run(short)
    assert first.manifest is not None and again.manifest is not None
    manifests = [
        msgspec.json.decode(Path(path).read_bytes(), type=Manifest)
        for path in (first.manifest, again.manifest)
    ]
    assert "text" not in [line.stage for line in manifests[1].stages]
    assert manifests[0].frames_sha256 == manifests[1].frames_sha256
    assert manifests[1].first_step_at is not None
    assert len(manifests[1].step_s) == 1


def test_warm_and_drop_tell_what_the_page_cache_holds(live: LiveEngine) -> None:
    live.client.switch(SwitchRequest(model=SMALL))
    warm = live.client.warm(WarmRequest(model=SMALL, component="dit"))
    assert (warm.ok, warm.proof) == (True, "page-cache")
    dropped = live.client.drop_warm(WarmRequest(model=SMALL, component="dit"))
    assert dropped.ok
    assert dropped.returned_bytes is None or dropped.returned_bytes <= dropped.expected_bytes


def test_an_engine_that_rests_parks_by_itself(spare: LiveEngine) -> None:
    spare.environ["TURBOTUI_ENGINE_IDLE_UNLOAD_S"] = "1"
    spare.start()
    wait_for(lambda: any(device.in_use for device in spare.status().devices), 10, "the first reading")
    assert spare.client.switch(SwitchRequest(model=SMALL)).ok
    wait_for(lambda: spare.worker_pid() is None, 15, "the park")
    assert spare.client.jobs() == []
