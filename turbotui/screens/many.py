"""Owns queueing many jobs from a file: its path, what its lines come to, and the one key that queues them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

from textual import on
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input

from engine.errors import EngineUnavailable
from engine.wire import BatchForecast, BatchLine, BatchQueued, JobBatch, JobSpec
from turbotui.format import bytes_text, seconds
from turbotui.job_file import JobFile, JobLine, read_job_file
from turbotui.path_typing import Completion, complete_path
from turbotui.screens.behind import DrawnBehind
from turbotui.screens.keys import show_keys
from turbotui.screens.queueing import show_queued
from turbotui.text import t
from turbotui.text.spoken import spoken
from turbotui.widgets.fields import FieldInput, TypedField, fitting
from turbotui.widgets.lines import LinePanel, Row, View, width_of, wrapped

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.binding import BindingType
    from textual.timer import Timer

    from turbotui.app import TurboApp
    from turbotui.client.base import Client

READ_AFTER_S = 0.4
NUMBER_CELLS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """What a file would queue."""

    path: str
    file: JobFile
    told: BatchForecast
    """Of its good lines."""
    again: bool

    @property
    def lines(self) -> list[tuple[JobLine, BatchLine | None]]:
        """Every line with what the engine says of it; bad ones first, since nobody scrolls for them."""
        told = iter(self.told.lines)
        both = [(line, next(told) if line.spec is not None else None) for line in self.file.lines]
        return sorted(both, key=lambda pair: (_fault(*pair) is None, pair[0].number))

    @property
    def specs(self) -> tuple[JobSpec, ...]:
        """Those that the engine would take."""
        return tuple(
            line.spec
            for line, told in zip(self.file.good, self.told.lines, strict=True)
            if line.spec is not None and told.error is None
        )

    @property
    def new(self) -> int:
        """How many jobs it would make."""
        return sum(
            line.error is None and line.job_id is None and line.same_as is None for line in self.told.lines
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Unanswered:
    """The engine fell silent while it was asked to queue."""

    error: str


def look(client: Client, path: str, base: JobSpec, *, samples: int, again: bool) -> Preview:
    """Read the file and ask the engine of every good line.

    Raises:
        InvalidRequest, EngineUnavailable: as `read_job_file` and the client.
    """
    file = read_job_file(path, base, samples=samples)
    specs = tuple(line.spec for line in file.good if line.spec is not None)
    told = BatchForecast(lines=())
    if specs:
        told = client.forecast_many(JobBatch(specs=specs, again=again))
    return Preview(path=path, file=file, told=told, again=again)


def queue(client: Client, batch: JobBatch) -> BatchQueued | Unanswered:
    """Queue it whole; raises as the client, but for an engine that does not answer."""
    try:
        return client.submit_many(batch)
    except EngineUnavailable as error:
        return Unanswered(error=str(error))


def _fault(line: JobLine, told: BatchLine | None) -> str | None:
    error = line.error or (told.error if told is not None else None)
    return None if error is None else spoken(error)


class ManyPanel(LinePanel):
    """The sum, then the lines."""

    def __init__(self) -> None:
        super().__init__(id="many")
        self.preview: Preview | None = None
        self.error: str | None = None
        self.busy = False
        self.top = 0
        self.names: tuple[str, ...] = ()
        """Of files that the path may mean."""
        self._lines: list[tuple[JobLine, BatchLine | None]] = []

    def tell(self, preview: Preview | None, error: str | None) -> None:
        """Show what a file comes to, or why it comes to nothing."""
        self.preview, self.error, self.top, self.busy = preview, error, 0, False
        self._lines = preview.lines if preview is not None else []

    def inputs(self, view: View) -> tuple[object, ...]:
        return (self.preview, self.error, self.top, self.busy, self.names)

    def rows(self, view: View, width: int, height: int) -> list[Row]:
        paint = view.paint
        rows: list[Row] = []
        if self.error is not None:
            for place, text in enumerate(wrapped(self.error, width - 2)):
                rows.append(Row(width).add("! " if place == 0 else "  ", paint.error).add(text, paint.bold))
        if self.names:
            text = "  ".join(self.names)
            return [Row(width).add(line, paint.text) for line in wrapped(text, width)][:height]
        if self.preview is None:
            if self.error is None:
                text = t("many.reading" if self.busy else "many.help")
                return [Row(width).add(line, paint.muted) for line in wrapped(text, width)][:height]
            return rows[:height]
        rows += [self._sum(view, self.preview, width), self._verdict(view, self.preview, width), Row(width)]
        room = max(1, height - len(rows) - 1)
        self.top = max(0, min(self.top, len(self._lines) - room))
        shown = self._lines[self.top : self.top + room]
        rows += [self._line(view, line, told, width) for line, told in shown]
        more = len(self._lines) - self.top - room
        if more > 0:
            rows.append(Row(width).add(t("list.more", count=more), paint.muted))
        return rows[:height]

    def scroll(self, by: int) -> None:
        self.top += by
        self.redraw()

    def _sum(self, view: View, preview: Preview, width: int) -> Row:
        paint = view.paint
        row = Row(width).add(t("many.jobs", count=preview.new), paint.bold)
        encoding = preview.file.encoding.upper().removesuffix("-SIG")
        expected = preview.told.expected_s
        if preview.new:
            if expected is not None:
                row.add("  " + t("many.time") + " ", paint.muted).add(seconds(expected), paint.text)
            peaks = [line.forecast.peak_bytes for line in preview.told.lines if line.forecast is not None]
            row.add("  " + t("many.peak") + " ", paint.muted).add(bytes_text(max(peaks)), paint.text)
            if expected is None:
                texts = (t("new.no_rate"), t("new.no_rate_short"))
                row.add("  " + fitting(texts, row.left - width_of(encoding) - 4), paint.muted)
        return row.tail(encoding, paint.muted)

    def _verdict(self, view: View, preview: Preview, width: int) -> Row:
        paint = view.paint
        bad = sum(_fault(*pair) is not None for pair in self._lines)
        same = sum(line.job_id is not None for line in preview.told.lines)
        twice = sum(line.same_as is not None for line in preview.told.lines)
        row = Row(width)
        if bad:
            row.add("! ", paint.error).add(t("many.bad", count=bad) + "  ", paint.wait)
        if same:
            row.add(t("many.same", count=same) + "  ", paint.wait)
        if twice:
            row.add(t("many.twice", count=twice) + "  ", paint.wait)
        if not row.cells:
            row.add(t("many.good"), paint.muted)
        return row

    def _line(self, view: View, line: JobLine, told: BatchLine | None, width: int) -> Row:
        paint = view.paint
        row = Row(width).field(str(line.number), NUMBER_CELLS, paint.muted, right=True)
        fault = _fault(line, told)
        if fault is not None:
            return row.add(" ! ", paint.error).add(fault, paint.wait).add("  " + line.text, paint.muted)
        row.add("   ", paint.text)
        note = ""
        if told is not None and told.job_id is not None:
            note = t("many.is_job", id=told.job_id)
        elif told is not None and told.same_as is not None:
            note = t("many.is_line")
        elif told is not None and told.forecast is not None and line.spec is not None:
            forecast = told.forecast
            parts = [f"{forecast.width}x{forecast.height}", seconds(forecast.expected_s)]
            note = "  ".join([line.spec.model, *parts, t("earlier.seed", seed=line.spec.seed)])
        cells = min(width_of(note) + 2, width * 2 // 3)
        row.field(line.text, row.left - cells, paint.muted if told and told.job_id else paint.text)
        return row.add("  ", paint.text).tail(note, paint.muted)


class ManyScreen(DrawnBehind, ModalScreen[bool]):
    """Dismissed with whether anything was queued. Enter queues only what is on the screen."""

    CSS = """
    ManyScreen { align: center middle; background: $background 60%; }
    ManyScreen #window {
        width: 96; max-width: 100%; height: auto; max-height: 100%;
        background: $background; border: round $primary; border-title-style: bold;
        border-title-color: $primary; border-subtitle-color: $muted; padding: 0 1;
    }
    ManyScreen #path { width: 1fr; }
    ManyScreen #path_remark { width: 0; }
    ManyScreen ManyPanel { height: 14; width: 100%; margin: 1 0 0 0; }
    """
    AUTO_FOCUS = "#path"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", show=False),
        Binding("up", "scroll(-1)", show=False),
        Binding("down", "scroll(1)", show=False),
        Binding("pageup", "scroll(-8)", show=False),
        Binding("pagedown", "scroll(8)", show=False),
        Binding("ctrl+t", "again", show=False),
        Binding("tab", "complete", show=False, priority=True),
        Binding("f1", "help", show=False, priority=True),
    ]
    key_help: ClassVar[tuple[tuple[str, str], ...]] = (
        ("↵", "screen.many_queue"),
        ("tab", "screen.complete"),
        ("ctrl+t", "screen.many_again"),
        ("↑ ↓", "screen.many_scroll"),
    )

    def __init__(self, base: JobSpec, *, samples: int) -> None:
        super().__init__()
        self._base = base
        self._samples = samples
        self._again = False
        self._asked = 0
        self._timer: Timer | None = None
        self._sending = False

    @property
    def turbo(self) -> TurboApp:
        return cast("TurboApp", self.app)

    def compose(self) -> ComposeResult:
        with Vertical(id="window") as window:
            window.border_title = t("many.title")
            window.border_subtitle = t("many.keys")
            yield TypedField(t("many.path"), FieldInput(id="path", placeholder="~/prompts.txt"))
            yield ManyPanel()

    def on_mount(self) -> None:
        self.query_one(ManyPanel).styles.height = max(8, min(30, self.app.size.height - 8))
        self._show()
        self.set_interval(0.5, self._show)

    def _show(self) -> None:
        view = self.turbo.dashboard.view_now()
        for panel in self.query(LinePanel):
            panel.show(view)

    @property
    def _path(self) -> str:
        return self.query_one("#path", Input).value.strip()

    @on(Input.Changed, "#path")
    def _changed(self) -> None:
        self._tell(None, None)
        if self._timer is not None:
            self._timer.stop()
        if self._path:
            self._timer = self.set_timer(READ_AFTER_S, self._look)

    def _look(self) -> None:
        if self._timer is not None:
            self._timer.stop()
        self._asked += 1
        number, path, again = self._asked, self._path, self._again
        panel = self.query_one(ManyPanel)
        panel.busy = panel.preview is None
        self._show()

        def told(preview: Preview | None, error: str | None) -> None:
            if number == self._asked and self.is_attached:
                self._tell(preview, error)

        self.turbo.ask(
            t("many.reading"),
            lambda client: look(client, path, self._base, samples=self._samples, again=again),
            then=lambda preview: told(preview, None),
            failed=lambda error: told(None, error),
            quiet=True,
        )

    def _tell(self, preview: Preview | None, error: str | None, *, names: tuple[str, ...] = ()) -> None:
        panel = self.query_one(ManyPanel)
        panel.tell(preview, error)
        panel.names = names
        self._show()

    @on(Input.Submitted, "#path")
    def _submit(self) -> None:
        panel = self.query_one(ManyPanel)
        preview = panel.preview
        if preview is None or preview.path != self._path or self._sending:
            if self._path and not self._sending:
                self._look()
            return
        if not preview.specs:
            return
        self._sending = True
        batch = JobBatch(specs=preview.specs, again=preview.again)
        self.turbo.ask(
            t("doing.submit_many", count=preview.new),
            lambda client: queue(client, batch),
            then=self._queued,
            failed=self._refused,
        )

    def _queued(self, answer: BatchQueued | Unanswered) -> None:
        if isinstance(answer, Unanswered):
            # Whether they are queued is not known: what is asked again must not be made twice.
            self._again = False
            self._refused(t("many.unanswered", error=spoken(answer.error)))
            return
        if self.is_attached:
            self.dismiss(True)
        show_queued(self.turbo, answer)

    def _refused(self, error: str) -> None:
        self._sending = False
        if self.is_attached:
            panel = self.query_one(ManyPanel)
            panel.tell(panel.preview, error)
            self._show()
        else:
            self.turbo.say(error, "error")

    def action_complete(self) -> None:
        """Make the path longer, as far as it is certain; what it may mean is shown."""
        path = self.query_one("#path", Input).value

        def found(completion: Completion) -> None:
            # Not `is_mounted`, which stays true of a screen that is gone.
            if not self.is_attached:
                return
            field = self.query_one("#path", Input)
            if field.value != path:
                return
            if completion.path != path:
                field.value = completion.path
                field.cursor_position = len(completion.path)
            elif completion.names:
                self._tell(None, None, names=completion.names)

        self.turbo.run_apart(t("many.path"), lambda: complete_path(path), then=found, quiet=True)

    def action_help(self) -> None:
        show_keys(self, self.turbo)

    def action_scroll(self, by: int) -> None:
        self.query_one(ManyPanel).scroll(by)

    def action_again(self) -> None:
        """Queue also what is there already, or leave it out again."""
        self._again = not self._again
        if self._path:
            self._look()

    def action_close(self) -> None:
        self.dismiss(False)
