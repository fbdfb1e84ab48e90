"""Owns choosing whose weight files stay warm in host memory: each row keeps them or lets go of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from turbotui.format import short_bytes
from turbotui.screens.choices import Choice, ChoicePanel, ChoiceScreen
from turbotui.text import t
from turbotui.text.spoken import spoken
from turbotui.widgets.lines import Row, View
from turbotui.widgets.models import is_warm, warm_share
from turbotui.widgets.panels import Key

if TYPE_CHECKING:
    from engine.wire import ComponentStatus, ModelStatus


@dataclass(frozen=True, kw_only=True, slots=True)
class WarmChange:
    """What to ask of the engine; no model means all of them, which can only be let go."""

    model: str | None
    component: str | None
    drop: bool


def warm_change(model: ModelStatus, component: str | None) -> WarmChange:
    """The other of what is so: what is wholly warm is let go, anything else is warmed."""
    parts = _parts(model, component)
    return WarmChange(model=model.name, component=component, drop=bool(parts) and all(map(is_warm, parts)))


def _parts(model: ModelStatus, component: str | None) -> list[ComponentStatus]:
    return [part for part in model.components if component in (None, part.name)]


def warm_choices(view: View) -> list[Choice]:
    """Each usable model with its components, then all of them together."""
    found: list[Choice] = []
    for model in view.state.models:
        if model.problem:
            continue
        for name in (None, *(part.name for part in model.components)):
            parts = _parts(model, name)
            change = warm_change(model, name)
            share = warm_share(parts)
            found.append(
                Choice(
                    key=(model.name, name),
                    outcome=change,
                    name=model.name if name is None else f"  {model.name}/{name}",
                    about="" if share is None else t("models.warm", share=share) if share else "",
                    figures=(short_bytes(sum(part.bytes for part in parts)),),
                    strong=name is None,
                )
            )
    everything = Choice(
        key=(None, None),
        outcome=WarmChange(model=None, component=None, drop=True),
        name=t("warm.everything"),
        strong=True,
    )
    return [*found, everything]


def _foot(view: View, key: Key | None, width: int) -> list[Row]:
    choice = next((choice for choice in warm_choices(view) if choice.key == key), None)
    if choice is None or not isinstance(choice.outcome, WarmChange):
        return []
    text = t("warm.drops" if choice.outcome.drop else "warm.keeps")
    rows = [Row(width).add(text, view.paint.muted)]
    refusal = next((worker.warm_refusal for worker in view.state.workers if worker.warm_refusal), None)
    if refusal:
        rows.append(Row(width).add(t("warm.refused", reason=spoken(refusal)), view.paint.wait))
    return rows


def warm_dialog(view: View) -> ChoiceScreen:
    """Whose files to keep or to let go."""
    panel = ChoicePanel(
        title=t("warm.title"),
        heads=("GiB",),
        choices=warm_choices,
        foot=_foot,
        foot_rows=2,
        preferred=None,
    )
    return ChoiceScreen(panel)
