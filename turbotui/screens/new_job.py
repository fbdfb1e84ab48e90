"""Owns writing a job: the prompt, its settings, and what the engine says about them as they change."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, cast

from textual import on
from textual.binding import Binding
from textual.containers import Vertical
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Input, TextArea

from engine.errors import EngineError
from turbotui.draft import Draft
from turbotui.format import seconds
from turbotui.job_fields import faults, field_of, samples
from turbotui.screens.behind import DrawnBehind
from turbotui.screens.draft_form import DraftForm
from turbotui.screens.earlier import choose_earlier, remember_prompt
from turbotui.screens.image_field import pick_image
from turbotui.screens.keys import show_keys
from turbotui.screens.queueing import queue_jobs, show_queued
from turbotui.text import t
from turbotui.widgets.fields import FieldChanged, FieldSubmitted
from turbotui.widgets.forecast import ForecastPanel, Request
from turbotui.widgets.lines import LinePanel, width_of
from turbotui.widgets.prompt_area import PromptArea

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.binding import BindingType
    from textual.events import Key as KeyEvent
    from textual.events import Resize

    from engine.wire import BatchQueued, Job, JobSpec
    from turbotui.app import TurboApp
    from turbotui.draft_keeper import DraftKeeper
    from turbotui.screens.earlier import Taken

RESUMED_AFTER_S = 60.0
"""A draft that is older was not written just now, and so is told of."""

COUNTED_FROM = 0.8
"""The share of the longest prompt from which its characters are counted."""

LOW_ROWS = 44
"""A terminal of fewer has no room for all fields, an image and what they cost."""


class NewJobScreen(DrawnBehind, ModalScreen[None]):
    """Everything typed is kept until it was submitted.

    Args:
        keeper: Where what is typed is kept, and what was typed before.
    """

    CSS = """
    NewJobScreen { align: center middle; background: $background 60%; }
    NewJobScreen #window {
        width: 96; max-width: 100%; height: auto; max-height: 100%; overflow-y: auto;
        scrollbar-size-vertical: 1;
        background: $background; border: round $primary; border-title-style: bold;
        border-title-color: $primary; border-subtitle-color: $muted; padding: 0 1;
    }
    NewJobScreen ForecastPanel { height: 4; width: 100%; }
    /* What it costs stays in sight; the fields scroll above it. */
    NewJobScreen.-low #window { height: 100%; }
    NewJobScreen.-low ForecastPanel { dock: bottom; }
    """
    VERTICAL_BREAKPOINTS = [(0, "-low"), (LOW_ROWS, "-high")]  # noqa: RUF012  # as Textual declares it
    # The prompt has the focus once what was typed before is in it: see `_hand_over`.
    AUTO_FOCUS = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", show=False),
        Binding("up", "app.focus_previous", show=False),
        Binding("down", "app.focus_next", show=False),
        Binding("ctrl+g", "editor", show=False, priority=True),
        Binding("ctrl+r", "earlier", show=False, priority=True),
        Binding("ctrl+o", "many", show=False, priority=True),
        Binding("ctrl+l", "clear", show=False, priority=True),
        Binding("ctrl+t", "pick_image", show=False, priority=True),
        Binding("question_mark,？", "help", show=False),
        Binding("f1", "help", show=False, priority=True),
    ]
    key_help: ClassVar[tuple[tuple[str, str], ...]] = (
        ("↵", "screen.form_queue"),
        ("ctrl+j", "screen.form_line"),
        ("↑ ↓ tab", "screen.form_walk"),
        ("← →", "screen.form_choose"),
        ("+ - r", "screen.form_numbers"),
        ("ctrl+g", "screen.form_editor"),
        ("ctrl+r", "screen.form_earlier"),
        ("ctrl+o", "screen.form_many"),
        ("ctrl+t", "screen.form_image"),
        ("ctrl+l", "screen.form_clear"),
        ("alt+b alt+f", "screen.form_words"),
        ("alt+d ctrl+w", "screen.form_delete"),
    )

    def __init__(self, keeper: DraftKeeper) -> None:
        super().__init__()
        self._keeper = keeper
        self._sending = False
        self._columns = 80
        self._last = Draft()
        """The fields as they stood when they were looked at last."""
        self._cleared: Draft | None = None
        self._remark = ""
        """The id of what the title adds until a change of the fields makes it untrue."""
        self._below = ""
        """What the frame says at its foot."""

    @property
    def turbo(self) -> TurboApp:
        return cast("TurboApp", self.app)

    @property
    def form(self) -> DraftForm:
        return self.query_one(DraftForm)

    @property
    def prompt(self) -> PromptArea:
        return self.query_one(PromptArea)

    @property
    def forecast(self) -> ForecastPanel:
        return self.query_one(ForecastPanel)

    def compose(self) -> ComposeResult:
        with Vertical(id="window"):
            yield DraftForm(lambda: self.turbo.link.state.models)
            yield ForecastPanel(self._request, id="forecast")

    def on_mount(self) -> None:
        draft = self._keeper.current
        self._entitle(draft)
        self.form.fill(draft)
        self._last = self.current_draft()
        self._fit(*self.app.size)
        self._hand_over()
        self._check()
        self.set_interval(0.5, self._show)
        self.forecast.ask_soon()

    def _entitle(self, draft: Draft) -> None:
        title = t("new.title_again", id=draft.job_id) if draft.job_id else t("new.title")
        age = self.turbo.wall() - draft.saved_at
        if not draft.empty and draft.saved_at and age >= RESUMED_AFTER_S:
            title += "  " + t("new.resumed", age=seconds(age))
        self._say_title(title)

    def _say_title(self, title: str, remark: str = "") -> None:
        self._remark = remark
        self.query_one("#window").border_title = f"{title}  {t(remark)}" if remark else title

    def on_resize(self, event: Resize) -> None:
        self._fit(event.size.width, event.size.height)

    def _fit(self, width: int, height: int) -> None:
        """More room is the prompt's and the outlines'."""
        self._columns = 96 if width < 140 else 116
        self.query_one("#window").styles.width = self._columns
        self._columns = min(self._columns, width)
        self.form.fit(height)
        self.forecast.styles.margin = (1, 0, 0, 0) if height >= 30 else 0
        self.call_after_refresh(self._show)

    def on_key(self, event: KeyEvent) -> None:
        """Keys typed before the prompt had the focus are the prompt's; Enter waits for the eye."""
        if self.focused is None and event.key not in ("enter", "escape"):
            event.stop()
            event.prevent_default()
            self.prompt.post_message(event)

    def _hand_over(self) -> None:
        """Focus the prompt when no key is left that came before it: they stay in their order."""
        if self.message_queue_size:
            self.call_later(self._hand_over)
        else:
            self.set_focus(self.prompt)

    def current_draft(self) -> Draft:
        """The fields as they stand."""
        return self.form.draft()

    def _show(self) -> None:
        view = self.turbo.dashboard.view_now()
        engine, prompt = view.state.engine, self.prompt
        if engine is not None and engine.max_prompt_chars is not None:
            prompt.most = engine.max_prompt_chars
        count = self._count_below()
        below = count + self._keys_below(self._columns - 6 - width_of(count))
        if below != self._below:  # saying the same again would draw the whole window again: 19 kB/s
            self._below = self.query_one("#window").border_subtitle = below
        for panel in self.query(LinePanel):
            panel.show(view)

    def _count_below(self) -> str:
        """How long the prompt is, from where that begins to matter."""
        count, most = len(self.prompt.text), self.prompt.most
        return (
            "" if count < COUNTED_FROM * most else t("new.count", count=f"{count:,}", most=f"{most:,}") + "  "
        )

    def _keys_below(self, cells: int) -> str:
        """The first and the last keys stay where there is no room for all."""
        keys = t("new.keys").split("  ")
        if self.form.image_to_video:
            keys.insert(-2, t("new.key_image"))
        while width_of("  ".join(keys)) > cells and len(keys) > 4:
            del keys[1]
        return "  ".join(keys)

    def on_descendant_focus(self) -> None:
        self.form.light()
        self._show()

    def on_descendant_blur(self) -> None:
        self.form.light()
        self._show()

    # ------------------------------------------------------------------ the engine's opinion

    @on(TextArea.Changed)
    @on(Input.Changed)
    @on(FieldChanged)
    def _changed(self, event: Message) -> None:
        if isinstance(event, FieldChanged):
            # Frames and steps stay as typed; what the new model cannot do takes its default.
            self.form.follow_model(self.current_draft())
        if self._keep():
            untrue = {"new.no_image": self.form.image_to_video, "new.cleared": not self._last.empty}
            if untrue.get(self._remark):
                self._entitle(self._last)
            self._check()
            self.forecast.ask_soon()

    def _keep(self) -> bool:
        """Keep the fields, unless they are as they were filled: nobody's hand has changed them, then."""
        draft = self.current_draft()
        if draft == self._last:
            return False
        self._last = draft
        self._keeper.keep(draft)
        return True

    def _check(self) -> None:
        """Name what is wrong beside its field."""
        self.form.tell(faults(self._last, self.form.model))
        self._show()

    def _request(self) -> Request | None:
        if faults(self._last, self.form.model):
            return None
        return Request(spec=self._spec(), samples=1 if self._last.together else samples(self._last))

    def _spec(self) -> JobSpec:
        return self.current_draft().spec(image_to_video=self.form.image_to_video)

    # ------------------------------------------------------------------ sending

    @on(PromptArea.Submitted)
    @on(Input.Submitted)
    @on(FieldSubmitted)
    def _submit(self) -> None:
        if self._sending:
            return
        # A forecast that is still to be asked would wipe away what the engine says to this.
        self.forecast.ask_no_more()
        self._keep()
        draft = self._last
        wrong = faults(draft, self.form.model)
        if not draft.prompt.strip():
            wrong = {"prompt": t("new.no_prompt"), **wrong}
        if wrong:
            name, error = next(iter(wrong.items()))
            self._refused(error, name)
            return
        try:
            specs = draft.specs(image_to_video=self.form.image_to_video)
        except EngineError as problem:
            self._refused(str(problem))
            return
        self._sending = True
        queue_jobs(self.turbo, specs, then=self._queued, failed=self._refused)

    def _queued(self, answer: Job | BatchQueued) -> None:
        sent = self.current_draft() if self.is_attached else self._last
        remember_prompt(self.turbo, replace(sent, job_id=0))
        # The settings stay for the next one; only the prompt was used up.
        self._last = replace(sent, prompt="", job_id=0)
        self._keeper.keep(self._last)
        if self.is_attached:
            self.dismiss(None)
        show_queued(self.turbo, answer)

    def _refused(self, error: str, field: str | None = None) -> None:
        self._sending = False
        if self.is_attached:
            self.forecast.refuse(error)
            self.form.focus_field(field or field_of(error))

    # ------------------------------------------------------------------ keys

    def action_help(self) -> None:
        show_keys(self, self.turbo)

    def action_pick_image(self) -> None:
        if self.form.image_to_video:
            pick_image(self)
        else:
            self._say_title(t("new.title"), "new.no_image")

    def action_close(self) -> None:
        self._keep()
        self.dismiss(None)

    def action_clear(self) -> None:
        """Empty the fields; once more brings back what stood there."""
        draft = self.current_draft()
        if draft.empty and self._cleared is not None:
            self._fill(self._cleared)
            self._cleared = None
            self._entitle(self._last)
        elif not draft.empty:
            self._cleared = draft
            self._fill(Draft(model=draft.model))
            self._say_title(t("new.title"), "new.cleared")
        self.set_focus(self.prompt)

    def _fill(self, draft: Draft) -> None:
        """Put `draft` into the fields, as if it had been typed."""
        self.form.fill(draft)
        self._last = self.current_draft()
        self._keeper.keep(self._last)
        self._check()
        self.forecast.ask_soon()

    def action_editor(self) -> None:
        """Write the prompt in the person's own editor, on this terminal."""
        from turbotui.screens.outside import edit_outside

        self._keep()
        edited = edit_outside(self.turbo, self.prompt.text)
        if edited.text is not None and edited.text != self.prompt.text:
            self.prompt.take(edited.text)
        if edited.word:
            self.forecast.refuse(edited.word)
        self.set_focus(self.prompt)

    def action_earlier(self) -> None:
        """Choose among the prompts of before."""
        choose_earlier(self, self._taken)

    def _taken(self, chosen: Taken) -> None:
        self.prompt.take(chosen.draft.prompt)
        if chosen.settings:
            own = self.current_draft()
            self._fill(replace(chosen.draft, job_id=own.job_id, saved_at=0.0))
        self.set_focus(self.prompt)

    def action_many(self) -> None:
        """Queue many jobs from a file, with these settings."""
        from turbotui.screens.many import ManyScreen

        self._keep()
        draft = self._last
        if wrong := faults(draft, self.form.model):
            name, error = next(iter(wrong.items()))
            self._refused(error, name)
            return
        try:
            base = self._spec()
        except EngineError as problem:
            self._refused(str(problem))
            return
        self.turbo.push_screen(
            ManyScreen(base, samples=1 if draft.together else samples(draft)), self._many_done
        )

    def _many_done(self, queued: bool | None) -> None:
        if queued:
            self.dismiss(None)

    @on(PromptArea.CutShort)
    def _cut_short(self, event: PromptArea.CutShort) -> None:
        self._say_title(f"{t('new.title')}  {t('new.cut_short', given=event.given, kept=event.kept)}")
