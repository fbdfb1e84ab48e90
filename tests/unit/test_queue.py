"""The queue's runner over a real store: whatever a job meets, its end is stored and the next one runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.config import EngineConfig
from engine.daemon import queue, unwritten
from engine.daemon.budget import Budget
from engine.daemon.job_plans import JobPlan
from engine.daemon.model_use import ModelUse
from engine.daemon.queue import QueueRunner, choose_output
from engine.errors import DeviceTaken, NotFound, StorageUnusable, WorkerDied, WorkerNotStarted, WorkerStopped
from engine.jobs.store import JobStore
from engine.wire import Job, JobSpec, JobState
from engine.worker.channel import JobEnded, RunJob

Answer = Callable[[RunJob], Any]


class FakeSupervisor:
    """Answers each job with what the test says, by the job's prompt."""

    def __init__(self) -> None:
        self.device_lock = asyncio.Lock()
        self.answers: dict[str, Answer] = {}
        self.ready = asyncio.Event()
        self.ready.set()
        self.ran: list[str] = []
        self.closed: str | None = None
        self.residents = SimpleNamespace(present=lambda: [])

    async def ensure_worker(self) -> Any:
        await self.ready.wait()
        return SimpleNamespace(pid=1, start_time=1.0)

    async def run_job(self, message: RunJob) -> JobEnded:
        self.ran.append(message.spec.prompt)
        answer = self.answers.get(message.spec.prompt, lambda job: failed(job, "work_failed"))(message)
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, JobEnded)
        return answer

    def cancel_job(self, job_id: int) -> None:
        pass


def failed(message: RunJob, code: str) -> JobEnded:
    return JobEnded(job_id=message.job_id, error_code=code, error=f"{code} happened")


class FakePlans:
    """Plans without models; a model called `gone` has vanished since it was submitted."""

    peak_bytes = 10

    def __init__(self, output_dir: Path) -> None:
        self._output_dir = output_dir

    def doubt(self, spec: JobSpec) -> str | None:
        return None

    def admit(self, spec: JobSpec) -> JobPlan:
        if spec.model == "gone":
            raise NotFound("there is no model 'gone'")
        admitted = SimpleNamespace(spec=spec, width=16, height=16, frames=5, output_dir=self._output_dir)
        footprint = SimpleNamespace(peak_bytes=self.peak_bytes, stages={})
        model = SimpleNamespace(name=spec.model, kind="t2v", path=Path("/m"))
        return JobPlan(model=model, admitted=admitted, footprint=footprint)  # type: ignore[arg-type]


class World:
    def __init__(self, tmp_path: Path) -> None:
        self.store = JobStore(tmp_path / "jobs.sqlite")
        self.supervisor = FakeSupervisor()
        self.log: list[str] = []
        self.wanted: list[tuple[str | None, tuple[str, ...]]] = []
        self.budget = Budget(now_bytes=100, empty_bytes=100, held_by="nobody")
        self.plans = FakePlans(tmp_path)
        self.runner = QueueRunner(
            self.store,
            SimpleNamespace(get=lambda name: SimpleNamespace(name=name)),  # type: ignore[arg-type]
            self.plans,  # type: ignore[arg-type]
            self.supervisor,  # type: ignore[arg-type]
            SimpleNamespace(budget=lambda: self.budget, device_id="cpu"),  # type: ignore[arg-type]
            EngineConfig(),
            instance="test",
            use=ModelUse(),
            logbook=SimpleNamespace(write=lambda event, text, **_: self.log.append(text)),  # type: ignore[arg-type]
            ahead=SimpleNamespace(want=self.want),  # type: ignore[arg-type]
            publish=lambda event: None,
            on_queue=lambda: None,
        )

    def want(self, model: Any, present: Iterable[str] = ()) -> None:
        self.wanted.append((None if model is None else model.name, tuple(present)))

    def submit(self, prompt: str, model: str = "m") -> int:
        job = self.store.submit(JobSpec(model=model, prompt=prompt), 10)
        self.runner.wake()
        return job.id

    def state(self, job_id: int) -> JobState:
        return self.store.get(job_id).status

    async def until(self, job_id: int, state: JobState) -> Job:
        async with asyncio.timeout(5):
            while self.state(job_id) != state:
                await asyncio.sleep(0.005)
        return self.store.get(job_id)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.runner.run())
        try:
            yield
            assert not task.done(), "the queue's task ended"
        finally:
            task.cancel()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(queue, "RETRY_S", 0.01)
    monkeypatch.setattr(unwritten, "RETRY_S", 0.01)
    made = World(tmp_path)
    yield made
    made.store.close()


async def test_a_bug_under_one_job_fails_that_job_and_the_next_one_runs(world: World) -> None:
    world.supervisor.answers["a"] = lambda job: ZeroDivisionError("oops")
    first, second = world.submit("a"), world.submit("b")
    async with world.running():
        job = await world.until(first, "failed")
        assert (job.error_code, job.error) == ("bug", "ZeroDivisionError: oops")
        await world.until(second, "failed")


async def test_a_store_that_cannot_write_is_asked_again_until_the_end_is_stored(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish, refusals = world.store.finish, iter([1, 2])

    def refuse_twice(*args: Any, **kwargs: Any) -> Job:
        if next(refusals, None):
            raise StorageUnusable("the disk is full")
        assert "the end of job 1" in (world.runner.problem or "")
        return finish(*args, **kwargs)

    monkeypatch.setattr(world.store, "finish", refuse_twice)
    job_id = world.submit("a")
    async with world.running():
        await world.until(job_id, "failed")
        await asyncio.sleep(0.02)
    assert world.runner.problem is None


async def test_a_full_disk_keeps_the_device_from_nobody_and_says_what_is_not_written(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish, full = world.store.finish, True

    def refuse(*args: Any, **kwargs: Any) -> Job:
        if full:
            raise StorageUnusable("the disk is full")
        return finish(*args, **kwargs)

    monkeypatch.setattr(world.store, "finish", refuse)
    first, second = world.submit("a"), world.submit("b")
    async with world.running():
        async with asyncio.timeout(5):
            while world.runner.problem is None:
                await asyncio.sleep(0.005)
            async with world.supervisor.device_lock:  # a cleanup, say, gets its turn
                assert world.runner.running is None
        await asyncio.sleep(0.05)
        assert world.supervisor.ran == ["a"]  # and nothing else begins before the truth is written
        told = world.runner.view(world.store.get(first)).error or ""
        assert "it has ended" in told and "the disk is full" in told
        assert "the end of job 1" in (world.runner.status().held_reason or "")
        assert sum("cannot be written" in line for line in world.log) == 1
        full = False
        await world.until(first, "failed")
        await world.until(second, "failed")
    assert world.runner.problem is None


async def test_a_hold_that_the_disk_does_not_take_holds_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold_queue, full = world.store.hold_queue, True

    def refuse(reason: str) -> None:
        if full:
            raise StorageUnusable("the disk is full")
        hold_queue(reason)

    monkeypatch.setattr(world.store, "hold_queue", refuse)
    async with world.running():
        assert "the disk is full" in (world.runner.hold("a cleanup") or "")
        job_id = world.submit("a")
        await asyncio.sleep(0.05)
        assert world.state(job_id) == "queued" and world.store.held_reason is None
        full = False
        async with asyncio.timeout(5):
            while world.store.held_reason is None:
                await asyncio.sleep(0.005)
        assert world.runner.hold("another") is None and world.store.held_reason == "a cleanup"
        full = True
        world.runner.resume()
        world.runner.wake()
        await world.until(job_id, "failed")


async def test_a_store_that_refuses_the_start_costs_neither_the_job_nor_the_queue(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, refusals = world.store.claim, iter([1])

    def refuse_once(*args: Any, **kwargs: Any) -> Job:
        if next(refusals, None):
            raise StorageUnusable("the disk is full")
        return claim(*args, **kwargs)

    monkeypatch.setattr(world.store, "claim", refuse_once)
    job_id = world.submit("a")
    async with world.running():
        assert (await world.until(job_id, "failed")).attempt == 1


async def test_a_model_that_vanished_holds_the_queue_after_three_and_spares_the_rest(world: World) -> None:
    gone = [world.submit("x", model="gone") for _ in range(5)]
    good = world.submit("good")
    async with world.running():
        await world.until(gone[2], "failed")
        await asyncio.sleep(0.05)
        assert [world.state(job_id) for job_id in gone[3:]] == ["queued", "queued"]
        assert world.state(good) == "queued" and world.store.held_reason is not None
        for job_id in gone[3:]:
            world.store.cancel(job_id)
        world.store.resume()
        world.runner.wake()
        await world.until(good, "failed")
    assert world.supervisor.ran == ["good"]


async def test_an_engine_that_stops_does_not_use_up_the_jobs_free_restart(world: World) -> None:
    world.supervisor.answers["a"] = lambda job: (world.runner.drain(), WorkerStopped("stopped"))[1]
    job_id = world.submit("a")
    async with world.running():
        async with asyncio.timeout(5):
            while world.store.get(job_id).error is None:
                await asyncio.sleep(0.005)
    job = world.store.get(job_id)
    assert job.status == "queued"
    assert job.error == "the engine was stopped under it"
    assert world.store.claim(job_id, world.runner._owner, output="/x.mp4").attempt == 2
    assert world.store.interrupt(job_id, "killed").status == "queued"


async def test_a_device_that_is_closed_is_waited_for_once_with_its_reason_on_job_and_queue(
    world: World,
) -> None:
    world.supervisor.closed = "the reset of GPU 3 hangs"
    job_id = world.submit("a")
    async with world.running():
        for _ in range(20):
            world.runner.look()
            await asyncio.sleep(0.01)
        job = world.runner.view(world.store.get(job_id))
        assert (job.status, job.attempt, job.waits_for) == ("queued", 0, "the reset of GPU 3 hangs")
        status = world.runner.status()
        assert (status.held_reason, status.resumable) == ("the reset of GPU 3 hangs", False)
        assert world.log == ["waits: the reset of GPU 3 hangs"]
        world.supervisor.closed = None
        world.runner.look()
        await world.until(job_id, "failed")
    assert world.supervisor.ran == ["a"]
    assert world.runner.view(world.store.get(job_id)).waits_for is None


async def test_a_worker_that_dies_twice_leaves_its_job_interrupted_with_the_cause(world: World) -> None:
    world.supervisor.answers["a"] = lambda job: WorkerDied("worker 7 was ended by SIGKILL")
    job_id = world.submit("a")
    async with world.running():
        job = await world.until(job_id, "interrupted")
    assert (job.attempt, job.error) == (2, "worker 7 was ended by SIGKILL")


async def test_where_no_worker_starts_the_jobs_stay_in_the_queue_which_is_held_and_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "RETRY_S", 0.01)
    told = "worker 7 exited with code 1; its last words: MemoryError"

    async def fails() -> Any:
        raise WorkerNotStarted(told)

    monkeypatch.setattr(world.supervisor, "ensure_worker", fails)
    first, second = world.submit("a"), world.submit("b")
    async with world.running():
        for _ in range(200):
            if world.store.held_reason is not None:
                break
            await asyncio.sleep(0.01)
    jobs = [world.store.get(job_id) for job_id in (first, second)]
    assert [(job.status, job.attempt) for job in jobs] == [("queued", 3), ("queued", 0)]
    assert (jobs[0].error, jobs[0].error_code) == (told, "worker_not_started")
    reason = world.runner.status().held_reason
    assert reason is not None and reason.startswith(
        f"no worker could be started 3 times in a row, the last for job {first}"
    )
    assert world.supervisor.ran == []


async def test_a_cancel_while_the_worker_starts_does_not_wait_for_it(world: World) -> None:
    world.supervisor.ready.clear()
    job_id = world.submit("a")
    async with world.running():
        await world.until(job_id, "running")
        world.store.cancel(job_id)
        world.runner.cancel_running(job_id)
        await world.until(job_id, "cancelled")
    assert world.supervisor.ran == []


async def test_a_job_that_could_never_fit_any_more_fails_instead_of_waiting_for_ever(world: World) -> None:
    world.budget = Budget(now_bytes=5, empty_bytes=5, held_by="nobody")
    job_id = world.submit("a")
    async with world.running():
        assert (await world.until(job_id, "failed")).error_code == "does_not_fit"


async def test_a_job_that_waits_for_memory_runs_when_there_is_room_and_others_pass_it(world: World) -> None:
    world.budget = Budget(now_bytes=5, empty_bytes=100, held_by="liwei 90112 holds 6 GiB")
    job_id = world.submit("a")
    async with world.running():
        job = await world.until(job_id, "waiting_memory")
        assert job.waits_for is not None and "liwei" in job.waits_for
        world.budget = Budget(now_bytes=50, empty_bytes=100, held_by="nobody")
        world.runner.wake()
        assert (await world.until(job_id, "failed")).waits_for is None


def test_a_videos_name_keeps_the_prompts_words_and_never_one_that_exists(tmp_path: Path) -> None:
    first = choose_output(tmp_path, 7, "一只猫 / ../in\x1b snow! " + "很" * 200)
    assert first.parent == tmp_path and first.name.startswith("000007-一只猫-in-snow-很")
    assert len(first.name.encode()) <= 140
    first.touch()
    assert choose_output(tmp_path, 7, "一只猫 / ../in\x1b snow! " + "很" * 200) != first
    assert choose_output(tmp_path, 8, "???").name == "000008.mp4"


async def test_the_model_of_the_job_after_the_running_one_is_read_ahead(world: World) -> None:
    def answer(job: RunJob) -> JobEnded:
        seen.append(list(world.wanted))
        if job.spec.prompt == "b":
            world.submit("d", "late")
            seen.append(list(world.wanted))
        return failed(job, "work_failed")

    seen: list[list[tuple[str | None, tuple[str, ...]]]] = []
    for prompt in "abd":
        world.supervisor.answers[prompt] = answer
    world.supervisor.residents.present = lambda: [("next", "text"), ("other", "dit")]
    world.submit("a", "m")
    last = world.submit("b", "next")
    async with world.running():
        await world.until(last, "failed")
    assert seen[0][-1] == ("next", ("text",))
    assert seen[1][-1] == (None, ())
    assert seen[2][-1] == ("late", ())


async def test_what_was_read_ahead_before_a_jobs_end_may_be_read_again_after_it(world: World) -> None:
    for prompt in "abc":
        world.supervisor.answers[prompt] = lambda job: failed(job, "work_failed")
    jobs = [world.submit(prompt, "same") for prompt in "abc"]
    async with world.running():
        await world.until(jobs[-1], "failed")
    wanted = [name for name, _ in world.wanted]
    between = wanted[wanted.index("same") : len(wanted) - wanted[::-1].index("same")]
    assert between == ["same", None, "same"]


async def test_a_job_whose_device_is_taken_from_under_it_runs_again_after(world: World) -> None:
    taken = [DeviceTaken("GPU 0 is being reset")]
    world.supervisor.answers["a"] = lambda job: taken.pop() if taken else failed(job, "work_failed")
    job_id = world.submit("a")
    async with world.running():
        job = await world.until(job_id, "failed")
    assert (job.attempt, job.error) == (2, "work_failed happened")
