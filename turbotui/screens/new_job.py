"""Owns writing a job: the prompt, its settings, and what the engine says about them as they change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, cast

from textual import on
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Input, Static, TextArea

from engine.errors import EngineError
from engine.wire import RESIDENCIES
from turbotui.draft import DECIMAL, Draft, save_draft
from turbotui.format import bytes_text
from turbotui.text import t
from turbotui.text.spoken import spoken
from turbotui.widgets.bottom import Notice
from turbotui.widgets.lines import LinePanel, Row, View, wrapped
from turbotui.widgets.models import short_dtype

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.binding import BindingType
    from textual.events import Click
    from textual.events import Key as KeyEvent
    from textual.timer import Timer

    from engine.wire import Job, JobForecast, JobSpec, ModelStatus
    from turbotui.app import TurboApp

LABEL_CELLS = 13
FORECAST_AFTER_S = 0.3
FPS = 16


class PromptArea(TextArea):
    """Enter submits, since a prompt is mostly one paragraph; ctrl+j breaks the line."""

    class Submitted(Message):
        """Enter was pressed in the prompt."""

    async def _on_key(self, event: KeyEvent) -> None:
        if event.key == "enter":
            event.stop()
            event.prevent_default()
            self.post_message(self.Submitted())
        elif event.key == "ctrl+j":
            event.stop()
            event.prevent_default()
            self.insert("\n")
        else:
            await super()._on_key(event)


class ChoiceField(LinePanel, can_focus=True):
    """One of several values in one row: left and right change it."""

    class Changed(Message):
        """Another value was chosen."""

    class Submitted(Message):
        """Enter was pressed here."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,h", "step(-1)", show=False),
        Binding("right,l,space", "step(1)", show=False),
        Binding("enter", "submit", show=False),
    ]

    def __init__(self, *, id: str, label: str, remark: Callable[[str], str]) -> None:
        super().__init__(id=id)
        self._label = label
        self._remark = remark
        self.values: list[str] = []
        self.value = ""

    def offer(self, values: list[str], value: str) -> None:
        """What there is to choose from; an unknown `value` becomes the first."""
        self.values = values
        self.value = value if value in values else (values[0] if values else "")

    def inputs(self, view: View) -> tuple[object, ...]:
        return (self.value, tuple(self.values), self._remark(self.value))

    def rows(self, view: View, width: int, height: int) -> list[Row]:
        paint = view.paint
        arrows = paint.key if self.has_focus and len(self.values) > 1 else paint.faint
        row = Row(width).field(self._label, LABEL_CELLS, paint.focus if self.has_focus else paint.muted)
        row.add("‹ ", arrows).add(self.value or "-", paint.bold if self.has_focus else paint.text)
        row.add(" ›", arrows).add("  " + self._remark(self.value), paint.muted)
        return [row]

    def action_step(self, by: int) -> None:
        if len(self.values) > 1:
            self.value = self.values[(self.values.index(self.value) + by) % len(self.values)]
            self.redraw()
            self.post_message(self.Changed())

    def action_submit(self) -> None:
        self.post_message(self.Submitted())

    def on_click(self, event: Click) -> None:
        self.action_step(1)


class ForecastPanel(LinePanel):
    """What the job would cost, or why it is refused, in the engine's own words."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.forecast: JobForecast | None = None
        self.error: str | None = None

    def inputs(self, view: View) -> tuple[object, ...]:
        return (self.forecast, self.error)

    def rows(self, view: View, width: int, height: int) -> list[Row]:
        paint = view.paint
        if self.error is not None:
            lines = wrapped(spoken(self.error), width - 2)
            return [
                Row(width).add("! " if place == 0 else "  ", paint.error).add(line, paint.bold)
                for place, line in enumerate(lines[:height])
            ]
        forecast = self.forecast
        if forecast is None:
            return [Row(width).add(t("new.no_forecast"), paint.muted)]
        shape = Row(width).add(f"{forecast.width}x{forecast.height}", paint.text)
        length = f"{forecast.frames / FPS:.1f}"
        shape.add(
            "  " + t("new.cost", frames=forecast.frames, length=length, steps=forecast.steps), paint.muted
        )
        row = Row(width).add(t("new.weights") + " ", paint.muted)
        row.add(bytes_text(forecast.weights_bytes), paint.text)
        row.add("  " + t("new.peak") + " ", paint.muted).add(bytes_text(forecast.peak_bytes), paint.text)
        if forecast.fits_now:
            row.add("  " + t("new.fits"), paint.text)
        elif forecast.fits_empty:
            row.add("  " + t("new.waits"), paint.wait)
        else:
            row.add("  " + t("new.never"), paint.wait)
        rows = [shape, row]
        if forecast.reason:
            rows += [Row(width).add(line, paint.wait) for line in wrapped(spoken(forecast.reason), width)]
        return rows[:height]


class NewJobScreen(ModalScreen[None]):
    """Everything typed is kept until it was submitted."""

    CSS = """
    NewJobScreen { align: center middle; background: $background 60%; }
    NewJobScreen #window {
        width: 96; max-width: 100%; height: auto; max-height: 100%;
        background: $background; border: round $primary; border-title-style: bold;
        border-title-color: $primary; border-subtitle-color: $muted; padding: 0 1;
    }
    NewJobScreen #prompt {
        height: 4; border: none; padding: 0 1; background: $panel; margin: 0 0 1 0;
        scrollbar-size-vertical: 1;
    }
    NewJobScreen #prompt:focus { border: none; background: $selected 60%; }
    NewJobScreen ChoiceField { height: 1; width: 100%; }
    NewJobScreen Horizontal { height: 1; width: 100%; }
    NewJobScreen Horizontal Static { width: 13; color: $muted; }
    NewJobScreen Input { width: 22; background: $panel; }
    NewJobScreen Input:focus { background: $selected 60%; }
    NewJobScreen #image { width: 1fr; }
    NewJobScreen .remark { width: 1fr; color: $muted; padding: 0 0 0 2; }
    NewJobScreen ForecastPanel { height: 3; width: 100%; margin: 1 0 0 0; }
    """
    # The prompt has the focus once what was typed before is in it: see `_hand_over`.
    AUTO_FOCUS = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", show=False),
        Binding("up", "app.focus_previous", show=False),
        Binding("down", "app.focus_next", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._timer: Timer | None = None
        self._asked = 0
        self._sending = False

    @property
    def turbo(self) -> TurboApp:
        return cast("TurboApp", self.app)

    # ------------------------------------------------------------------ fields

    def compose(self) -> ComposeResult:
        with Vertical(id="window") as window:
            window.border_title = t("new.title")
            window.border_subtitle = t("new.keys")
            prompt = PromptArea(id="prompt", soft_wrap=True, show_line_numbers=False, compact=True)
            prompt.placeholder = t("new.placeholder")
            prompt.cursor_blink = False
            yield prompt
            yield ChoiceField(id="model", label=t("new.model"), remark=self._about_model)
            yield ChoiceField(id="resolution", label=t("new.resolution"), remark=self._about_size)
            with Horizontal():
                yield Static(t("new.frames"), markup=False)
                yield Input(id="frames", compact=True, restrict=r"\d{0,5}", select_on_focus=False)
                yield Static("", id="frames_remark", classes="remark", markup=False)
            yield ChoiceField(id="steps", label=t("new.steps"), remark=lambda _value: t("new.steps_remark"))
            with Horizontal():
                yield Static(t("new.seed"), markup=False)
                yield Input(
                    id="seed", compact=True, restrict=r"\d{0,19}", placeholder="0", select_on_focus=False
                )
                yield Static(t("new.seed_remark"), classes="remark", markup=False)
            with Horizontal(id="image_row"):
                yield Static(t("new.image"), markup=False)
                yield Input(id="image", compact=True, placeholder="/…/first.png", select_on_focus=False)
            yield ChoiceField(id="ode", label=t("new.ode"), remark=lambda _value: t("new.ode_remark"))
            yield ChoiceField(id="residency", label=t("new.residency"), remark=self._about_residency)
            yield ForecastPanel(id="forecast")

    def on_mount(self) -> None:
        draft = self.turbo.draft
        models = [model.name for model in self._models()]
        active = next((model.name for model in self._models() if model.active), "")
        self._choice("model").offer(models, draft.model if draft.model in models else active)
        self.query_one(PromptArea).load_text(draft.prompt)
        self.query_one(PromptArea).move_cursor(self.query_one(PromptArea).document.end)
        self._input("seed").value = draft.seed
        self._input("image").value = draft.image
        self._choice("ode").offer([t("new.no"), t("new.yes")], t("new.yes") if draft.ode else t("new.no"))
        self._follow_model(draft)
        for field in self.query(Input):
            field.cursor_blink = False
        self._hand_over()
        self._show()
        self.set_interval(0.5, self._show)
        self._ask_soon()

    def on_key(self, event: KeyEvent) -> None:
        """Keys typed before the prompt had the focus are the prompt's; Enter waits for the eye."""
        if self.focused is None and event.key not in ("enter", "escape"):
            event.stop()
            event.prevent_default()
            self.query_one(PromptArea).post_message(event)

    def _hand_over(self) -> None:
        """Focus the prompt when no key is left that came before it: they stay in their order."""
        if self.message_queue_size:
            self.call_later(self._hand_over)
        else:
            self.set_focus(self.query_one(PromptArea))

    def _models(self) -> list[ModelStatus]:
        return [model for model in self.turbo.link.state.models if not model.problem]

    def _model(self) -> ModelStatus | None:
        name = self._choice("model").value
        return next((model for model in self._models() if model.name == name), None)

    def _choice(self, name: str) -> ChoiceField:
        return self.query_one(f"#{name}", ChoiceField)

    def _input(self, name: str) -> Input:
        return self.query_one(f"#{name}", Input)

    def _follow_model(self, draft: Draft) -> None:
        """Offer what this model can do."""
        model = self._model()
        if model is None:
            return
        default = f"{model.default_resolution} {model.default_aspect_ratio}"
        sizes = [f"{row.name} {row.aspect_ratio}" for row in model.resolutions]
        self._choice("resolution").offer(sizes, draft.resolution if draft.resolution in sizes else default)
        steps = str(draft.steps or model.default_steps)
        self._choice("steps").offer(["1", "2", "3", "4"], steps)
        frames = self._input("frames")
        frames.placeholder = str(model.default_frames)
        frames.value = draft.frames
        image_to_video = model.kind == "i2v"
        self.query_one("#image_row").display = image_to_video
        self._choice("ode").display = image_to_video
        # One that this model or this build does not know becomes the first, auto.
        names = self._residencies(model)
        chosen = draft.residency if draft.residency in names else "auto"
        self._choice("residency").offer(
            [t(f"new.residency_{name}") for name in names], t(f"new.residency_{chosen}")
        )
        self._tell_length()

    def _about_model(self, name: str) -> str:
        model = self._model()
        return "" if model is None else f"{model.kind} {short_dtype(model.dtype)}  {bytes_text(model.bytes)}"

    def _about_size(self, value: str) -> str:
        model = self._model()
        for row in model.resolutions if model else ():
            if f"{row.name} {row.aspect_ratio}" == value:
                return f"{row.width}x{row.height}"
        return ""

    def _residencies(self, model: ModelStatus) -> list[str]:
        """What this model may keep: both experts only where there are two."""
        experts = sum(part.name.startswith("dit.") for part in model.components)
        return [name for name in RESIDENCIES if name != "keep_experts" or experts > 1]

    def _residency(self) -> str:
        """The chosen one as the engine calls it; empty leaves it to the engine."""
        chosen = self._choice("residency").value
        found = next((name for name in RESIDENCIES if t(f"new.residency_{name}") == chosen), "auto")
        return "" if found == "auto" else found

    def _about_residency(self, _value: str) -> str:
        return t(f"new.residency_{self._residency() or 'auto'}_remark")

    def _tell_length(self) -> None:
        model = self._model()
        if model is None:
            return
        text = self._input("frames").value
        # What is no number is said by the forecast.
        frames = int(text) if text and DECIMAL.fullmatch(text) else model.default_frames
        remark = t("new.frames_remark", length=f"{frames / FPS:.1f}", most=model.max_frames)
        self.query_one("#frames_remark", Static).update(remark)

    def current_draft(self) -> Draft:
        """The fields as they stand."""
        return Draft(
            prompt=self.query_one(PromptArea).text,
            model=self._choice("model").value,
            resolution=self._choice("resolution").value,
            frames=self._input("frames").value,
            steps=int(self._choice("steps").value or 0),
            seed=self._input("seed").value,
            image=self._input("image").value,
            ode=self._choice("ode").value == t("new.yes"),
            residency=self._residency(),
        )

    def _show(self) -> None:
        view = self.turbo.dashboard.view_now()
        for panel in self.query(LinePanel):
            panel.show(view)

    # ------------------------------------------------------------------ the engine's opinion

    @on(TextArea.Changed)
    @on(Input.Changed)
    @on(ChoiceField.Changed)
    def _changed(self, event: Message) -> None:
        if isinstance(event, ChoiceField.Changed):
            draft = self.current_draft()
            # Frames and steps stay as typed; what the new model cannot do takes its default.
            self._follow_model(draft)
        if isinstance(event, Input.Changed):
            self._tell_length()
        self.turbo.draft = self.current_draft()
        self._show()
        self._ask_soon()

    def _ask_soon(self) -> None:
        if self._timer is not None:
            self._timer.stop()
        self._timer = self.set_timer(FORECAST_AFTER_S, self._ask)

    def _ask(self) -> None:
        save_draft(self.turbo.draft_path, self.turbo.draft)
        self._asked += 1
        number = self._asked
        try:
            spec = self._spec()
        except EngineError as error:
            self._told(number, None, str(error))
            return
        # The forecast is about size: an empty prompt is said only when somebody submits it.
        spec = replace(spec, prompt=spec.prompt if spec.prompt.strip() else "-")

        def told(forecast: JobForecast) -> None:
            self._told(number, forecast, None)

        self.turbo.ask(
            "forecast",
            lambda client: client.forecast(spec),
            then=told,
            failed=lambda error: self._told(number, None, error),
            quiet=True,
        )

    def _spec(self) -> JobSpec:
        model = self._model()
        return self.current_draft().spec(image_to_video=model is not None and model.kind == "i2v")

    def _told(self, number: int, forecast: JobForecast | None, error: str | None) -> None:
        if number != self._asked or not self.is_mounted:
            return
        panel = self.query_one(ForecastPanel)
        panel.forecast, panel.error = forecast, error
        self._show()

    # ------------------------------------------------------------------ sending

    @on(PromptArea.Submitted)
    @on(Input.Submitted)
    @on(ChoiceField.Submitted)
    def _submit(self) -> None:
        if self._sending:
            return
        # A forecast that is still to be asked would wipe away what the engine says to this.
        if self._timer is not None:
            self._timer.stop()
        save_draft(self.turbo.draft_path, self.turbo.draft)
        try:
            spec = self._spec()
        except EngineError as error:
            self._refused(str(error))
            return
        self._sending = True
        self.turbo.ask(
            t("doing.submit"), lambda client: client.submit(spec), then=self._queued, failed=self._refused
        )

    def _queued(self, job: Job) -> None:
        # The settings stay for the next one; only the prompt was used up.
        self.turbo.draft = replace(self.turbo.draft, prompt="")
        save_draft(self.turbo.draft_path, self.turbo.draft)
        if self.is_mounted:
            self.dismiss(None)
        self.turbo.dashboard.say(Notice(text=t("did.submit", id=job.id)))

    def _refused(self, error: str) -> None:
        self._sending = False
        self._asked += 1
        self._told(self._asked, None, error)

    def action_close(self) -> None:
        self.turbo.draft = self.current_draft()
        save_draft(self.turbo.draft_path, self.turbo.draft)
        self.dismiss(None)
