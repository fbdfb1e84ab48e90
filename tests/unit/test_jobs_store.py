"""What the job store promises to the engine: order, states, attempts and what survives a restart."""

from __future__ import annotations

import dataclasses
import itertools
import stat
from pathlib import Path

import msgspec
import pytest

from engine.errors import InvalidRequest, NotFound, NotNow, StorageUnusable
from engine.jobs.files import manifest_path
from engine.jobs.model import Owner
from engine.jobs.store import JobStore
from engine.wire import JobMove, JobSpec, Manifest
from tests.attempts import attempts_of

OURS = Owner(instance="engine-1", engine_pid=100, boot_id="boot", worker_pid=200, worker_start_time=5.0)
LATER = dataclasses.replace(OURS, instance="engine-2", engine_pid=101)


def spec(prompt: str = "a red fox in snow", priority: int = 0) -> JobSpec:
    return JobSpec(model="wan-demo-small", prompt=prompt, seed=7, priority=priority)


def dead(owner: Owner) -> bool:
    return False


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "jobs.sqlite"


@pytest.fixture
def store(path):
    ticks = itertools.count(1000)
    opened = JobStore(path, max_waiting=6, now=lambda: float(next(ticks)))
    yield opened
    opened.close()


def submit(store: JobStore, *priorities: int) -> list[int]:
    return [store.submit(spec(f"prompt {number}", priority)).id for number, priority in enumerate(priorities)]


def run(store: JobStore, job_id: int, folder: Path = Path("/videos")) -> int:
    return store.claim(job_id, OURS, output=str(folder / f"{job_id}.mp4")).attempt


def queue(store: JobStore) -> list[int]:
    return [job.id for job in store.list_waiting()]


def write_result(folder: Path, job_id: int, attempt: int, changes: dict | None = None) -> None:
    """A video and its manifest as a worker leaves them."""
    video = folder / f"{job_id}.mp4"
    video.write_bytes(b"frames")
    manifest = Manifest(
        job_id=job_id,
        spec=spec(),
        kind="t2v",
        width=128,
        height=80,
        fps=16,
        timesteps=(1.0, 0.0),
        device="cpu",
        device_name="cpu",
        output=str(video),
        output_bytes=6,
        frames_sha256="0" * 64,
        elapsed_s=1.0,
        stages=(),
        weights={},
        versions={},
        created_at=1.0,
        attempt=attempt,
    )
    Path(manifest_path(str(video))).write_bytes(
        msgspec.json.encode(dataclasses.replace(manifest, **(changes or {})))
    )


# ------------------------------------------------------------------------- submitting and reading


def test_a_submitted_job_is_queued_and_reads_back_as_it_was_asked_for(store):
    asked = JobSpec(
        model="wan-demo-i2v",
        prompt="雪の狐 🦊\n\ttwo lines",
        image="/i.png",
        seed=2**63,
        sigma_max=200.0,
        ode=True,
    )
    job = store.submit(asked, expected_peak_bytes=123)
    assert (job.status, job.spec, job.position, job.expected_peak_bytes) == ("queued", asked, 1, 123)
    assert store.get(job.id) == job


def test_the_store_survives_being_closed_and_opened(store, path):
    submit(store, 0, 3)
    before = store.list_jobs()
    store.close()
    reopened = JobStore(path)
    assert reopened.list_jobs() == before
    reopened.close()


def test_the_file_is_readable_by_its_owner_alone(store, path):
    submit(store, 0)
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}


def test_an_unknown_id_is_not_found_whatever_is_asked(store):
    actions = (
        store.get,
        store.cancel,
        store.retry,
        store.duplicate,
        store.hold,
        store.release,
    )
    for action in actions:
        with pytest.raises(NotFound, match="job 99"):
            action(99)
    with pytest.raises(NotFound):
        store.get(10**30)


def test_a_full_queue_refuses_the_next_job_and_keeps_the_others(store):
    submit(store, *[0] * 6)
    with pytest.raises(NotNow, match="6 jobs wait already"):
        store.submit(spec())
    assert store.count_waiting() == 6


def test_a_request_that_cannot_be_stored_is_refused_whole(store):
    with pytest.raises(InvalidRequest):
        store.submit(spec("half a pair \ud83e"))
    with pytest.raises(InvalidRequest, match="priority"):
        store.submit(spec(priority=10**30))
    assert store.list_jobs() == ()


def test_the_list_holds_all_that_is_open_and_the_newest_ended_ones_oldest_first(store):
    ids = submit(store, 0, 0, 0, 0)
    for job_id in ids[:3]:
        store.cancel(job_id)
    assert [job.id for job in store.list_jobs(ended=2)] == ids[1:]
    assert [job.id for job in store.list_jobs(ended=0)] == ids[3:]
    assert [job.id for job in store.list_jobs(ended=None)] == ids


def test_old_ended_jobs_are_dropped_so_that_the_file_stays_bounded(tmp_path):
    store = JobStore(tmp_path / "small.sqlite", keep_ended=2)
    ids = submit(store, 0, 0, 0, 0)
    for job_id in ids[:3]:
        run(store, job_id)
        store.finish(job_id, "done")
    assert [job.id for job in store.list_jobs(ended=None)] == ids[1:]
    assert store.submit(spec()).id == ids[-1] + 1
    store.close()


def test_an_end_is_kept_although_the_wall_clock_went_back(tmp_path):
    times = iter([100.0] * 8 + [1.0] * 8)
    store = JobStore(tmp_path / "clock.sqlite", keep_ended=1, now=lambda: next(times))
    first, second = submit(store, 0, 0)
    store.cancel(first)
    for _ in range(5):
        store._tables.now()
    assert store.cancel(second).finished_at == 1.0
    store.close()


# ------------------------------------------------------------------------- order


def test_a_higher_priority_goes_first_and_equal_ones_keep_their_order(store):
    ids = submit(store, 0, 5, 0, 5)
    assert queue(store) == [ids[1], ids[3], ids[0], ids[2]]
    assert [store.get(job_id).position for job_id in ids] == [3, 1, 4, 2]
    assert store.list_runnable()[0].id == ids[1]


def test_moving_to_a_position_reorders_and_stays_after_a_restart(store, path):
    ids = submit(store, 0, 0, 0)
    assert store.move(ids[2], JobMove(position=1)).position == 1
    store.move(ids[0], JobMove(position=99))
    store.close()
    reopened = JobStore(path)
    assert queue(reopened) == [ids[2], ids[1], ids[0]]
    reopened.close()


def test_a_job_submitted_after_a_move_goes_to_the_end(store):
    ids = submit(store, 0, 0)
    store.move(ids[0], JobMove(position=2))
    assert store.submit(spec()).position == 3


def test_a_new_priority_puts_a_job_behind_those_that_have_it(store):
    ids = submit(store, 5, 0, 0)
    moved = store.move(ids[1], JobMove(priority=5))
    assert (moved.position, moved.spec.priority) == (2, 5)


@pytest.mark.parametrize(
    "move", [JobMove(), JobMove(position=1, priority=1), JobMove(position=0), JobMove(priority=10**9)]
)
def test_a_move_that_says_nothing_or_too_much_is_refused(store, move):
    (job_id,) = submit(store, 0)
    with pytest.raises(InvalidRequest):
        store.move(job_id, move)


def test_a_held_job_lets_the_next_one_pass_until_it_is_released(store):
    first, second = submit(store, 0, 0)
    assert store.hold(first).held
    assert store.list_runnable()[0].id == second
    with pytest.raises(NotNow, match="held"):
        run(store, first)
    store.release(first)
    assert store.list_runnable()[0].id == first


def test_a_job_that_waits_for_memory_says_for_what_and_keeps_its_turn(store):
    first, _second = submit(store, 0, 0)
    assert store.wait_for_memory(first, "2 GiB of pid 7").waits_for == "2 GiB of pid 7"
    assert store.get(first).status == "waiting_memory"
    assert store.list_runnable()[0].id == first
    job = store.wait_for_memory(first, None)
    assert (job.status, job.waits_for) == ("queued", None)


def test_saying_again_for_what_a_job_waits_writes_nothing(store):
    (job_id,) = submit(store, 0)
    store.wait_for_memory(job_id, "room")
    before = store._tables._connection.total_changes
    store.wait_for_memory(job_id, "room")
    assert store._tables._connection.total_changes == before


# ------------------------------------------------------------------------- running and ending


def test_a_claimed_job_runs_with_its_attempt_and_worker_on_record(store):
    (job_id,) = submit(store, 0)
    store.wait_for_memory(job_id, "room")
    job = store.claim(job_id, dataclasses.replace(OURS, worker_pid=None), output="/v/1.mp4")
    assert (job.status, job.attempt, job.position, job.waits_for) == ("running", 1, None, None)
    store.set_worker(job_id, 321, 9.5)
    (attempt,) = attempts_of(store, job_id)
    assert (attempt.owner.worker_pid, attempt.owner.worker_start_time) == (321, 9.5)
    assert (attempt.output, attempt.manifest, attempt.outcome) == ("/v/1.mp4", "/v/1.json", None)


def test_a_job_cannot_be_claimed_twice(store):
    (job_id,) = submit(store, 0)
    run(store, job_id)
    with pytest.raises(NotNow, match=f"job {job_id} is running"):
        run(store, job_id)
    assert len(attempts_of(store, job_id)) == 1


def test_a_done_job_names_its_video_and_cannot_end_again(store):
    (job_id,) = submit(store, 0)
    run(store, job_id)
    job = store.finish(job_id, "done", output="/v/1.mp4", manifest="/v/1.json")
    assert (job.status, job.output, job.manifest) == ("done", "/v/1.mp4", "/v/1.json")
    for outcome in ("done", "failed", "cancelled"):
        with pytest.raises(NotNow):
            store.finish(job_id, outcome)
    with pytest.raises(NotNow, match="use duplicate"):
        store.retry(job_id)
    with pytest.raises(NotNow, match=f"^job {job_id} is done; only waiting or running jobs can be cancelled"):
        store.cancel(job_id)


def test_a_late_answer_of_an_earlier_attempt_ends_nothing(store):
    (job_id,) = submit(store, 0)
    run(store, job_id)
    store.interrupt(job_id, "the worker was killed")
    run(store, job_id)
    with pytest.raises(NotNow, match="attempt 2, not 1"):
        store.finish(job_id, "done", attempt=1)
    assert store.finish(job_id, "done", attempt=2).status == "done"


def test_a_waiting_job_can_fail_without_ever_having_run(store):
    (job_id,) = submit(store, 0)
    job = store.finish(job_id, "failed", error="its model was removed", error_code="model_unusable")
    assert (job.status, job.attempt, job.error) == ("failed", 0, "its model was removed")
    assert attempts_of(store, job_id) == ()


def test_a_waiting_job_is_cancelled_at_once_and_a_running_one_when_its_worker_obeys(store):
    first, second = submit(store, 0, 0)
    assert store.cancel(first).status == "cancelled"
    run(store, second)
    assert store.cancel(second).status == "running"
    assert store.finish(second, "cancelled").status == "cancelled"


def test_a_retried_job_keeps_its_id_and_history_and_goes_to_the_end(store):
    first, _second = submit(store, 0, 0)
    run(store, first)
    store.finish(first, "failed", error="no memory", error_code="out_of_memory")
    job = store.retry(first)
    assert (job.id, job.status, job.position, job.error) == (first, "queued", 2, None)
    assert run(store, first) == 2
    assert [attempt.outcome for attempt in attempts_of(store, first)] == ["failed", None]


def test_waiting_and_running_jobs_cannot_be_retried(store):
    first, second, third = submit(store, 0, 0, 0)
    store.wait_for_memory(second, "room")
    run(store, third)
    for job_id in (first, second, third):
        with pytest.raises(NotNow, match="can be retried"):
            store.retry(job_id)


def test_a_duplicate_is_a_new_job_that_names_its_original(store):
    (job_id,) = submit(store, 2)
    copy = store.duplicate(job_id)
    changed = store.duplicate(job_id, spec("another prompt"))
    assert (copy.duplicate_of, copy.spec, copy.status) == (job_id, store.get(job_id).spec, "queued")
    assert (changed.duplicate_of, changed.spec.prompt) == (job_id, "another prompt")


# ------------------------------------------------------------------------- interruption and recovery


def test_an_interrupted_job_runs_once_more_ahead_of_its_equals_and_then_stays_interrupted(store):
    first, second = submit(store, 0, 0)
    run(store, first)
    again = store.interrupt(first, "worker 200 was killed by signal 9")
    assert (again.status, again.position, again.error) == ("queued", 1, "worker 200 was killed by signal 9")
    assert again.error_code == "worker_died"
    run(store, first)
    last = store.interrupt(first, "worker 201 was killed by signal 9")
    assert (last.status, last.error) == ("interrupted", "worker 201 was killed by signal 9")
    assert [(a.attempt, a.outcome, a.cause) for a in attempts_of(store, first)] == [
        (1, "interrupted", "worker 200 was killed by signal 9"),
        (2, "interrupted", "worker 201 was killed by signal 9"),
    ]
    assert queue(store) == [second]


def test_a_person_who_retries_an_interrupted_job_gives_it_one_more_requeue(store):
    (job_id,) = submit(store, 0)
    for _ in range(2):
        run(store, job_id)
        store.interrupt(job_id, "killed", error_code="engine_ended")
    store.retry(job_id)
    run(store, job_id)
    assert store.interrupt(job_id, "killed").status == "queued"


def test_an_engine_stopped_on_purpose_uses_up_nobodys_second_chance(store):
    (job_id,) = submit(store, 0)
    for _ in range(3):
        run(store, job_id)
        job = store.interrupt(job_id, "the engine was stopped", error_code="engine_ended", counted=False)
        assert job.status == "queued"
    run(store, job_id)
    assert store.interrupt(job_id, "killed").status == "queued"
    run(store, job_id)
    assert store.interrupt(job_id, "killed").status == "interrupted"


def test_an_engine_requeues_what_the_one_before_it_left_running(store, path):
    first, second = submit(store, 0, 0)
    run(store, first)
    store.close()
    reopened = JobStore(path)
    found = reopened.recover("engine-2", dead)
    assert [job.id for job in found.requeued] == [first]
    assert reopened.get(first).error == "the engine (pid 100) ended under it"
    assert queue(reopened) == [first, second]
    assert reopened.recover("engine-2", dead).requeued == ()
    reopened.close()


def test_an_engine_leaves_its_own_running_job_alone(store):
    (job_id,) = submit(store, 0)
    run(store, job_id)
    store.recover("engine-1", dead)
    assert store.get(job_id).status == "running"


def test_a_job_whose_worker_still_lives_is_named_and_left_alone(store):
    (job_id,) = submit(store, 0)
    run(store, job_id)
    asked = []
    found = store.recover("engine-2", lambda owner: not asked.append(owner))
    assert [job.id for job in found.still_running] == [job_id]
    assert asked == [OURS]
    assert store.get(job_id).status == "running"


def test_a_finished_video_with_its_manifest_makes_an_unrecorded_end_done(store, tmp_path):
    (job_id,) = submit(store, 0)
    attempt = run(store, job_id, tmp_path)
    write_result(tmp_path, job_id, attempt)
    found = store.recover("engine-2", dead)
    assert [job.id for job in found.done] == [job_id]
    assert store.get(job_id).output == str(tmp_path / f"{job_id}.mp4")
    assert attempts_of(store, job_id)[0].outcome == "done"


@pytest.mark.parametrize(
    "damage",
    [
        {"job_id": 77},
        {"attempt": 9},
        {"output_bytes": 7},
        {"output": "/elsewhere.mp4"},
        "no video",
        "no manifest",
        "half a manifest",
        "empty video",
    ],
    ids=str,
)
def test_files_that_prove_nothing_do_not_make_a_job_done(store, tmp_path, damage):
    (job_id,) = submit(store, 0)
    attempt = run(store, job_id, tmp_path)
    write_result(tmp_path, job_id, attempt, damage if isinstance(damage, dict) else None)
    video, manifest = tmp_path / f"{job_id}.mp4", tmp_path / f"{job_id}.json"
    if damage == "no video":
        video.unlink()
    elif damage == "no manifest":
        manifest.unlink()
    elif damage == "half a manifest":
        manifest.write_bytes(manifest.read_bytes()[:-20])
    elif damage == "empty video":
        video.write_bytes(b"")
    assert [job.id for job in store.recover("engine-2", dead).requeued] == [job_id]


def test_a_worker_that_died_after_its_last_write_left_a_done_job(store, tmp_path):
    (job_id,) = submit(store, 0)
    write_result(tmp_path, job_id, run(store, job_id, tmp_path))
    assert store.interrupt(job_id, "killed").status == "done"


def test_a_job_to_be_cancelled_does_not_run_again_after_a_crash(store):
    (job_id,) = submit(store, 0)
    run(store, job_id)
    store.cancel(job_id)
    assert [job.id for job in store.recover("engine-2", dead).cancelled] == [job_id]
    assert store.get(job_id).status == "cancelled"


# ------------------------------------------------------------------------- the queue as a whole


def fail(store: JobStore, count: int, code: str) -> None:
    for _ in range(count):
        job_id = store.submit(spec()).id
        run(store, job_id)
        store.finish(job_id, "failed", error="it failed", error_code=code)


def test_three_failures_of_one_kind_hold_the_queue_also_after_a_restart(store, path):
    (waiting,) = submit(store, -1)
    fail(store, 3, "out_of_memory")
    assert "out_of_memory" in store.held_reason
    store.close()
    reopened = JobStore(path)
    assert "out_of_memory" in reopened.held_reason
    assert reopened.list_runnable() == ()
    with pytest.raises(NotNow, match="the queue is held"):
        run(reopened, waiting)
    reopened.resume()
    assert reopened.list_runnable()[0].id == waiting
    reopened.close()


# ------------------------------------------------------------------------- disks


def test_a_full_disk_rolls_the_whole_change_back_and_says_how_much_is_free(tmp_path):
    store = JobStore(tmp_path / "full.sqlite", max_waiting=10**6)
    store._tables.execute("PRAGMA max_page_count = 64")
    kept = 0
    with pytest.raises(StorageUnusable, match=r"full\.sqlite cannot grow.*bytes free"):
        while True:
            store.submit(spec("x" * 4000))
            kept += 1
    assert kept > 5
    assert len(store.list_jobs()) == kept
    assert store._tables.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    store._tables.execute("PRAGMA max_page_count = 640")
    assert store.cancel(1).status == "cancelled"
    store.close()


def test_a_store_that_turned_read_only_is_refused_by_its_path(store, path):
    submit(store, 0)
    store._tables.execute("PRAGMA query_only = ON")
    with pytest.raises(StorageUnusable, match=f"{path} cannot be written"):
        store.submit(spec())
    assert len(store.list_jobs()) == 1


def test_a_folder_that_cannot_hold_the_store_is_refused_by_its_path(tmp_path):
    with pytest.raises(StorageUnusable, match="TURBOTUI_HOME"):
        JobStore(tmp_path / "missing" / "jobs.sqlite")


def test_a_job_names_its_video_where_it_was_moved(store):
    first, second = submit(store, 0, 0)
    for job_id in (first, second):
        run(store, job_id)
        store.finish(job_id, "done", output=f"/videos/{job_id}.mp4", manifest=f"/videos/{job_id}.json")
    store.relocate({f"/videos/{first}.mp4": "/aside/a.mp4", f"/videos/{first}.json": "/aside/a.json"})
    assert (store.get(first).output, store.get(first).manifest) == ("/aside/a.mp4", "/aside/a.json")
    assert store.get(second).output == f"/videos/{second}.mp4"
