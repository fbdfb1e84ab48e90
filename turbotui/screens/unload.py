"""Owns choosing what to unload: everything, a model, or a component."""

from __future__ import annotations

from turbotui.format import short_bytes
from turbotui.screens.choices import Choice, ChoicePanel, ChoiceScreen
from turbotui.text import t
from turbotui.widgets.lines import Row, View
from turbotui.widgets.models import resident_bytes


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
        foot=lambda view, _key, width: [Row(width).add(t("unload.foot"), view.paint.muted)],
        preferred=None,
    )
    return ChoiceScreen(panel)
