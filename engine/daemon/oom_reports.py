"""What is kept of jobs that ran out of memory: a file each, beside the job store. Event loop's thread."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec

from engine.daemon.job_plans import JobPlan
from engine.daemon.logbook import LogBook
from engine.daemon.memory import MemoryView
from engine.daemon.threads import in_thread
from engine.errors import NotFound
from engine.leaks.oom import OomFacts, report_of
from engine.paths import user_name
from engine.whole_file import write_whole
from engine.wire import Job, OomReport
from engine.worker.oom_facts import OomMoment

MOST = 200
"""Files; the oldest go first. Each has a few KB."""


class OomReports:
    """Makes, keeps and finds them."""

    def __init__(self, folder: Path, memory: MemoryView, logbook: LogBook) -> None:
        self._folder = folder
        self._memory = memory
        self._logbook = logbook
        self._newest: dict[int, OomReport] = {}
        """Those that the disk may not have yet."""

    def take(self, job: Job, plan: JobPlan, budget_bytes: int, moment: OomMoment) -> OomReport:
        """Make a job's report, tell it in the log, and keep it."""
        device = next((device for device in self._memory.statuses() if device.in_use), None)
        report = report_of(
            OomFacts(
                job=job,
                model=plan.model,
                admitted=plan.admitted,
                budget_bytes=budget_bytes,
                moment=moment,
                device=device,
                user=user_name(),
            )
        )
        for line in report.lines:
            self._logbook.write("oom", line, level="warning", job_id=job.id, memory=True)
        self._newest[job.id] = report
        task = asyncio.create_task(self._keep(report))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return report

    async def of_job(self, job_id: int) -> OomReport:
        """The report of its newest failure of this kind.

        Raises:
            NotFound: it never ran out of memory, or that was too long ago.
        """
        if (report := self._newest.get(job_id)) is not None:
            return report
        data = await in_thread(partial(_read, self._file(job_id)), name="oom-read")
        if data is not None:
            with suppress(msgspec.MsgspecError, UnicodeDecodeError):
                return msgspec.json.decode(data, type=OomReport)
        raise NotFound(f"no report of job {job_id}'s memory is kept; it is made when a job runs out of it")

    def _file(self, job_id: int) -> Path:
        return self._folder / f"{job_id:d}.json"

    async def _keep(self, report: OomReport) -> None:
        data = msgspec.json.encode(report)
        try:
            await in_thread(partial(_write, self._file(report.job_id), data), name="oom-write")
        except OSError as error:
            text = f"the report of job {report.job_id}'s memory cannot be kept: {error.strerror}"
            self._logbook.write("oom", text, level="warning", job_id=report.job_id)
        else:
            self._newest.pop(report.job_id, None)


def _read(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except OSError:
        return None


def _write(file: Path, data: bytes) -> None:
    file.parent.mkdir(mode=0o700, exist_ok=True)
    write_whole(file, data)
    kept = sorted(file.parent.glob("*.json"), key=lambda one: int(one.stem) if one.stem.isdecimal() else -1)
    for old in kept[:-MOST]:
        with suppress(OSError):
            old.unlink()
