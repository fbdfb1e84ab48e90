"""The queue's runner: picks the job whose turn it is, runs it, and writes down how it ended.

Every change goes to the store first and to the viewers after. A job that does not fit beside
the others now is passed by and says for whom it waits; jobs behind it that fit may run.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from engine.config import EngineConfig
from engine.daemon.job_plans import JobPlan, JobPlans, waits_for
from engine.daemon.logbook import Level, LogBook
from engine.daemon.memory import MemoryView
from engine.daemon.model_use import ModelUse
from engine.daemon.read_ahead import ReadAhead
from engine.daemon.supervisor import Supervisor
from engine.daemon.unwritten import Unwritten
from engine.daemon.wanted import files_of
from engine.daemon.worker import WorkerProcess
from engine.errors import (
    DeviceTaken,
    EngineError,
    NotNow,
    StorageUnusable,
    WorkerDied,
    WorkerNotStarted,
    WorkerReplaced,
    WorkerStopped,
)
from engine.jobs.breaker import CLEANED_UP, ENGINE_ENDED, NOT_STARTED
from engine.jobs.files import manifest_path
from engine.jobs.liveness import read_boot_id
from engine.jobs.model import Owner
from engine.jobs.store import JobStore
from engine.models.catalog import Catalog
from engine.models.model import Model
from engine.wire import Event, Job, JobChanged, JobProgress, QueueStatus
from engine.worker.channel import JobEnded, RunJob
from engine.worker.oom_facts import OomMoment

RETRY_S = 1.0
"""Between two tries after the store refused to write, after a bug, or where no worker could be started."""
HOLD = "the hold of the queue"
NAME_BYTES = 120
"""A file name's share of the prompt; ext4 takes 255 bytes in all, and Chinese takes 3 a character."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Chosen:
    """The job whose turn it is."""

    job: Job
    plan: JobPlan


class QueueRunner:
    """Runs jobs one after the other until `stop`. Event loop's thread only."""

    def __init__(
        self,
        store: JobStore,
        catalog: Catalog,
        plans: JobPlans,
        supervisor: Supervisor,
        memory: MemoryView,
        config: EngineConfig,
        *,
        instance: str,
        use: ModelUse,
        logbook: LogBook,
        ahead: ReadAhead,
        publish: Callable[[Event], None],
        on_queue: Callable[[], None],
        on_oom: Callable[[Job, JobPlan, int, OomMoment], object] = lambda job, plan, budget_bytes, moment: (
            None
        ),
    ) -> None:
        """`on_oom` has a job that ran out of memory, with what it might hold and what there was."""
        self._on_oom = on_oom
        self._ahead = ahead
        self._store = store
        self._catalog = catalog
        self._plans = plans
        self._supervisor = supervisor
        self._memory = memory
        self._config = config
        self._use = use
        self._logbook = logbook
        self._publish = publish
        self._on_queue = on_queue
        self._owner = Owner(instance=instance, engine_pid=os.getpid(), boot_id=read_boot_id())
        self._wake = asyncio.Event()
        self._draining = False
        self._running: Job | None = None
        self._progress: JobProgress | None = None
        self._cancel = asyncio.Event()
        self._unwritten = Unwritten(on_refused=self._refused, on_taken=self._taken)
        self._closed: str | None = None
        self._failure: str | None = None
        """What the queue's edge met last; told once."""

    # ----------------------------------------------------------------- asked from outside

    @property
    def running(self) -> Job | None:
        return self._running

    @property
    def problem(self) -> str | None:
        """What the job store cannot write, or None."""
        return self._unwritten.problem or self._failure

    def hold(self, reason: str) -> str | None:
        """Start no job until `resume`, at once; what of it is still to be written down, or None."""
        self._unwritten.write(HOLD, partial(self._store.hold_queue, reason))
        return self._unwritten.problem

    def resume(self) -> None:
        """Start jobs again.

        Raises:
            StorageUnusable: it cannot be written down, and the queue stays as it is.
        """
        self._unwritten.forget(HOLD)
        self._store.resume()

    def wake(self) -> None:
        """Look at the queue again."""
        self._wake.set()
        if self._running is not None:
            self._read_ahead()

    def look(self) -> None:
        """Once a second: what others held may be free."""
        if self._store.count_waiting():
            self.wake()

    def drain(self) -> None:
        """Start nothing more."""
        self._draining = True

    def view(self, job: Job) -> Job:
        """`job` with its progress, while it runs."""
        job = replace(job, doubt=self._plans.doubt(job.spec))
        if self._running is not None and job.id == self._running.id and job.status == "running":
            return replace(job, progress=self._progress)
        closed = self._supervisor.closed
        if closed is not None and job.status in ("queued", "waiting_memory") and not job.held:
            return replace(job, waits_for=closed)
        if job.status == "running" and self._unwritten.waits(_end_of(job.id)):
            return replace(job, error=f"it has ended, and {self._unwritten.problem}")
        return job

    def progressed(self, job_id: int, progress: JobProgress) -> None:
        if self._running is not None and self._running.id == job_id:
            self._progress = progress
            self._publish(JobChanged(job=self.view(self._running)))

    def cancel_running(self, job_id: int) -> None:
        """The store has noted the wish; pass it on to whoever runs the job."""
        if self._running is not None and self._running.id == job_id:
            self._cancel.set()
            self._supervisor.cancel_job(job_id)

    def status(self) -> QueueStatus:
        passing = self._supervisor.closed or self._unwritten.problem
        return QueueStatus(
            waiting=self._store.count_waiting(),
            held_reason=self._supervisor.closed or self._store.held_reason or self._unwritten.problem,
            resumable=passing is None,
        )

    # ----------------------------------------------------------------- the loop

    async def run(self) -> None:
        """Until cancelled. One job at a time; the device lock is held from choosing to ending."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                while await self._run_next():
                    pass
                self._failure = None
            except Exception as error:  # the queue's edge: it must outlive whatever one job meets
                code, text = code_and_text(error)
                if code != StorageUnusable.code or text != self._failure:
                    self._logbook.write("queue", f"cannot go on, tries again: {text}", level="error")
                self._failure = text if code == StorageUnusable.code else None
                await asyncio.sleep(RETRY_S)
                self.wake()

    async def _run_next(self) -> bool:
        """Run the job whose turn it is; False when none can start now."""
        async with self._supervisor.device_lock:
            chosen = self._choose()
            if chosen is None:
                return False
            try:
                return await self._run(chosen)
            except NotNow:  # held, moved or cancelled between choosing and claiming: look again
                return True

    def _choose(self) -> _Chosen | None:
        """The first runnable job that fits, with its plan; others learn for whom they wait."""
        if self._told_closed(self._supervisor.closed) is not None:
            return None  # one that was claimed now could only be given back, again and again
        budget = self._memory.budget()
        if self._draining or budget is None or self._unwritten.problem is not None:
            return None
        for job in self._store.list_runnable():
            peak = job.expected_peak_bytes
            if job.status == "waiting_memory" and peak is not None and waits_for(peak, budget):
                continue  # still no room: checking its image again every second would cost too much
            try:
                plan = self._plans.admit(job.spec)
                plan.refuse_if_too_large(budget)
            except Exception as error:  # the job's edge, as in `_run`
                # It was right when it was submitted: the model, the image or the settings changed since.
                code, text = code_and_text(error)
                self._end(self._store.finish(job.id, "failed", error=text, error_code=code))
                if self._store.held_reason is not None:
                    return None
                continue
            reason = waits_for(plan.footprint.peak_bytes, budget)
            if reason is None:
                return _Chosen(job=job, plan=plan)
            if not _same_wait(job.waits_for, reason):
                self._changed(self._store.wait_for_memory(job.id, reason))
                self._logbook.write("job", f"waits: {reason}", job_id=job.id)
        return None

    def _told_closed(self, why: str | None) -> str | None:
        """Tell the viewers, and the log once, why no job may start at all."""
        if why != self._closed:
            self._closed = why
            self._logbook.write("queue", "goes on" if why is None else f"waits: {why}")
            for job in self._store.list_waiting():
                self._changed(job)
            self._on_queue()
        return why

    def _read_ahead(self) -> None:
        """Let the files of the job that comes after the running one be read meanwhile."""
        model: Model | None = None
        with suppress(EngineError):  # what is wrong with that job is said when its turn comes
            following = next(iter(self._store.list_runnable()), None)
            model = None if following is None else self._catalog.get(following.model)
        present = self._supervisor.residents.present()
        self._ahead.want(model, (part for name, part in present if model is not None and name == model.name))

    async def _run(self, chosen: _Chosen) -> bool:
        """Run one job to its end; False where there was no worker, so that the next try waits a while."""
        job, admitted = chosen.job, chosen.plan.admitted
        with suppress(OSError):  # what is wrong with the folder is told by the writing of the file
            admitted.output_dir.mkdir(parents=True, exist_ok=True)
        output = choose_output(admitted.output_dir, job.id, job.spec.prompt)
        runs = chosen.plan.runs
        job = self._store.claim(job.id, self._owner, output=str(output), runs=runs)
        self._running, self._cancel = job, asyncio.Event()
        self._progress = JobProgress(stage="start")
        self._use.asked(job.model)
        self._changed(job)
        self._logbook.write("job", f"starts, attempt {job.attempt}: {job.spec.model}", job_id=job.id)
        if runs is not None and runs.reason is not None:
            self._logbook.write("job", f"runs as {runs.model}: {runs.reason}", job_id=job.id)
        self._read_ahead()
        settle: Callable[[], Job]
        started = True
        try:
            ended = await self._work(job, chosen.plan, output)
        except (WorkerStopped, DeviceTaken) as error:
            settle = partial(self._stopped, job, error)
        except WorkerReplaced as error:
            settle = partial(
                self._store.interrupt, job.id, str(error), error_code=CLEANED_UP, counted=False, again=False
            )
        except WorkerNotStarted as error:
            # The job was not touched: it keeps its place, and its one free restart. The breaker counts.
            started = False
            asyncio.get_running_loop().call_later(RETRY_S, self.wake)
            settle = partial(self._store.interrupt, job.id, str(error), error_code=NOT_STARTED, counted=False)
        except WorkerDied as error:
            settle = partial(self._store.interrupt, job.id, str(error))
        except Exception as error:  # the job's edge: whatever it was, the job ends and the queue goes on
            code, text = code_and_text(error)
            settle = partial(self._finished, job, JobEnded(job_id=job.id, error_code=code, error=text))
        else:
            settle = partial(self._finished, job, ended)
        # A full disk costs neither the truth nor the device, which others wait for to give memory back.
        self._running, self._progress = None, None
        self._ahead.want(None)  # what was read for a next job may have left by the one after it
        self._use.used(job.model)
        if not self._unwritten.write(_end_of(job.id), lambda: self._end(settle())):
            self._changed(job)
        return started

    def _refused(self, problem: str) -> None:
        self._logbook.write("queue", problem, level="error")
        self._on_queue()

    def _taken(self) -> None:
        self._logbook.write("queue", "the job store takes everything again")
        self.wake()
        self._on_queue()

    async def _work(self, job: Job, plan: JobPlan, output: Path) -> JobEnded:
        worker = await self._worker_unless_cancelled()
        if worker is None:
            return JobEnded(job_id=job.id, error_code="cancelled", error="cancelled before it began")
        with suppress(StorageUnusable):  # only a later recovery would have used it
            self._store.set_worker(job.id, worker.pid, worker.start_time)
        budget = self._memory.budget()  # anew: the worker has taken its own share since
        budget_bytes = budget.now_bytes if budget else plan.footprint.peak_bytes
        ended = await self._supervisor.run_job(
            RunJob(
                job_id=job.id,
                attempt=job.attempt,
                spec=replace(
                    plan.admitted.spec,
                    model=plan.model.name,
                    residency=plan.admitted.spec.residency or self._config.residency,
                ),
                model=files_of(plan.model),
                width=plan.admitted.width,
                height=plan.admitted.height,
                output=str(output),
                budget_bytes=budget_bytes,
                stage_bytes={name: stage.activation_bytes for name, stage in plan.footprint.stages.items()},
                runs=plan.runs,
            )
        )
        if ended.oom is not None:
            self._on_oom(job, plan, budget_bytes, ended.oom)
        return ended

    async def _worker_unless_cancelled(self) -> WorkerProcess | None:
        """The worker once it is ready; None as soon as the job is cancelled, however long it still takes."""
        starting = asyncio.ensure_future(self._supervisor.ensure_worker())
        cancelled = asyncio.ensure_future(self._cancel.wait())
        try:
            await asyncio.wait({starting, cancelled}, return_when=asyncio.FIRST_COMPLETED)
            return None if self._cancel.is_set() else await starting
        finally:
            for task in (starting, cancelled):
                task.cancel()

    def _finished(self, job: Job, ended: JobEnded) -> Job:
        if ended.manifest is not None:
            return self._store.finish(
                job.id,
                "done",
                attempt=job.attempt,
                output=ended.manifest.output,
                manifest=ended.manifest_path,
            )
        if ended.error_code == "cancelled":
            return self._store.finish(job.id, "cancelled", attempt=job.attempt, error_code="cancelled")
        return self._store.finish(
            job.id, "failed", attempt=job.attempt, error=ended.error, error_code=ended.error_code
        )

    def _stopped(self, job: Job, error: EngineError) -> Job:
        # A person ended the engine, or the worker, under it: that must not use up its one free restart.
        cause = "the engine was stopped under it" if self._draining else str(error)
        return self._store.interrupt(job.id, cause, error_code=ENGINE_ENDED, counted=False)

    def _end(self, job: Job) -> None:
        match job.status:
            case "done":
                text = f"done: {job.output}"
            case "queued":
                text = f"interrupted, runs again: {job.error}"
            case status:
                text = f"{status}: {job.error}" if job.error else status
        level: Level = "warning" if job.status in ("failed", "interrupted", "queued") else "info"
        event = "oom" if job.error_code == "out_of_memory" else "job"
        self._logbook.write(event, text, level=level, job_id=job.id, memory=event == "oom")
        self._changed(job)
        if (reason := self._store.held_reason) is not None:
            self._logbook.write("queue", f"held: {reason}", level="warning")
        self._on_queue()

    def _changed(self, job: Job) -> None:
        self._publish(JobChanged(job=self.view(job)))


def code_and_text(error: Exception) -> tuple[str, str]:
    """What a job or the log says of an error: its own code and sentence, or `bug` and its name."""
    if isinstance(error, EngineError):
        return error.code, str(error)
    return "bug", f"{type(error).__name__}: {error}"


def _end_of(job_id: int) -> str:
    """What is to be written, as it is told."""
    return f"the end of job {job_id}"


def choose_output(folder: Path, job_id: int, prompt: str) -> Path:
    """A name for the video that nothing in `folder` has yet: the job's number and the prompt's beginning."""
    words = re.sub(r"[^\w]+", "-", prompt).strip("-_")
    while len(os.fsencode(words)) > NAME_BYTES:
        words = words[:-1]
    stem = f"{job_id:06d}-{words}".rstrip("-_")
    path, again = folder / f"{stem}.mp4", 1
    while path.exists() or Path(manifest_path(str(path))).exists():
        again += 1
        path = folder / f"{stem}-{again}.mp4"
    return path


def _same_wait(old: str | None, new: str) -> bool:
    """Whether two reasons differ in their figures alone, which move with every reading."""
    return old is not None and re.sub(r"[\d.]+ ?\w*B\b", "", old) == re.sub(r"[\d.]+ ?\w*B\b", "", new)
