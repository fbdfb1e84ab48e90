"""Owns a job's own page: everything that was asked for, where it stands, what it cost, what it looks like."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual.binding import Binding

from turbotui.attention_text import attention_text
from turbotui.format import UNKNOWN, bytes_text, percent, seconds, time_left
from turbotui.picture.raster import cells_for
from turbotui.screens.job_floors import floor_rows
from turbotui.screens.job_keys import keys_below
from turbotui.screens.job_ledger import JobLedger
from turbotui.screens.job_picture import JobPictures, wait_s
from turbotui.screens.reader import PagePanel, PageScreen
from turbotui.text import t
from turbotui.text.spoken import spoken
from turbotui.widgets.lines import Row, View, width_of, wrapped
from turbotui.widgets.log import when, whole_lines
from turbotui.widgets.picture import PictureView
from turbotui.widgets.queue import running_text, size_of, symbol_of

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.binding import BindingType
    from textual.events import Click
    from textual.timer import Timer

    from engine.wire import Job
    from turbotui.app import TurboApp

NAME_CELLS = 14
LEAST_FOR_BAR = 50
LEAST_FOR_PICTURE = 64
"""Cells of a page that has a picture beside its fields; a narrower one has it in full alone."""


class JobPanel(PagePanel):
    """Fields beside a picture, then the ledger of stages, then the job's own log lines."""

    DEFAULT_CSS = """
    JobPanel { overflow: hidden hidden; }
    """
    told_by = "engine"

    def __init__(self, job_id: int) -> None:
        super().__init__(id="job")
        self.job_id = job_id
        self.pictures: JobPictures | None = None
        self.ledger: JobLedger | None = None
        self.large = False
        """The picture has the whole page."""
        self.most_rows = 24
        """Of the page that are in sight at most."""

    def compose(self) -> ComposeResult:
        yield PictureView()

    def inputs(self, view: View) -> tuple[object, ...]:
        job = view.state.job(self.job_id)
        pictures = self.pictures
        seen = None if pictures is None else (pictures.shape, pictures.caption(), pictures.words)
        told = None if self.ledger is None else self.ledger.told
        moment = int(view.wall * 2) if job is not None and job.status == "running" else None
        return (job, view.state.log, self.top, told, self.large, seen, moment)

    def title(self, view: View) -> str:
        job = view.state.job(self.job_id)
        if job is None:
            return t("job.gone", id=self.job_id)
        return t("job.title", id=job.id, status=t(f"status.{job.status}"))

    def below(self, view: View) -> str:
        more = self._count - self.top - self._room
        lead = t("list.more", count=more) + "  " if more > 0 else ""
        app, cells = cast("TurboApp", self.app), self.size.width - 6 - width_of(lead)
        return lead + keys_below(app, view, view.state.job(self.job_id), cells, large=self.large)

    # ------------------------------------------------------------------ the picture's place

    def picture_cells(self, view: View, width: int) -> tuple[int, int]:
        """Columns and rows for the picture on a page so wide; (0, 0) where there is none."""
        pictures = self.pictures
        job = view.state.job(self.job_id)
        if job is None or pictures is None:
            return 0, 0
        if self.large:
            return width, max(1, self.most_rows - 1)
        if width < LEAST_FOR_PICTURE:
            return 0, 0
        columns = min(84, width * (44 if width < 90 else 48) // 100)
        shape = pictures.shape or self._shape_of(view, job)
        return cells_for(*shape, columns, max(4, min(26, self.most_rows * 6 // 10)))

    def _shape_of(self, view: View, job: Job) -> tuple[int, int]:
        width, _, height = size_of(job, view.state.models).partition("x")
        return (int(width), int(height)) if width.isdecimal() and height.isdecimal() else (16, 9)

    def picture_offset(self, view: View, width: int) -> tuple[int, int]:
        """Where in the panel it begins: against the right edge, below the frame's top."""
        return (2 if self.large else 2 + width - self.picture_cells(view, width)[0]), 1

    def _caption(self, view: View, columns: int) -> Row:
        pictures = self.pictures
        row = Row(columns).add("" if pictures is None else pictures.caption(), view.paint.muted)
        keys = () if pictures is None else pictures.keys(large=self.large)
        return row.tail(next((text for text in keys if width_of(text) + 2 <= row.left), ""), view.paint.muted)

    # ------------------------------------------------------------------ rows

    def page(self, view: View, width: int) -> list[Row]:
        job = view.state.job(self.job_id)
        if job is None:
            return []
        paint = view.paint
        columns, high = self.picture_cells(view, width)
        if self.large:
            return [*(Row(width) for _ in range(high)), self._caption(view, width)]
        beside = width - columns - 2 if columns else width
        rows = self._fields(view, job, beside)
        if columns:
            rows += [Row(beside) for _ in range(high + 1 - len(rows))]
            caption = self._caption(view, columns)
            rows = [Row(width).extend(row).to(width - columns, paint.text) for row in rows]
            rows[high].extend(caption)
        if self.ledger is not None:
            rows += self.ledger.rows(view, job, width)
            rows += floor_rows(view, self.ledger.trends, width)
        lines = [line for line in view.state.log if line.job_id == job.id]
        if lines:
            rows += [Row(width), Row(width).add(t("job.log"), paint.focus_title)]
            rows += whole_lines(paint, lines, view.wall, width)
        return rows

    def _fields(self, view: View, job: Job, width: int) -> list[Row]:
        """What was asked for and where it stands."""
        paint = view.paint
        rows: list[Row] = []
        names = NAME_CELLS

        def put(name: str, value: str, *, strong: bool = False) -> None:
            for place, line in enumerate(wrapped(value, width - names)):
                row = Row(width).field(t(f"job.{name}") if place == 0 else "", names, paint.muted)
                rows.append(row.add(line, paint.bold if strong else paint.text))

        status = Row(width).field(t("job.status"), names, paint.muted)
        status.add(f"{symbol_of(job)} ", paint.ours if job.status == "running" else paint.text)
        progress = job.progress
        if job.status == "running" and width < LEAST_FOR_BAR and progress is not None:
            # The ledger below has the bars.
            steps = f" {progress.step}/{progress.steps}" if progress.steps else ""
            status.add(f"{t(f'stage.{progress.stage}')}{steps} {percent(progress.fraction)}", paint.text)
            if progress.eta_s is not None:
                status.add(f" {time_left(progress.eta_s)}", paint.text)
        elif job.status == "running":
            running_text(view, job, status)
        else:
            status.add(self._status(job), paint.text)
        rows.append(status)
        if job.error:
            put("error", spoken(job.error), strong=True)
        if job.error and self.ledger is not None and (oom := self.ledger.oom) is not None:
            put("memory", " ".join(spoken(line) for line in oom.lines))
        if job.waits_for:
            put("waits_for", spoken(job.waits_for))
        put("prompt", job.spec.prompt)
        put("model", job.spec.model)
        if (runs := job.runs) is not None:
            why = runs.reason and spoken(runs.reason)
            put("runs", t("job.runs_text", name=runs.model, reason=why) if why else runs.model)
        put("picture", self._picture(view, job))
        put("sampling", self._sampling(job))
        if job.spec.image:
            put("image", job.spec.image)
        if attention := attention_text(job, None if self.ledger is None else self.ledger.manifest):
            put("attention", attention)
        if job.doubt:
            put("doubt", spoken(job.doubt))
        if job.spec.residency is not None:
            put("residency", t(f"new.residency_{job.spec.residency}"))
        if job.spec.quant != "auto":
            put("quant", t(f"new.quant_{job.spec.quant}"))
        if job.expected_peak_bytes is not None:
            put("expected_peak", bytes_text(job.expected_peak_bytes))
        put("times", self._times(view, job))
        if job.duplicate_of is not None:
            put("duplicate_of", str(job.duplicate_of))
        if job.output:
            put("output", job.output, strong=True)
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
        shape = t("job.adaptive") if spec.adaptive else spec.aspect_ratio or ""
        ratio = f"{spec.resolution or ''} {shape}".strip()
        return t("job.picture_text", size=size, ratio=f"({ratio})" if ratio else "", frames=frames)

    def _sampling(self, job: Job) -> str:
        spec = job.spec
        steps = UNKNOWN if spec.steps is None else str(spec.steps)
        text = t("job.sampling_text", steps=steps, seed=spec.seed)
        if spec.sigma_max is not None:
            text += f"  sigma_max {spec.sigma_max:g}"
        if spec.samples > 1:
            text += "  " + t("job.samples", count=spec.samples)
        return text + ("  ODE" if spec.ode else "")

    def _times(self, view: View, job: Job) -> str:
        text = t("job.created", at=when(job.created_at, view.wall))
        if job.started_at is not None:
            text += "  " + t("job.started", at=when(job.started_at, view.wall))
        if job.finished_at is not None:
            text += "  " + t("job.finished", at=when(job.finished_at, view.wall))
            if job.started_at is not None:
                text += "  " + t("job.took", took=seconds(job.finished_at - job.started_at))
        return text

    def scroll(self, by: int) -> None:
        super().scroll(by)
        if isinstance(self.screen, JobScreen):
            self.screen.show_picture(self.screen.view())  # it scrolls with its fields

    def on_click(self, event: Click) -> None:
        if isinstance(event.widget, PictureView) and isinstance(self.screen, JobScreen):
            self.screen.action_play()


class JobScreen(PageScreen):
    """One job; acts on it with the queue's keys."""

    panel: JobPanel
    most = 150
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "copy", show=False, id="copy"),
        Binding("x", "on_job('cancel')", show=False, id="cancel"),
        Binding("r", "on_job('retry')", show=False, id="retry"),
        Binding("d", "on_job('duplicate')", show=False, id="duplicate"),
        Binding("e", "on_job('edit_again')", show=False, id="edit_again"),
        Binding("h", "on_job('hold')", show=False, id="hold"),
        Binding("v", "video", show=False, id="video"),
        Binding("V", "fetch", show=False, id="fetch"),
        Binding("left", "frame(-1)", "screen.frame_earlier", show=False),
        Binding("right", "frame(1)", "screen.frame_later", show=False),
        Binding("space", "play", "screen.play", show=False),
        Binding("z", "large", "screen.large", show=False),
    ]

    def __init__(self, job_id: int) -> None:
        super().__init__(JobPanel(job_id))
        self._timer: Timer | None = None
        self._sent_at = 0.0

    def on_mount(self) -> None:
        # Before the same of what it derives from, which draws.
        self.panel.pictures = JobPictures(self.turbo, self.panel.job_id)
        self.panel.ledger = JobLedger(self.turbo, self.panel)

    @property
    def _pictures(self) -> JobPictures:
        assert self.panel.pictures is not None
        return self.panel.pictures

    @property
    def _ledger(self) -> JobLedger:
        assert self.panel.ledger is not None
        return self.panel.ledger

    def wanted_size(self, width: int, height: int) -> tuple[int, int]:
        columns = min(self.most, width - 4)
        self.panel.most_rows = height - 4
        if self.panel.large:
            return width - 4, height - 2
        rows = len(self.panel.page(self.view(), columns - 4))
        return columns, min(rows + 2, height - 2)

    # ------------------------------------------------------------------ what is shown

    def refresh_panel(self) -> None:
        view = self.view()
        self._pictures.follow(view)
        self._ledger.follow(view)
        super().refresh_panel()
        self.show_picture(view)

    def show_picture(self, view: View, *, clip: bool = False) -> None:
        panel, pictures = self.panel, self._pictures
        picture = panel.query_one(PictureView)
        width = (panel.styles.width.value if panel.styles.width is not None else 0) - 4
        columns, rows = panel.picture_cells(view, int(width))
        above = 0 if panel.large else panel.top
        picture.display = columns > 0 and above < rows
        if not picture.display:
            return
        picture.styles.width, picture.styles.height = columns, rows - above
        picture.styles.offset = panel.picture_offset(view, int(width))
        picture.show(view.paint, pictures.picture, pictures.words, clip=clip, rows=rows, above=above)

    # ------------------------------------------------------------------ keys

    def action_large(self) -> None:
        self.panel.large, self.panel.top = not self.panel.large, 0
        self.refresh_panel()

    def action_frame(self, by: int) -> None:
        self._stop()
        self._pictures.move(by)
        self._redraw(clip=False)

    def action_play(self) -> None:
        """Play the clip, or hold it; where there is none, the page turns."""
        if not self._pictures.toggle():
            self.action_page(1)
            return
        if self._pictures.playing:
            self._sent_at = self.turbo.monotonic()
            self._next(wait_s(0))
        else:
            self._stop()
        self._redraw(clip=False)

    def _next(self, after_s: float) -> None:
        self._timer = self.set_timer(after_s, self._advance)

    def _advance(self) -> None:
        if not self._pictures.playing:
            return
        now = self.turbo.monotonic()
        self._pictures.advance(now - self._sent_at)
        self._sent_at = now
        self._redraw(clip=True)
        self._next(wait_s(self.panel.query_one(PictureView).spent_bytes))

    def _stop(self) -> None:
        self._pictures.playing = False
        if self._timer is not None:
            self._timer.stop()

    def _redraw(self, *, clip: bool) -> None:
        view = self.view()
        self.panel.show(view)
        self.show_picture(view, clip=clip)

    def action_copy(self) -> None:
        job = self.turbo.link.state.job(self.panel.job_id)
        if job is not None:
            box, path = self.turbo.box, job.output
            self.turbo.copy_text(job.spec.prompt if not path else path if box is None else box.scp(path))

    def action_fetch(self) -> None:
        self.dismiss(None)
        self.turbo.act("fetch", self.panel.job_id)

    def action_video(self) -> None:
        self.dismiss(None)
        self.turbo.act("video", self.panel.job_id)

    def action_on_job(self, verb: str) -> None:
        """Act on this job, wherever the queue's cursor is by now; close, so that the answer is seen."""
        if not self.painted:
            return
        self.dismiss(None)
        self.turbo.act(verb, self.panel.job_id)
