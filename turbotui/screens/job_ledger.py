"""Owns where a job page's ledger comes from: the engine while the job runs, then its manifest."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from turbotui.screens.beside import read_manifest
from turbotui.screens.job_stages import ledger_rows, lines_of_cut, lines_of_ended, lines_of_running
from turbotui.text import t

if TYPE_CHECKING:
    from engine.wire import Job, JobCourse, LedgerPage, Manifest, OomReport, Trend
    from turbotui.app import TurboApp
    from turbotui.screens.job import JobPanel
    from turbotui.widgets.lines import Row, View

OUT_OF_MEMORY = frozenset({"out_of_memory", "does_not_fit"})
"""Codes of jobs that may have a report of their memory."""
COURSE_S = 2.0
"""How often the stages of a running job are asked for, beside when they change."""


class JobLedger:
    """The stages of `panel`'s job, as far as they are known."""

    def __init__(self, app: TurboApp, panel: JobPanel) -> None:
        self._app = app
        self._panel = panel
        self.course: JobCourse | None = None
        self.manifest: Manifest | None = None
        self._looked_for: str | None = None
        self._staged: tuple[object, ...] | None = None
        self.oom: OomReport | None = None
        """What there was when it ran out of memory, once the engine has told it."""
        self.trends: tuple[Trend, ...] = ()
        """How the floors of the worker's jobs move."""
        self._floors_of: str | None = None
        """In what state the job was when the floors were asked for: its end adds one."""

    @property
    def told(self) -> tuple[object, ...]:
        """All that is known; equal where nothing of it has changed."""
        return (self.manifest, self.course, self.trends, self.oom)

    def follow(self, view: View) -> None:
        """Ask for the stages where they are not as they were when they were asked for."""
        job = view.state.job(self._panel.job_id)
        if job is None or job.started_at is None:
            return
        if job.status != self._floors_of:
            self._floors_of = job.status
            self._follow_floors()
        running = job.status == "running"
        stage = job.progress.stage if running and job.progress is not None else None
        staged = (job.status, stage, int(view.wall / COURSE_S) if running else None)
        if staged == self._staged:
            return
        self._staged = staged
        if job.error_code in OUT_OF_MEMORY:
            self._ask_for_memory()

        def got(course: JobCourse) -> None:
            self.course = course

        self._app.ask(
            "course",
            lambda client: client.course(self._panel.job_id),
            then=got,
            failed=lambda error: None,  # not begun, or too long ago: the manifest has them
            quiet=True,
        )

    def _ask_for_memory(self) -> None:
        def got(report: OomReport) -> None:
            self.oom = report

        self._app.ask(
            "oom",
            lambda client: client.out_of_memory(self._panel.job_id),
            then=got,
            failed=lambda error: None,  # it was refused before it began, or that was too long ago
            quiet=True,
        )

    def _follow_floors(self) -> None:
        def got(page: LedgerPage) -> None:
            self.trends = page.trends

        self._app.ask(
            "floors",
            lambda client: client.ledger(limit=1),
            then=got,
            failed=lambda error: None,  # an older engine, or a recording: the page is whole without them
            quiet=True,
        )

    def rows(self, view: View, job: Job, width: int) -> list[Row]:
        """The ledger below the fields; none where nothing of it is known."""
        if job.manifest and job.manifest != self._looked_for:
            self._look_for_manifest(job.id, job.manifest)
        course = self.course
        if job.status == "running":
            if course is None:
                return []
            lines = lines_of_running(job, course, view.wall if view.as_of is None else view.as_of)
            return ledger_rows(view, lines, width, from_last=course.from_last)
        # Where the manifest lies on another host, the engine still knows its last few jobs.
        records = self.manifest.stages if self.manifest else course.ended if course else ()
        elapsed_s = sum(record.elapsed_s for record in records)
        if self.manifest is not None:
            elapsed_s = self.manifest.elapsed_s
        lines = lines_of_ended(records, elapsed_s)
        if self.manifest is None and course is not None:
            lines = lines_of_cut(job, course)
        return ledger_rows(view, lines, width, from_last=None) if lines else []

    def _look_for_manifest(self, job_id: int, path: str) -> None:
        """In a thread: a disk may hang, and another machine answers when it does."""
        app = self._app
        self._looked_for, self.manifest = path, None

        def told(manifest: Manifest | None) -> None:
            # After a retry another one is looked for.
            if self._panel.is_attached and path == self._looked_for:
                self.manifest = manifest
                self._panel.redraw()

        app.run_apart(
            t("job.ledger"),
            partial(read_manifest, path) if app.box is None else partial(app.box.manifest, job_id),
            then=told,
            failed=lambda _why: None,  # the page is as whole as it can be
            quiet=True,
        )
