"""Owns a job's own page: everything that was asked for, where it stands, what it cost, what went wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding

from turbotui.format import UNKNOWN, bytes_text, clock, percent, seconds
from turbotui.screens.reader import PagePanel, PageScreen
from turbotui.text import t
from turbotui.text.spoken import spoken, word
from turbotui.widgets.lines import Row, View, wrapped
from turbotui.widgets.log import log_row, when
from turbotui.widgets.queue import running_text, size_of, symbol_of

if TYPE_CHECKING:
    from textual.binding import BindingType

    from engine.wire import Job, Manifest

NAME_CELLS = 14


def read_manifest(path: str) -> Manifest | None:
    """The manifest beside a video; None when it is gone or was written by another build."""
    import msgspec

    from engine.wire import Manifest

    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError):
        return None


class JobPanel(PagePanel):
    """Fields, then the ledger of stages, then the job's own log lines."""

    def __init__(self, job_id: int) -> None:
        super().__init__(id="job")
        self.job_id = job_id
        self._manifest: Manifest | None = None
        self._looked_for: str | None = None

    def inputs(self, view: View) -> tuple[object, ...]:
        return (view.state.job(self.job_id), view.state.log, self.top)

    def title(self, view: View) -> str:
        job = view.state.job(self.job_id)
        if job is None:
            return t("job.gone", id=self.job_id)
        return t("job.title", id=job.id, status=t(f"status.{job.status}"))

    def below(self, view: View) -> str:
        more = self._count - self.top - self._room
        return (t("list.more", count=more) + "  " if more > 0 else "") + t("job.keys")

    def page(self, view: View, width: int) -> list[Row]:
        job = view.state.job(self.job_id)
        if job is None:
            return []
        paint = view.paint
        rows: list[Row] = []

        def put(name: str, value: str, *, strong: bool = False) -> None:
            for place, line in enumerate(wrapped(value, width - NAME_CELLS)):
                row = Row(width).field(t(f"job.{name}") if place == 0 else "", NAME_CELLS, paint.muted)
                rows.append(row.add(line, paint.bold if strong else paint.text))

        status = Row(width).field(t("job.status"), NAME_CELLS, paint.muted)
        status.add(f"{symbol_of(job)} ", paint.ours if job.status == "running" else paint.text)
        if job.status == "running":
            running_text(view, job, status)
        else:
            status.add(self._status(job), paint.text)
        rows.append(status)
        if job.error:
            put("error", spoken(job.error), strong=True)
        if job.waits_for:
            put("waits_for", spoken(job.waits_for))
        put("prompt", job.spec.prompt)
        put("model", job.spec.model)
        put("picture", self._picture(view, job))
        put("sampling", self._sampling(job))
        if job.spec.image:
            put("image", job.spec.image)
        if job.spec.residency is not None:
            put("residency", t(f"new.residency_{job.spec.residency}"))
        if job.expected_peak_bytes is not None:
            put("expected_peak", bytes_text(job.expected_peak_bytes))
        put("times", self._times(view, job))
        if job.duplicate_of is not None:
            put("duplicate_of", str(job.duplicate_of))
        if job.output:
            put("output", job.output, strong=True)
        rows += self._ledger(view, job, width)
        lines = [line for line in view.state.log if line.job_id == job.id]
        if lines:
            rows += [Row(width), Row(width).add(t("job.log"), paint.focus_title)]
            rows += [log_row(paint, line, view.wall, width, job=False) for line in lines]
        return rows

    def _status(self, job: Job) -> str:
        text = t(f"status.{job.status}")
        if job.held:
            text += ", " + t("queue.is_held")
        if job.position is not None:
            text += ", " + t("job.position", position=job.position)
        if job.attempt > 1:
            text += ", " + t("job.attempt", attempt=job.attempt)
        return text

    def _picture(self, view: View, job: Job) -> str:
        spec = job.spec
        size = size_of(job, view.state.models)
        frames = UNKNOWN if spec.frames is None else str(spec.frames)
        ratio = f"{spec.resolution or ''} {spec.aspect_ratio or ''}".strip()
        return t("job.picture_text", size=size, ratio=f"({ratio})" if ratio else "", frames=frames)

    def _sampling(self, job: Job) -> str:
        spec = job.spec
        steps = UNKNOWN if spec.steps is None else str(spec.steps)
        text = t("job.sampling_text", steps=steps, seed=spec.seed)
        if spec.sigma_max is not None:
            text += f"  sigma_max {spec.sigma_max:g}"
        return text + ("  ODE" if spec.ode else "")

    def _times(self, view: View, job: Job) -> str:
        text = t("job.created", at=when(job.created_at, view.wall))
        if job.started_at is not None:
            text += "  " + t("job.started", at=when(job.started_at, view.wall))
        if job.finished_at is not None:
            text += "  " + t("job.finished", at=clock(job.finished_at))
            if job.started_at is not None:
                text += "  " + t("job.took", took=seconds(job.finished_at - job.started_at))
        return text

    def _ledger(self, view: View, job: Job, width: int) -> list[Row]:
        if job.manifest and job.manifest != self._looked_for:
            self._looked_for = job.manifest
            self._manifest = read_manifest(job.manifest)
        manifest, paint = self._manifest, view.paint
        if manifest is None or not manifest.stages:
            return []
        head = Row(width).field(t("job.ledger"), NAME_CELLS, paint.focus_title)
        for column in ("took", "before", "peak", "after"):
            head.field(t(f"job.column_{column}"), 12, paint.muted, right=True)
        rows = [Row(width), head]
        total = manifest.elapsed_s or 1.0
        for stage in manifest.stages:
            row = Row(width).field(f"  {word(stage.stage)}", NAME_CELLS, paint.text)
            row.field(seconds(stage.elapsed_s), 12, paint.text, right=True)
            for count in (stage.before_bytes, stage.peak_bytes, stage.after_bytes):
                row.field(bytes_text(count), 12, paint.text, right=True)
            rows.append(row.add(f"{percent(stage.elapsed_s / total):>7}", paint.muted))
        return rows


class JobScreen(PageScreen):
    """One job; acts on it with the queue's keys."""

    panel: JobPanel
    most = 112
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "copy", show=False),
        Binding("x", "on_job('cancel')", show=False),
        Binding("r", "on_job('retry')", show=False),
        Binding("d", "on_job('duplicate')", show=False),
        Binding("h", "on_job('hold')", show=False),
        Binding("v", "video", show=False),
    ]

    def __init__(self, job_id: int) -> None:
        super().__init__(JobPanel(job_id))

    def action_copy(self) -> None:
        job = self.turbo.link.state.job(self.panel.job_id)
        if job is not None:
            self.turbo.copy_text(job.output or job.spec.prompt)

    def action_video(self) -> None:
        self.dismiss(None)
        self.turbo.act("video", self.panel.job_id)

    def action_on_job(self, verb: str) -> None:
        """Act on this job, wherever the queue's cursor is by now; close, so that the answer is seen."""
        self.dismiss(None)
        self.turbo.act(verb, self.panel.job_id)
