"""Owns choosing one of several: models to switch to, things to unload; typing narrows the list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from turbotui.format import clip_middle, seconds, short_bytes
from turbotui.history import parts_of
from turbotui.screens.window import WindowScreen
from turbotui.text import t
from turbotui.widgets.lines import Row, View
from turbotui.widgets.models import back_in_s, previous_model, resident_bytes, short_dtype
from turbotui.widgets.panels import Key, ListPanel

if TYPE_CHECKING:
    from textual.events import Key as KeyEvent

    from engine.wire import DeviceStatus, ModelStatus


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """A row to choose."""

    key: Key
    outcome: object
    name: str
    about: str = ""
    figures: tuple[str, ...] = ()
    note: str = ""
    warning: bool = False
    strong: bool = field(default=False)


class ChoicePanel(ListPanel):
    """The list with its filter; letters narrow it, arrows walk it."""

    def __init__(
        self,
        *,
        title: str,
        heads: tuple[str, ...],
        choices: Callable[[View], list[Choice]],
        foot: Callable[[View, Key | None], str],
        preferred: Key | None,
    ) -> None:
        super().__init__(id="choices")
        self._title = title
        self._heads = heads
        self._choices = choices
        self._foot = foot
        self.chosen, self.walked = preferred, True
        self.wanted = ""
        self._current: list[Choice] = []

    def inputs(self, view: View) -> tuple[object, ...]:
        return (tuple(self._choices(view)), self.wanted)

    def offered(self, view: View) -> list[Choice]:
        """Everything there is to choose, whatever was typed."""
        return self._choices(view)

    def title(self, view: View) -> str:
        return self._title

    def remark(self, view: View, width: int) -> Row | None:
        row = Row(width)
        if self.wanted:
            return row.add(self.wanted, view.paint.wait).add("▏", view.paint.key)
        return row.add(t("choices.type"), view.paint.muted)

    def below(self, view: View) -> str:
        return t("choices.keys")

    def heading(self, view: View, width: int) -> list[Row]:
        row = Row(width).to(max(0, width - 10 * len(self._heads)), view.paint.muted)
        for head in self._heads:
            row.field(head, 10, view.paint.muted, right=True)
        return [row] if self._heads else []

    def keys(self, view: View) -> list[Key]:
        wanted = self.wanted.casefold()
        self._current = [choice for choice in self._choices(view) if wanted in choice.name.casefold()]
        return [choice.key for choice in self._current]

    def nothing(self, view: View, width: int) -> list[Row]:
        return [Row(width).add(t("choices.none", text=self.wanted), view.paint.muted)]

    def choice(self, key: Key | None) -> Choice | None:
        return next((choice for choice in self._current if choice.key == key), None)

    def row(self, view: View, key: Key, width: int) -> Row:
        paint = view.paint
        choice = self.choice(key)
        assert choice is not None
        row = Row(width).add("> " if key == self.chosen else "  ", paint.key)
        figures = 10 * len(choice.figures)
        name_cells = max(10, min(30, width - 2 - figures - 24))
        name_style = paint.bold if choice.strong else paint.text
        row.field(clip_middle(choice.name, name_cells), name_cells, name_style).add("  ", paint.text)
        row.add(choice.about, paint.muted)
        if choice.note:
            row.add("  ", paint.text)
            row.field(choice.note, max(0, row.left - figures), paint.wait if choice.warning else paint.muted)
        row.to(width - figures, paint.text)
        for figure in choice.figures:
            row.field(figure, 10, paint.text, right=True)
        return row

    def body(self, view: View, width: int, height: int) -> list[Row]:
        rows = super().body(view, width, height - 2)
        foot = self._foot(view, self.chosen)
        while len(rows) < height - 1:
            rows.append(Row(width))
        return [*rows, Row(width).add(foot, view.paint.muted)]


class ChoiceScreen(WindowScreen[object]):
    """Dismissed with the chosen outcome, or None."""

    panel: ChoicePanel

    def wanted_size(self, width: int, height: int) -> tuple[int, int]:
        # Frame, heading, a blank row and the sentence below stand around the choices.
        rows = len(self.panel.offered(self.view())) + 5
        return min(96, width - 4), min(max(9, rows), height - 4)

    def on_key(self, event: KeyEvent) -> None:
        panel = self.panel
        if event.key == "escape":
            return
        event.stop()
        event.prevent_default()
        if event.key == "enter":
            # Letters typed ahead narrow the list; choosing from it takes having seen it.
            if self.painted and (choice := panel.choice(panel.chosen)) is not None:
                self.dismiss(choice.outcome)
            return
        if event.key in ("down", "ctrl+n", "tab"):
            panel.move(1)
        elif event.key in ("up", "ctrl+p", "shift+tab"):
            panel.move(-1)
        elif event.key in ("backspace", "ctrl+h"):
            panel.wanted = panel.wanted[:-1]
        elif event.key == "ctrl+u":
            panel.wanted = ""
        elif event.is_printable and event.character:
            panel.wanted += event.character
        panel.redraw()


def device_room(device: DeviceStatus | None) -> int | None:
    """Bytes that could be ours on the device: its total less what others, driver and context hold."""
    if device is None or device.balance is None:
        return None
    parts = parts_of(device.balance)
    return device.total_bytes - sum(
        parts.get(name) or 0 for name in ("others", "driver", "unseen", "context")
    )


def switch_choices(view: View) -> list[Choice]:
    """Every usable model, last used first; the active one last, since nobody switches to it."""
    models = view.state.models
    room = device_room(view.state.device)
    previous = previous_model(models)

    def rank(model: ModelStatus) -> tuple[bool, bool, float]:
        return (bool(model.problem), model.active, -(model.last_used_at or 0.0))

    found = []
    for model in sorted(models, key=rank):
        absent = model.bytes - resident_bytes(model)
        too_big = room is not None and model.bytes > room
        note = t("switch.active") if model.active else "'" if model is previous else ""
        if model.problem:
            note = model.problem
        elif too_big:
            note = t("switch.too_big", needs=short_bytes(model.bytes), room=short_bytes(room))
        back = back_in_s(model)
        found.append(
            Choice(
                key=model.name,
                outcome=model.name,
                name=model.name,
                about=f"{model.kind} {short_dtype(model.dtype)}",
                figures=(short_bytes(model.bytes), seconds(back) if absent else ""),
                note=note,
                warning=bool(model.problem) or too_big,
                strong=model.active,
            )
        )
    return found


def switch_foot(view: View, key: Key | None) -> str:
    """What Enter would do: out, in, time, and whether it fits."""
    models = view.state.models
    target = next((model for model in models if model.name == key), None)
    if target is None:
        return ""
    if target.problem:
        return target.problem
    out = sum(resident_bytes(model) for model in models if model is not target)
    into = target.bytes - resident_bytes(target)
    if not into:
        return t("switch.loaded", name=target.name)
    room = device_room(view.state.device)
    pieces = [t("switch.out_in", out=short_bytes(out), into=short_bytes(into))]
    if (back := back_in_s(target)) is not None:
        pieces.append(t("switch.takes", took=seconds(back)))
    if room is not None:
        fits = target.bytes <= room
        pieces.append(t("switch.fits" if fits else "switch.not", room=short_bytes(room)))
    if view.state.running is not None:
        pieces.append(t("switch.after", id=view.state.running.id))
    return " · ".join(pieces)


def switch_dialog(view: View, preferred: str | None = None) -> ChoiceScreen:
    """Which model to load. Enter at once means the one used before."""
    panel = ChoicePanel(
        title=t("switch.title"),
        heads=("GiB", t("models.back_in")),
        choices=switch_choices,
        foot=switch_foot,
        preferred=preferred,
    )
    return ChoiceScreen(panel)


def unload_choices(view: View) -> list[Choice]:
    """Everything that is resident: all of it, each model, each component."""
    found: list[Choice] = []
    total = 0
    for model in view.state.models:
        size = resident_bytes(model)
        if not size:
            continue
        total += size
        found.append(
            Choice(
                key=(model.name, None),
                outcome=(model.name, None),
                name=model.name,
                about=model.kind,
                figures=(short_bytes(size),),
                strong=True,
            )
        )
        found += [
            Choice(
                key=(model.name, part.name),
                outcome=(model.name, part.name),
                name=f"  {model.name}/{part.name}",
                figures=(short_bytes(part.bytes),),
                note=t("unload.leased") if part.leased else "",
                warning=part.leased,
            )
            for part in model.components
            if part.state == "resident"
        ]
    everything = Choice(
        key=(None, None),
        outcome=(None, None),
        name=t("unload.everything"),
        figures=(short_bytes(total),),
        strong=True,
    )
    return [everything, *found]


def unload_dialog(view: View) -> ChoiceScreen:
    """What to give back."""
    panel = ChoicePanel(
        title=t("unload.title"),
        heads=("GiB",),
        choices=unload_choices,
        foot=lambda _view, _key: t("unload.foot"),
        preferred=None,
    )
    return ChoiceScreen(panel)
