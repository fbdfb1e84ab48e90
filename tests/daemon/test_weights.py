"""Weights as the whole engine moves them: cleanup, park, switches, plans that come true, warm files."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from engine.errors import NotFound, NotNow, WorkerReplaced
from engine.models.page_cache import cached_bytes, drop
from engine.wire import (
    CancelRequest,
    CleanupRequest,
    JobSpec,
    Manifest,
    PlanStep,
    Receipt,
    SwitchRequest,
    UnloadRequest,
    WarmRequest,
)
from tests.daemon.live import LiveEngine, is_gone, stop_process, wait_for

SMALL, LARGE = "wan-demo-small", "wan-demo-large"


def resident(engine: LiveEngine) -> set[str]:
    return {
        f"{model.name}/{item.name}"
        for model in engine.client.models()
        for item in model.components
        if item.state == "resident"
    }


def all_of(engine: LiveEngine, name: str) -> set[str]:
    (model,) = (model for model in engine.client.models() if model.name == name)
    return {f"{name}/{item.name}" for item in model.components}


def until_resident(engine: LiveEngine, wanted: set[str]) -> None:
    wait_for(lambda: resident(engine) == wanted, 5, f"{wanted} being resident")


def switch(engine: LiveEngine, model: str) -> Receipt:
    return engine.client.switch(SwitchRequest(model=model))


def moved(steps: tuple[PlanStep, ...], *actions: str) -> list[str]:
    return [f"{step.model}/{step.component}" for step in steps if step.action in actions]


def last_seq(engine: LiveEngine) -> int:
    return max((line.seq for line in engine.client.logs()), default=0)


def test_a_cleanup_brings_back_what_was_resident(live: LiveEngine) -> None:
    assert switch(live, SMALL).ok
    before = live.worker_pid()
    receipt = live.client.cleanup(CleanupRequest(reload=True))
    assert receipt.ok, receipt.error
    assert before is not None and is_gone(before)
    after = live.worker_pid()
    assert after not in (None, before)
    names = [step.name for step in receipt.steps]
    assert names == ["fresh context", "worker ended", "gone", f"wait until worker {after} is ready", "reload"]
    assert receipt.elapsed_s == pytest.approx(sum(step.elapsed_s for step in receipt.steps))
    (model,) = (model for model in live.client.models() if model.name == SMALL)
    assert receipt.loaded_bytes == model.bytes
    assert receipt.returned_bytes == receipt.expected_bytes > 0
    until_resident(live, all_of(live, SMALL))

    receipt = live.client.cleanup(CleanupRequest(reload=False))
    assert receipt.ok and receipt.loaded_bytes == 0
    assert resident(live) == set()


@pytest.mark.parametrize("stopped", [False, True])
def test_a_cleanup_under_a_job_leaves_it_interrupted_until_somebody_retries_it(
    live: LiveEngine, long: JobSpec, stopped: bool
) -> None:
    job = live.client.submit(long)
    live.until_running(job.id)
    worker = live.worker_pid()
    assert worker is not None
    if stopped:
        stop_process(worker)
    receipt = live.client.cleanup(CleanupRequest(reload=False))
    assert receipt.ok, receipt.error
    assert is_gone(worker)
    found = live.client.job(job.id)
    assert found.status == "interrupted"
    assert found.error is not None and "cleanup" in found.error
    live.client.retry(job.id)
    assert live.until_running(job.id).attempt == 2
    with pytest.raises(NotNow, match=f"job {job.id} runs"):
        live.client.park()
    live.client.cancel(job.id)
    assert live.settle(job.id).status == "cancelled"


def test_a_switch_that_waited_before_a_cleanup_is_served_after_its_reload(
    live: LiveEngine, long: JobSpec
) -> None:
    assert switch(live, LARGE).ok
    job = live.client.submit(long)
    live.until_running(job.id)
    switched: list[Receipt] = []
    asking = threading.Thread(target=lambda: switched.append(switch(live, SMALL)))
    asking.start()
    time.sleep(0.2)  # until it waits for the job
    cleaned = live.client.cleanup(CleanupRequest(reload=True))
    asking.join(30)
    assert cleaned.ok and switched[0].ok, (cleaned.error, switched[0].error)
    assert 0 < cleaned.at < switched[0].at
    assert any(step.name.startswith(f"unload {LARGE}/") for step in switched[0].steps)
    until_resident(live, all_of(live, SMALL))


def test_a_cleanup_in_the_middle_of_a_switch_brings_back_the_whole_of_what_was_there(
    live: LiveEngine,
) -> None:
    told: list[str] = []
    for after_ms in (5, 20, 35, 50, 65, 80):
        assert switch(live, SMALL).ok
        until_resident(live, all_of(live, SMALL))

        def ask() -> None:
            try:
                switch(live, LARGE)
            except WorkerReplaced as error:
                told.append(str(error))

        asking = threading.Thread(target=ask)
        asking.start()
        time.sleep(after_ms / 1000)
        before = len(told)
        receipt = live.client.cleanup(CleanupRequest(reload=True))
        asking.join(30)
        assert receipt.ok, receipt.error
        cut_off = len(told) > before
        until_resident(live, all_of(live, SMALL if cut_off else LARGE))
        if cut_off:
            assert receipt.steps[-1].name == f"reload what was there before the switch to {LARGE}"
    # Some of them came while it was at it.
    assert told
    assert f"which brings back {SMALL}; `turbotui switch {LARGE}` asks for it again" in told[0]


def test_a_cleanup_names_a_resident_model_that_has_lost_a_file(live: LiveEngine) -> None:
    assert switch(live, SMALL).ok
    file = next((live.paths.models / "demo" / SMALL / "vae").rglob("*.safetensors"))
    away = file.with_suffix(".away")
    file.rename(away)
    try:
        wait_for(lambda: any(model.problem for model in live.client.models()), 10, "a look at the folder")
        receipt = live.client.cleanup(CleanupRequest(reload=True))
    finally:
        away.rename(file)
    assert not receipt.ok and receipt.loaded_bytes == 0
    assert receipt.error is not None and receipt.error.startswith(f"did not come back: {SMALL}: ")
    assert resident(live) == set()
    wait_for(lambda: not any(model.problem for model in live.client.models()), 10, "another look")
    assert switch(live, SMALL).ok


def test_park_ends_the_worker_and_the_next_job_starts_one(live: LiveEngine, short: JobSpec) -> None:
    assert switch(live, SMALL).ok
    worker = live.worker_pid()
    receipt = live.client.park()
    assert receipt.ok and receipt.action == "park"
    assert worker is not None and is_gone(worker)
    assert live.worker_pid() is None
    assert resident(live) == set()
    assert live.client.park().expected_bytes == 0
    assert live.run(short).status == "done"
    assert live.worker_pid() not in (None, worker)


def test_two_switches_at_once_follow_each_other(live: LiveEngine) -> None:
    targets = [SMALL, LARGE, SMALL, LARGE]
    receipts: list[Receipt] = []
    threads = [
        threading.Thread(target=lambda name=name: receipts.append(switch(live, name))) for name in targets
    ]
    since = last_seq(live)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(receipts) == len(targets)
    assert all(receipt.ok for receipt in receipts), [receipt.error for receipt in receipts]
    done = [line.text for line in live.client.logs(after=since) if line.event == "switch"]
    last = LARGE if LARGE in done[-1] else SMALL
    until_resident(live, all_of(live, last))


def test_a_switch_given_up_at_any_time_leaves_the_one_model_or_the_other(live: LiveEngine) -> None:
    errors = []
    for after_ms in (0, 2, 5, 10, 20, 40, 80):
        assert switch(live, SMALL).ok
        until_resident(live, all_of(live, SMALL))
        receipts: list[Receipt] = []
        asking = threading.Thread(target=lambda found=receipts: found.append(switch(live, LARGE)))
        asking.start()
        time.sleep(after_ms / 1000)
        with suppress(NotNow):  # not asked yet, or over
            live.client.cancel_switch(CancelRequest(model=LARGE))
        asking.join(30)
        (receipt,) = receipts
        assert receipt.ok or receipt.error_code == "cancelled", receipt.error
        until_resident(live, all_of(live, LARGE if receipt.ok else SMALL))
        errors.append(receipt.error)
    # Some of them came to the worker while it was at it.
    assert f"cancelled; {SMALL} is loaded as before" in errors


@pytest.mark.parametrize("after_ms", [0, 20, 80, 150, 250, 400])
def test_a_reload_given_up_at_any_time_leaves_all_of_it_or_nothing(live: LiveEngine, after_ms: int) -> None:
    assert switch(live, LARGE).ok
    whole = all_of(live, LARGE)
    until_resident(live, whole)
    receipts: list[Receipt] = []
    asking = threading.Thread(
        target=lambda: receipts.append(live.client.cleanup(CleanupRequest(reload=True)))
    )
    asking.start()
    time.sleep(after_ms / 1000)
    with suppress(NotNow):
        live.client.cancel_switch(CancelRequest())
    asking.join(30)
    (receipt,) = receipts
    if receipt.ok:
        until_resident(live, whole)
    else:
        assert receipt.error_code == "cancelled"
        assert receipt.error is not None and "cancelled; nothing of it is loaded" in receipt.error
        until_resident(live, set())
    assert switch(live, SMALL).ok


def test_a_switch_does_what_was_explained(live: LiveEngine) -> None:
    assert switch(live, SMALL).ok
    told = live.client.explain_switch(SwitchRequest(model=LARGE))
    assert told.fits, told.reason
    receipt = switch(live, LARGE)
    names = [step.name for step in receipt.steps]
    assert [name.removeprefix("load ") for name in names if name.startswith("load ")] == moved(
        told.steps, "load"
    )
    unloaded = {name.removeprefix("unload ") for name in names if name.startswith("unload ")}
    assert unloaded == set(moved(told.steps, "evict"))
    assert receipt.loaded_bytes == sum(step.bytes for step in told.steps if step.action == "load")
    assert live.client.explain_switch(SwitchRequest(model=LARGE)).steps == ()


def test_a_job_moves_what_was_explained_and_a_repeated_prompt_needs_no_encoder(
    live: LiveEngine, short: JobSpec
) -> None:
    live.client.clear_cache()
    assert switch(live, LARGE).ok
    told = live.client.explain(short)
    assert told.fits, told.reason
    assert told.note is None
    since = last_seq(live)
    job = live.run(short)
    assert job.status == "done"
    lines = [line for line in live.client.logs(after=since) if line.job_id == job.id]
    for event, actions in (("load", ("load", "ahead")), ("unload", ("evict",))):
        happened = [line.text for line in lines if line.event == event]
        expected = moved(told.steps, *actions)
        assert len(happened) == len(expected), (happened, expected)
        assert all(any(name in text for text in happened) for name in expected)

    def stages(job_id: int) -> list[str]:
        path = live.client.job(job_id).manifest
        assert path is not None
        manifest = msgspec.json.decode(Path(path).read_bytes(), type=Manifest)
        return [record.stage for record in manifest.stages]

    assert "text" in stages(job.id)
    assert live.client.cache().entries == 1
    live.client.unload(UnloadRequest())
    told = live.client.explain(short)
    assert told.note is not None and "no text encoder is needed" in told.note
    assert moved(told.steps, "load", "ahead") == [f"{SMALL}/dit", f"{SMALL}/vae"]
    again = live.run(short)
    assert "text" not in stages(again.id)
    assert resident(live) == {f"{SMALL}/dit", f"{SMALL}/vae"}
    live.client.clear_cache()


def test_warm_files_are_in_the_page_cache_and_dropped_ones_are_not(live: LiveEngine, models: Path) -> None:
    folder = next(models.rglob(f"{SMALL}/transformer"))
    paths = sorted(folder.glob("*.safetensors"))
    size = sum(path.stat().st_size for path in paths)
    request = WarmRequest(model=SMALL, component="dit")
    receipt = live.client.warm(request)
    assert receipt.ok, receipt.error
    assert (receipt.proof, receipt.loaded_bytes) == ("page-cache", size)
    assert cached_bytes(paths) == size
    receipt = live.client.drop_warm(request)
    assert receipt.ok and receipt.expected_bytes == size
    left = cached_bytes(paths)
    assert left is not None
    assert receipt.returned_bytes == size - left
    if left:
        pytest.skip("this file system keeps its pages whatever it is told")
    assert receipt.residue_bytes == 0
    assert live.client.warm(request).loaded_bytes == size


@pytest.mark.parametrize(("model", "told"), [(None, "a component needs its model"), ("", "no model ''")])
def test_what_names_no_model_drops_nothing(live: LiveEngine, model: str | None, told: str) -> None:
    with pytest.raises(NotFound, match=told):
        live.client.drop_warm(WarmRequest(model=model, component="vae"))
    with pytest.raises(NotFound, match=told):
        live.client.unload(UnloadRequest(model=model, component="vae"))


def test_an_engine_at_rest_parks_by_itself_where_its_settings_say_so(
    spare: LiveEngine, short: JobSpec
) -> None:
    spare.environ["TURBOTUI_ENGINE_IDLE_UNLOAD_S"] = "1"
    spare.start()
    # At this moment the probe may not have looked at the device yet: what needs that waits for it.
    assert spare.client.explain_switch(SwitchRequest(model=SMALL)).fits
    assert spare.client.explain(short).fits
    assert switch(spare, SMALL).ok
    worker = spare.worker_pid()
    wait_for(lambda: spare.worker_pid() is None, 8, "the end of the worker")
    assert worker is not None and is_gone(worker)
    reason, receipt = wait_for(
        lambda: len(lines := [line for line in spare.client.logs() if line.event == "park"]) == 2 and lines,
        5,
        "the receipt of the park",
    )
    assert "nothing was asked for 1 s" in reason.text
    assert receipt.level == "info" and "worker and everything on it" in receipt.text


def test_two_cleanups_at_once_are_one(live: LiveEngine) -> None:
    assert live.client.switch(SwitchRequest(model=SMALL)).ok
    before = resident(live)
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
    assert resident(live) == before


def test_a_park_under_a_job_is_refused(live: LiveEngine, long: JobSpec) -> None:
    job = live.client.submit(long)
    wait_for(lambda: live.client.job(job.id).status == "running", 20, "the job's start")
    with pytest.raises(NotNow, match="runs"):
        live.client.park()
    live.client.cancel(job.id)
    live.settle(job.id)


def test_the_next_jobs_files_are_read_while_the_running_one_computes(live: LiveEngine) -> None:
    (large,) = (model for model in live.client.models() if model.name == LARGE)
    files = sorted((live.paths.models / "demo" / LARGE / "transformer").rglob("*.safetensors"))
    assert files, large
    live.client.unload(UnloadRequest())
    drop(files)
    if cached_bytes(files) != 0:
        pytest.skip("this file system keeps its pages")
    before = last_seq(live)
    first = live.client.submit(JobSpec(model=SMALL, prompt="now", frames=5, steps=4))
    second = live.client.submit(JobSpec(model=LARGE, prompt="later", frames=5, steps=1))

    def read() -> bool:
        return any(
            line.event == "read_ahead" and f"{LARGE}/dit" in line.text
            for line in live.client.logs(after=before)
        )

    wait_for(read, 20, "the line that says so")
    assert live.client.job(first.id).status == "running" or live.client.job(second.id).status != "queued"
    live.settle(second.id)
