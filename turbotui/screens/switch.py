"""Owns choosing the model to load, with the engine's own plan of what would go, stay and come.

The plan of the row under the cursor is asked for in a thread once the cursor rests; until it is
there, and where no engine answers, stands an estimate from what the console knows itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from engine.wire import SwitchRequest
from turbotui.format import seconds, short_bytes
from turbotui.history import parts_of
from turbotui.screens.choices import Choice, ChoicePanel, ChoiceScreen
from turbotui.text import t
from turbotui.text.spoken import spoken
from turbotui.widgets.lines import Row, View, wrapped
from turbotui.widgets.models import back_in_s, previous_model, resident_bytes, short_dtype
from turbotui.widgets.panels import Key

if TYPE_CHECKING:
    from textual.timer import Timer

    from engine.wire import DeviceStatus, Explanation, ModelStatus, PlanAction, PlanStep

PLAN_AFTER_S = 0.15
"""How long the cursor rests before the engine is asked."""
FOOT_ROWS = 4
LABEL_CELLS = 8
MOVES: tuple[tuple[str, tuple[PlanAction, ...]], ...] = (
    ("out", ("evict",)),
    ("stays", ("adopt",)),
    ("in", ("load", "ahead", "swap")),
)


class Plans:
    """What the engine said about each model, for as long as what it is about stays as it was."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[tuple[ModelStatus, ...], Explanation | str]] = {}

    def put(self, name: str, models: tuple[ModelStatus, ...], told: Explanation | str) -> None:
        self._told[name] = (models, told)

    def get(self, name: Key | None, models: tuple[ModelStatus, ...]) -> Explanation | str | None:
        """The plan or the refusal, or None while there is none for these models."""
        about, told = self._told.get(str(name), ((), None))
        return told if about == models else None


class SwitchScreen(ChoiceScreen):
    """Asks for the plan of the chosen row."""

    def __init__(self, panel: ChoicePanel, plans: Plans) -> None:
        super().__init__(panel)
        self._plans = plans
        self._timer: Timer | None = None
        self._wanted: tuple[Key, tuple[ModelStatus, ...]] | None = None
        """What the last question was about."""

    def refresh_panel(self) -> None:
        super().refresh_panel()
        self.moved()

    def moved(self) -> None:
        models = self.turbo.link.state.models
        chosen = next((model for model in models if model.name == self.panel.chosen), None)
        if chosen is None or chosen.problem or self._wanted == (chosen.name, models):
            return
        self._wanted = (chosen.name, models)
        if self._timer is not None:
            self._timer.stop()
        if self._plans.get(chosen.name, models) is not None:
            return
        name = chosen.name
        self._timer = self.set_timer(PLAN_AFTER_S, lambda: self._ask(name, models))

    def _ask(self, name: str, models: tuple[ModelStatus, ...]) -> None:
        def told(plan: Explanation | str) -> None:
            self._plans.put(name, models, plan)
            self.show_late()

        self.turbo.ask(
            "explain",
            lambda client: client.explain_switch(SwitchRequest(model=name)),
            then=told,
            failed=told,
            quiet=True,
        )


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
    room = device_room(view.state.own_device)
    previous = previous_model(models)

    def rank(model: ModelStatus) -> tuple[bool, bool, float]:
        return (not model.takes_jobs, model.active, -(model.last_used_at or 0.0))

    found = []
    for model in sorted(models, key=rank):
        absent = model.bytes - resident_bytes(model)
        too_big = room is not None and model.bytes > room
        note = t("switch.active") if model.active else "'" if model is previous else ""
        if model.problem:
            note = spoken(model.problem)
        elif model.no_jobs:
            note = t("models.no_jobs")
        elif too_big:
            note = t("switch.too_big", needs=short_bytes(model.bytes), room=short_bytes(room))
        back = back_in_s(model)
        found.append(
            Choice(
                key=model.name,
                outcome=model.name,
                name=model.name,
                about=f"{model.kind} {short_dtype(model.dtype)}",
                found_by=f"{model.kind} {short_dtype(model.dtype)}",
                figures=(short_bytes(model.bytes), seconds(back) if absent else ""),
                note=note,
                warning=bool(model.problem) or too_big,
                strong=model.active,
            )
        )
    return found


def switch_foot(view: View, key: Key | None, width: int, plans: Plans) -> list[Row]:
    """What Enter would do: what goes, stays and comes, and whether it fits."""
    models, paint = view.state.models, view.paint
    target = next((model for model in models if model.name == key), None)
    if target is None:
        return []
    if target.problem:
        return [Row(width).add(line, paint.wait) for line in wrapped(spoken(target.problem), width)]
    plan = plans.get(key, models)
    if plan is None:
        return [Row(width).add(_estimate(view, target), paint.muted)]
    if isinstance(plan, str):
        return [Row(width).add(line, paint.wait) for line in wrapped(plan, width)]
    row = Row(width)
    if plan.fits:
        row.add(t("switch.plan_fits"), paint.text)
    else:
        row.add(t("switch.plan_not"), paint.wait)
    row.add("  " + t("switch.peak") + " ", paint.muted).add(short_bytes(plan.peak_bytes), paint.text)
    row.add(" " + t("switch.budget", budget=short_bytes(plan.budget_bytes)), paint.muted)
    if plan.fits and any(step.action == "load" for step in plan.steps):
        if (back := back_in_s(target)) is not None:
            row.add("  " + t("switch.takes", took=seconds(back)), paint.text)
    if view.state.running is not None:
        row.add("  " + t("switch.after", id=view.state.running.id), paint.muted)
    if not plan.fits:
        reason = wrapped(spoken(plan.reason or plan.tenants), width)
        return [row, *(Row(width).add(line, paint.wait) for line in reason)]
    rows = [_moves_row(view, width, name, _of(plan.steps, actions)) for name, actions in MOVES]
    shown = [found for found in rows if found is not None]
    return [row, *(shown or [Row(width).add(t("switch.nothing"), paint.muted)])]


def _of(steps: Iterable[PlanStep], actions: tuple[PlanAction, ...]) -> list[PlanStep]:
    return [step for step in steps if step.action in actions]


def _moves_row(view: View, width: int, name: str, steps: list[PlanStep]) -> Row | None:
    """One kind of move: its bytes together, then by model and component."""
    if not steps:
        return None
    paint = view.paint
    row = Row(width).field(t(f"switch.{name}"), LABEL_CELLS, paint.muted)
    row.field(short_bytes(sum(step.bytes for step in steps)), 6, paint.text, right=True).add("  ", paint.text)
    if name == "stays":
        row.add(t("switch.same") + "  ", paint.muted)
    model = ""
    for step in steps:
        if step.model != model:
            row.add(("  " if model else "") + f"{step.model}: ", paint.muted)
        else:
            row.add(", ", paint.muted)
        model = step.model
        row.add(f"{step.component} {short_bytes(step.bytes)}", paint.text)
    return row


def _estimate(view: View, target: ModelStatus) -> str:
    """What can be said without the engine."""
    out = sum(resident_bytes(model) for model in view.state.models if model is not target)
    into = target.bytes - resident_bytes(target)
    if not into and not out:
        return t("switch.loaded", name=target.name)
    room = device_room(view.state.own_device)
    pieces = [t("switch.out_in", out=short_bytes(out), into=short_bytes(into))]
    if (back := back_in_s(target)) is not None:
        pieces.append(t("switch.takes", took=seconds(back)))
    if room is not None:
        fits = target.bytes <= room
        pieces.append(t("switch.fits" if fits else "switch.not", room=short_bytes(room)))
    if view.state.running is not None:
        pieces.append(t("switch.after", id=view.state.running.id))
    return " · ".join(pieces)


def switch_dialog(view: View, preferred: str | None = None) -> SwitchScreen:
    """Which model to load. Enter at once means the one used before."""
    plans = Plans()
    panel = ChoicePanel(
        title=t("switch.title"),
        heads=("GiB", t("models.back_in")),
        choices=switch_choices,
        foot=lambda view, key, width: switch_foot(view, key, width, plans),
        foot_rows=FOOT_ROWS,
        preferred=preferred,
    )
    return SwitchScreen(panel, plans)
