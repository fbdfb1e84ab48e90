"""Owns earlier prompts on the screen: a list that typing narrows, newest first; what is queued goes in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from turbotui.draft import Draft
from turbotui.format import seconds
from turbotui.prompt_history import Earlier, PromptHistory, newest, of_jobs
from turbotui.screens.choices import Choice, ChoicePanel, ChoiceScreen
from turbotui.text import t
from turbotui.widgets.lines import Row, View, wrapped
from turbotui.widgets.panels import Key

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.events import Key as KeyEvent
    from textual.events import Paste
    from textual.screen import Screen

    from turbotui.app import TurboApp

FOOT_ROWS = 4
AGE_CELLS = 8
MODEL_CELLS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Taken:
    """What the person chose."""

    draft: Draft
    settings: bool
    """Its settings too, not only its prompt."""


class EarlierPanel(ChoicePanel):
    """One prompt a row, when and with which model; the chosen one in full below."""

    def __init__(self, entries: list[Earlier], wall: float) -> None:
        self._entries = entries
        choices = [
            Choice(
                key=place,
                outcome=entry.draft,
                name=entry.draft.prompt,
                about=entry.draft.model,
                note=seconds(max(0.0, wall - entry.at)),
            )
            for place, entry in enumerate(entries)
        ]
        super().__init__(
            title=t("earlier.title"),
            heads=(),
            choices=lambda _view: choices,
            foot=self._whole,
            foot_rows=FOOT_ROWS,
            preferred=0,
        )

    def inputs(self, view: View) -> tuple[object, ...]:
        # The list stands while it is open; to compare hundreds of prompts twice a second tells nothing.
        return (self.wanted, self.chosen)

    def below(self, view: View) -> str:
        return t("earlier.keys")

    def nothing(self, view: View, width: int) -> list[Row]:
        if not self._entries:
            return [Row(width).add(t("earlier.none"), view.paint.muted)]
        return super().nothing(view, width)

    def row(self, view: View, key: Key, width: int) -> Row:
        paint = view.paint
        choice = self.choice(key)
        assert choice is not None
        chosen = key == self.chosen
        wide = width >= 80
        row = Row(width).add("> " if chosen else "  ", paint.key)
        row.field(choice.note, AGE_CELLS, paint.muted, right=True).add("  ", paint.text)
        tail = MODEL_CELLS + 2 if wide else 0
        row.field(choice.name, row.left - tail, paint.bold if chosen else paint.text)
        if wide:
            row.add("  ", paint.text).field(choice.about, MODEL_CELLS, paint.muted)
        return row

    def _whole(self, view: View, key: Key | None, width: int) -> list[Row]:
        choice = self.choice(key)
        if choice is None or not isinstance(choice.outcome, Draft):
            return []
        paint, draft = view.paint, choice.outcome
        lines = wrapped(choice.name[: width * FOOT_ROWS], width)[: FOOT_ROWS - 1]
        rows = [Row(width).add(line, paint.text) for line in lines]
        facts = [draft.model, draft.resolution]
        if draft.frames:
            facts.append(t("earlier.frames", frames=draft.frames))
        if draft.steps:
            facts.append(t("earlier.steps", steps=draft.steps))
        if draft.seed:
            facts.append(t("earlier.seed", seed=draft.seed))
        return [*rows, Row(width).add("  ".join(fact for fact in facts if fact), paint.muted)]


class EarlierScreen(ChoiceScreen):
    """Dismissed with a `Taken`, or None."""

    panel: EarlierPanel

    def __init__(self, entries: list[Earlier], wall: float) -> None:
        super().__init__(EarlierPanel(entries, wall))

    def wanted_size(self, width: int, height: int) -> tuple[int, int]:
        _columns, rows = super().wanted_size(width, height)
        return min(110, width - 2), max(rows, min(20, height - 2))

    def on_key(self, event: KeyEvent) -> None:
        panel = self.panel
        choice = panel.choice(panel.chosen)
        if event.key in ("enter", "tab"):
            event.stop()
            event.prevent_default()
            if self.painted and choice is not None and isinstance(choice.outcome, Draft):
                self.dismiss(Taken(draft=choice.outcome, settings=event.key == "tab"))
        elif event.key in ("ctrl+r", "ctrl+w", "pagedown", "pageup"):
            event.stop()
            event.prevent_default()
            if event.key == "ctrl+r":
                panel.move(1)
            elif event.key == "ctrl+w":
                panel.wanted = panel.wanted.rstrip().rpartition(" ")[0]
            else:
                panel.page(1 if event.key == "pagedown" else -1)
            panel.redraw()
        else:
            super().on_key(event)

    def on_paste(self, event: Paste) -> None:
        event.stop()
        self.panel.wanted += " ".join(event.text.split())[:200]
        self.panel.redraw()


def prompts_of(app: TurboApp) -> PromptHistory:
    """Those of this person's console, beside the unsent job."""
    path = app.draft_path
    return PromptHistory(None if path is None else path.with_name("prompts.json"))


def remember_prompt(app: TurboApp, draft: Draft) -> None:
    """Keep what was queued just now; in a thread, for the disk's sake."""
    # Made here: by the time the thread runs, the screen may be gone, and its app with it.
    history, at = prompts_of(app), app.wall()
    app.run_apart(t("earlier.title"), lambda: history.add(draft, at), quiet=True)


def choose_earlier(screen: Screen[Any], then: Callable[[Taken], None]) -> None:
    """Let the person choose above `screen`, if that is still the one in front once the disk has answered."""
    app = cast("TurboApp", screen.app)
    state = app.link.state
    folder = state.engine.output_dir if state.engine is not None else None
    known, history = of_jobs(state.jobs, state.models, folder), prompts_of(app)

    def found(entries: list[Earlier]) -> None:
        if screen.is_current:
            app.push_screen(EarlierScreen(entries, app.wall()), taken)

    def taken(chosen: object) -> None:
        if isinstance(chosen, Taken):
            then(chosen)

    app.run_apart(t("earlier.title"), lambda: newest([*history.load(), *known]), then=found, quiet=True)
