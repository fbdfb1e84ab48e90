"""Owns the queue panel: the running job, those that wait, and the newest that ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.errors import WorkerNotStarted
from turbotui.format import cell_width, clip_middle, percent, seconds, short_bytes, time_left
from turbotui.text import t
from turbotui.text.spoken import spoken
from turbotui.widgets.lines import Row, View
from turbotui.widgets.panels import Key, ListPanel

if TYPE_CHECKING:
    from rich.style import Style
    from textual.events import Click

    from engine.wire import Job, ModelStatus

EIGHTHS = " ▏▎▍▌▋▊▉█"
LEAST_BAR = 5
MOST_BAR = 20
SYMBOLS = {
    "queued": "·",
    "waiting_memory": "‖",
    "running": "▶",
    "done": "✓",
    "failed": "!",
    "cancelled": "x",
    "interrupted": "!",
}


def symbol_of(job: Job) -> str:
    return "h" if job.held and job.status in ("queued", "waiting_memory") else SYMBOLS[job.status]


def size_of(job: Job, models: tuple[ModelStatus, ...]) -> str:
    """`1280x720` by the model's own table, else, as in the image's shape, the resolution's name."""
    model = next((model for model in models if model.name == job.spec.model), None)
    name = job.spec.resolution or (model.default_resolution if model else None)
    ratio = job.spec.aspect_ratio or (model.default_aspect_ratio if model else None)
    if job.spec.adaptive:  # known once the engine has seen the image
        return name or ""
    for row in model.resolutions if model else ():
        if row.name == name and row.aspect_ratio == ratio:
            return f"{row.width}x{row.height}"
    return name or ""


def progress_bar(fraction: float, cells: int) -> tuple[str, str]:
    """The done and the open part of a bar, to an eighth of a cell."""
    eighths = round(max(0.0, min(1.0, fraction)) * cells * 8)
    done = "█" * (eighths // 8) + (EIGHTHS[eighths % 8] if eighths % 8 else "")
    return done, "░" * (cells - len(done))


def running_text(view: View, job: Job, row: Row) -> Row:
    """Stage, bar, share, time left and peak of a running job; the bar takes what is left over."""
    paint = view.paint
    progress = job.progress
    if progress is None:
        return row.add(t("stage.start"), paint.text)
    stage = t(f"stage.{progress.stage}")
    if progress.steps:
        stage += f" {progress.step}/{progress.steps}"
    figures = f" {percent(progress.fraction):>5}"
    if progress.eta_s is not None:
        figures += f" {time_left(progress.eta_s):>6}"
    peak = ""
    if progress.peak_bytes is not None:
        peak = f"  {t('queue.peak')} {short_bytes(progress.peak_bytes):>4}"
    stage_cells = max(cell_width(stage), min(12, row.left // 4))
    room = row.left - stage_cells - 1 - cell_width(figures) - cell_width(peak)
    if room < LEAST_BAR:
        room += cell_width(peak)
        peak = ""
    done, open_ = progress_bar(progress.fraction, max(LEAST_BAR, min(MOST_BAR, room)))
    row.field(stage, stage_cells, paint.text).add(" ", paint.text)
    row.add(done, paint.bar).add(open_, paint.faint)
    return row.add(figures, paint.text).add(peak, paint.muted)


class QueuePanel(ListPanel):
    """Rows are named by job id, so the cursor stays on its job while the queue moves."""

    number = 4
    told_by = "engine"
    unwatched_s = 1.0

    def inputs(self, view: View) -> tuple[object, ...]:
        engine = view.state.engine
        return (view.state.jobs, view.state.models, engine and engine.queue)

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._awaited: int | None = None
        """A job that was queued just now and is not in the list yet."""

    def await_job(self, job_id: int) -> None:
        """Put the cursor on a job as soon as it is there, unless the person walks on before."""
        self._awaited = job_id
        self.redraw()

    def leave(self, job_id: int, waiting: tuple[int, ...]) -> None:
        """Put the cursor on the next of those that wait, since `job_id` goes down among the ended.

        With no other one it stays on its job: the key that was pressed must not mean the running one next.
        """
        place = waiting.index(job_id)
        self._awaited, self.walked = None, True
        self.chosen = next(iter((*waiting[place + 1 :], *waiting[:place][-1:])), job_id)
        self.redraw()

    def place_cursor(self) -> None:
        if self._awaited in self._walkable:
            self.chosen, self.walked, self._awaited = self._awaited, True, None
        super().place_cursor()

    def _go(self, place: int) -> None:
        self._awaited = None
        super()._go(place)

    def on_click(self, event: Click) -> None:
        self._awaited = None
        super().on_click(event)

    @property
    def chosen_job(self) -> int | None:
        return self.chosen if isinstance(self.chosen, int) else None

    def title(self, view: View) -> str:
        waiting = len(view.state.waiting)
        return t("queue.title_waiting", count=waiting) if waiting else t("queue.title")

    def remark(self, view: View, width: int) -> Row | None:
        row = Row(width)
        engine = view.state.engine
        if engine is not None and engine.queue.held_reason:
            reason = t("queue.held", reason=spoken(engine.queue.held_reason))
            row.field(reason, min(cell_width(reason), max(0, width - 12)), view.paint.wait)
            return row.add("  o ", view.paint.key).add(t("queue.resume"), view.paint.muted)
        return row

    def keys(self, view: View) -> list[Key]:
        state = view.state
        running = [] if state.running is None else [state.running]
        return [job.id for job in (*running, *state.waiting, *state.finished)]

    def pinned(self, view: View) -> Key | None:
        return view.state.running.id if view.state.running is not None else None

    def nothing(self, view: View, width: int) -> list[Row]:
        if view.state.engine is None:
            return [Row(width).add(t("queue.waiting"), view.paint.muted)]
        return [Row(width).add("a", view.paint.key).add(t("queue.first"), view.paint.text)]

    def row(self, view: View, key: Key, width: int) -> Row:
        assert isinstance(key, int)
        job = view.state.job(key)
        assert job is not None
        paint = view.paint
        running = job.status == "running"
        ended = job.status in ("done", "cancelled")
        symbol_style = (
            paint.ours if running else paint.alarm if job.error_code == "out_of_memory" else paint.text
        )
        if job.status in ("queued", "waiting_memory"):
            symbol_style = paint.wait if job.status == "waiting_memory" or job.held else paint.muted
        elif job.status in ("failed", "interrupted") and job.error_code != "out_of_memory":
            symbol_style = paint.error
        longest = max((cell_width(known.spec.model) for known in view.state.jobs), default=0)
        name_cells = max(4, min(longest, 24 if width >= 90 else max(14, width // 4)))
        id_cells = max(len(str(known.id)) for known in view.state.jobs)
        row = Row(width).field(str(job.id), id_cells, paint.muted, right=True)
        row.add(f" {symbol_of(job)} ", symbol_style)
        name = clip_middle(job.spec.model, name_cells)
        row.field(name, name_cells, paint.muted if ended else paint.text).add(" ", paint.text)
        row.field(size_of(job, view.state.models), 9, paint.muted, right=True).add(" ", paint.text)
        if running:
            running_text(view, job, row)
            if row.left > 12:
                row.add("  " + job.spec.prompt, paint.muted)
            return row
        tail, tail_style = _tail(view, job)
        text, style = _words(view, job)
        cells = max(0, row.left - (cell_width(tail) + 2 if tail else 0))
        row.field(text, cells, style)
        return row.add("  ", paint.text).add(tail, tail_style) if tail else row


def _words(view: View, job: Job) -> tuple[str, Style]:
    """What the middle of a row says: the prompt, unless there is something to explain."""
    if job.status == "waiting_memory" and job.waits_for:
        return t("queue.waits", what=spoken(job.waits_for)), view.paint.wait
    if job.error and (job.status in ("failed", "interrupted") or job.error_code == WorkerNotStarted.code):
        return spoken(job.error), view.paint.text
    return job.spec.prompt, view.paint.muted if job.status in ("done", "cancelled") else view.paint.text


def _tail(view: View, job: Job) -> tuple[str, Style]:
    paint = view.paint
    if job.status in ("queued", "waiting_memory"):
        if job.held:
            return t("queue.is_held"), paint.wait
        if job.expected_peak_bytes is not None:
            return f"{t('queue.peak')} {short_bytes(job.expected_peak_bytes):>4}", paint.muted
        return "", paint.muted
    if job.started_at is not None and job.finished_at is not None:
        return t(f"queue.{job.status}", took=seconds(job.finished_at - job.started_at)), paint.muted
    return t(f"queue.{job.status}", took="").strip(), paint.muted


def one_line(view: View, job: Job, width: int) -> Row:
    """The running job in one row of its own, where the queue is not in sight."""
    paint = view.paint
    row = Row(width).add(f" ▶{job.id} ", paint.ours)
    row.add(f"{job.spec.model} ", paint.text)
    if width >= 80:
        row.add(f"{size_of(job, view.state.models)} ", paint.muted)
    running_text(view, job, row)
    return row
