"""Any order of requests leaves the job store in a state that the state machine allows."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.errors import NotNow
from engine.jobs.model import LEGAL, Owner
from engine.jobs.store import JobStore
from engine.wire import Job, JobMove, JobSpec, JobState
from tests.attempts import attempts_of

OWNER = Owner(instance="one", engine_pid=1, boot_id="boot", worker_pid=2, worker_start_time=3.0)
PICK = st.integers(0, 30)


class Queue(RuleBasedStateMachine):
    """Random requests against a real store, with the states that each job went through on the side."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "jobs.sqlite"
        self.store = JobStore(self.path)
        # What is tested here is logic; what reaches the disk is tested by killing a writer.
        self.store._tables.execute("PRAGMA synchronous = OFF")
        self.states: dict[int, JobState] = {}

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()

    def pick(self, number: int) -> int:
        return sorted(self.states)[number % len(self.states)]

    def note(self, job: Job, *, steps: int = 1) -> None:
        """The job went from the state we knew to its new one in at most `steps` legal steps."""
        reachable = {self.states[job.id]}
        for _ in range(steps):
            reachable |= {target for state in reachable for target in LEGAL[state]}
        assert job.status in reachable
        self.states[job.id] = job.status

    @rule(priority=st.integers(-2, 2))
    def submit(self, priority: int) -> None:
        job = self.store.submit(JobSpec(model="m", prompt="p", priority=priority))
        self.states[job.id] = job.status

    @precondition(lambda self: self.states)
    @rule(number=PICK, action=st.sampled_from(["cancel", "retry", "hold", "release"]))
    def ask(self, number: int, action: str) -> None:
        try:
            self.note(getattr(self.store, action)(self.pick(number)))
        except NotNow:
            pass

    @precondition(lambda self: self.states)
    @rule(number=PICK, position=st.integers(1, 6))
    def move(self, number: int, position: int) -> None:
        job_id = self.pick(number)
        try:
            job = self.store.move(job_id, JobMove(position=position))
        except NotNow:
            assert self.states[job_id] not in ("queued", "waiting_memory")
        else:
            assert job.position == min(position, self.store.count_waiting())

    @precondition(lambda self: self.states)
    @rule(number=PICK, waits_for=st.sampled_from([None, "room"]))
    def wait(self, number: int, waits_for: str | None) -> None:
        try:
            self.note(self.store.wait_for_memory(self.pick(number), waits_for))
        except NotNow:
            pass

    @rule()
    def start_next(self) -> None:
        job = next(iter(self.store.list_runnable()), None)
        if job is not None:
            self.note(self.store.claim(job.id, OWNER, output="/nowhere/x.mp4"))

    @precondition(lambda self: self.states)
    @rule(number=PICK, outcome=st.sampled_from(["done", "failed", "cancelled"]))
    def finish(self, number: int, outcome: str) -> None:
        job_id = self.pick(number)
        try:
            self.note(self.store.finish(job_id, outcome, error_code="work_failed"))
        except NotNow:
            assert outcome not in LEGAL[self.states[job_id]]

    @precondition(lambda self: self.states)
    @rule(number=PICK)
    def interrupt(self, number: int) -> None:
        try:
            self.note(self.store.interrupt(self.pick(number), "killed"), steps=2)
        except NotNow:
            pass

    @rule()
    def resume(self) -> None:
        self.store.resume()

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.store = JobStore(self.path)
        self.store._tables.execute("PRAGMA synchronous = OFF")
        for job in self.store.recover("two", lambda owner: False).requeued:
            self.note(job, steps=2)
        for job in self.store.list_jobs(ended=None):
            self.note(job, steps=2)

    @invariant()
    def the_queue_is_whole_and_in_order(self) -> None:
        jobs = self.store.list_jobs(ended=None)
        assert {job.id: job.status for job in jobs} == self.states
        waiting = self.store.list_waiting()
        assert [job.position for job in waiting] == list(range(1, len(waiting) + 1))
        assert {job.id for job in jobs if job.position is not None} == {job.id for job in waiting}
        assert all(job == self.store.get(job.id) for job in jobs)
        priorities = [job.spec.priority for job in waiting]
        assert priorities == sorted(priorities, reverse=True)

    @invariant()
    def every_start_is_on_record_and_only_running_jobs_have_an_open_one(self) -> None:
        for job in self.store.list_jobs(ended=None):
            attempts = attempts_of(self.store, job.id)
            assert [attempt.attempt for attempt in attempts] == list(range(1, job.attempt + 1))
            open_ones = [attempt for attempt in attempts if attempt.outcome is None]
            assert len(open_ones) == (job.status == "running")


TestQueue = Queue.TestCase
TestQueue.settings = settings(max_examples=25, stateful_step_count=30, deadline=None, derandomize=True)
