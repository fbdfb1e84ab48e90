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
from pathlib import Path
from typing import Literal

from engine.config import EngineConfig
from engine.daemon.logbook import Level, LogBook
from engine.daemon.memory import Budget, MemoryView
from engine.daemon.supervisor import Supervisor
from engine.errors import EngineError, WorkerDied
from engine.jobs.breaker import ENGINE_ENDED
from engine.jobs.liveness import read_boot_id
from engine.jobs.model import Owner
from engine.jobs.store import JobStore
from engine.models.catalog import Catalog
from engine.planning.admission import Admitted, check_request
from engine.planning.footprint import Footprint, estimate_footprint
from engine.units import size_text
from engine.wire import Event, Job, JobChanged, JobForecast, JobProgress, JobSpec
from engine.worker.channel import JobEnded, ModelFiles, RunJob

NAME_BYTES = 120
"""A file name's share of the prompt; ext4 takes 255 bytes in all, and Chinese takes 3 a character."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Chosen:
    """The job whose turn it is, and what it was planned with."""

    job: Job
    admitted: Admitted
    footprint: Footprint
    budget_bytes: int


class QueueRunner:
    """Runs jobs one after the other until `stop`. Event loop's thread only."""

    def __init__(
        self,
        store: JobStore,
        catalog: Catalog,
        supervisor: Supervisor,
        memory: MemoryView,
        config: EngineConfig,
        *,
        instance: str,
        output_dir: Path,
        logbook: LogBook,
        publish: Callable[[Event], None],
        on_queue: Callable[[], None],
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._supervisor = supervisor
        self._memory = memory
        self._config = config
        self._output_dir = output_dir
        self._logbook = logbook
        self._publish = publish
        self._on_queue = on_queue
        self._owner = Owner(instance=instance, engine_pid=os.getpid(), boot_id=read_boot_id())
        self._wake = asyncio.Event()
        self._draining = False
        self._running: Job | None = None
        self._progress: JobProgress | None = None
        self._cancelled = False
        self.active_model: str | None = None
        self.last_used: dict[str, float] = {}

    # ----------------------------------------------------------------- asked from outside

    @property
    def running(self) -> Job | None:
        return self._running

    def wake(self) -> None:
        """Look at the queue again."""
        self._wake.set()

    def drain(self) -> None:
        """Start nothing more."""
        self._draining = True

    def view(self, job: Job) -> Job:
        """`job` with its progress, while it runs."""
        if self._running is not None and job.id == self._running.id and job.status == "running":
            return replace(job, progress=self._progress)
        return job

    def progressed(self, job_id: int, progress: JobProgress) -> None:
        if self._running is not None and self._running.id == job_id:
            self._progress = progress
            self._publish(JobChanged(job=self.view(self._running)))

    def cancel_running(self, job_id: int) -> None:
        """The store has noted the wish; pass it on to whoever runs the job."""
        if self._running is not None and self._running.id == job_id:
            self._cancelled = True
            self._supervisor.cancel_job(job_id)

    def admit(self, spec: JobSpec) -> tuple[Admitted, Footprint]:
        """Check a request whole, and say what it takes.

        Raises:
            Refused: one of its subclasses, naming the value and the way out.
        """
        model = self._catalog.get(spec.model)
        admitted = check_request(spec, model, self._config, self._output_dir)
        footprint = estimate_footprint(
            model, admitted.width, admitted.height, admitted.frames, device_kind=self._device_kind
        )
        return admitted, footprint

    def forecast(self, spec: JobSpec) -> JobForecast:
        admitted, footprint = self.admit(spec)
        budget = self._memory.budget()
        fits_now = budget is None or footprint.peak_bytes <= budget.now_bytes
        return JobForecast(
            width=admitted.width,
            height=admitted.height,
            frames=admitted.frames,
            steps=admitted.steps,
            weights_bytes=footprint.weights_bytes,
            peak_bytes=footprint.peak_bytes,
            fits_now=fits_now,
            fits_empty=budget is None or footprint.peak_bytes <= budget.empty_bytes,
            reason=None if fits_now or budget is None else waits_for(footprint.peak_bytes, budget),
        )

    # ----------------------------------------------------------------- the loop

    async def run(self) -> None:
        """Until cancelled. One job at a time; the device lock is held from choosing to ending."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            ran = True
            while ran:
                async with self._supervisor.device_lock:
                    chosen = self._choose()
                    if chosen is not None:
                        await self._run(chosen)
                    ran = chosen is not None

    def _choose(self) -> _Chosen | None:
        """The first runnable job that fits, with its budget; others learn for whom they wait."""
        budget = self._memory.budget()
        if self._draining or budget is None:
            return None
        for job in self._store.list_runnable():
            try:
                admitted, footprint = self.admit(job.spec)
            except EngineError as error:
                # It was right when it was submitted: the model or the image went away since.
                self._end(self._store.finish(job.id, "failed", error=str(error), error_code=error.code))
                continue
            reason = waits_for(footprint.peak_bytes, budget)
            if reason is None:
                return _Chosen(job=job, admitted=admitted, footprint=footprint, budget_bytes=budget.now_bytes)
            if job.waits_for != reason and not _same_wait(job.waits_for, reason):
                self._changed(self._store.wait_for_memory(job.id, reason))
                self._logbook.write("job", f"waits: {reason}", job_id=job.id)
        return None

    async def _run(self, chosen: _Chosen) -> None:
        job, admitted = chosen.job, chosen.admitted
        with suppress(OSError):  # what is wrong with the folder is told by the writing of the file
            admitted.output_dir.mkdir(parents=True, exist_ok=True)
        output = choose_output(admitted.output_dir, job.id, job.spec.prompt)
        job = self._store.claim(job.id, self._owner, output=str(output))
        self._running, self._cancelled = job, False
        self._progress = JobProgress(stage="start")
        self.active_model = job.spec.model
        self._changed(job)
        self._logbook.write("job", f"starts, attempt {job.attempt}: {job.spec.model}", job_id=job.id)
        try:
            ended = await self._work(job, chosen, output)
        except WorkerDied as error:
            job = self._interrupted(job, str(error))
        else:
            job = self._finished(job, ended)
        finally:
            self._running, self._progress = None, None
        self._end(job)

    async def _work(self, job: Job, chosen: _Chosen, output: Path) -> JobEnded:
        admitted = chosen.admitted
        worker = await self._supervisor.ensure_worker()
        self._store.set_worker(job.id, worker.pid, worker.start_time)
        if self._cancelled:
            return JobEnded(job_id=job.id, error_code="cancelled", error="cancelled before it began")
        model = self._catalog.get(job.spec.model)
        return await self._supervisor.run_job(
            RunJob(
                job_id=job.id,
                attempt=job.attempt,
                spec=admitted.spec,
                model=ModelFiles(name=model.name, kind=model.kind, path=str(model.path)),
                width=admitted.width,
                height=admitted.height,
                output=str(output),
                budget_bytes=chosen.budget_bytes,
                stage_bytes={name: stage.activation_bytes for name, stage in chosen.footprint.stages.items()},
            )
        )

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

    def _interrupted(self, job: Job, cause: str) -> Job:
        if self._draining:
            # A person ended the engine under it: that must not use up its one free restart.
            return self._store.interrupt(
                job.id, "the engine was stopped under it", error_code=ENGINE_ENDED, counted=False
            )
        return self._store.interrupt(job.id, cause)

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

    @property
    def _device_kind(self) -> Literal["cpu", "cuda"]:
        return "cpu" if self._memory.device_id == "cpu" else "cuda"


def waits_for(peak_bytes: int, budget: Budget) -> str | None:
    """For whom a job of this peak would wait, or None when it fits now."""
    if peak_bytes <= budget.now_bytes:
        return None
    return f"needs {size_text(peak_bytes)}, can have {size_text(budget.now_bytes)}; {budget.held_by}"


def choose_output(folder: Path, job_id: int, prompt: str) -> Path:
    """A name for the video that nothing in `folder` has yet: the job's number and the prompt's beginning."""
    words = re.sub(r"[^\w]+", "-", prompt).strip("-_")
    while len(os.fsencode(words)) > NAME_BYTES:
        words = words[:-1]
    stem = f"{job_id:06d}-{words}".rstrip("-_")
    path, again = folder / f"{stem}.mp4", 1
    while path.exists() or path.with_suffix(".json").exists():
        again += 1
        path = folder / f"{stem}-{again}.mp4"
    return path


def _same_wait(old: str | None, new: str) -> bool:
    """Whether two reasons differ in their figures alone, which move with every reading."""
    return old is not None and re.sub(r"[\d.]+ ?\w*B\b", "", old) == re.sub(r"[\d.]+ ?\w*B\b", "", new)
