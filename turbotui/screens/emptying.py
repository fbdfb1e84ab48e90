"""Owns the question before all that waits is cancelled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from turbotui.screens.confirm import ConfirmPanel, ConfirmScreen
from turbotui.text import t

if TYPE_CHECKING:
    from turbotui.widgets.lines import View

ROWS = 4
"""So many jobs are named one by one."""


def emptying_dialog(view: View, where: str | None) -> ConfirmScreen:
    """Which jobs would go; what runs is none of them."""
    state = view.state
    waiting, running = state.waiting, state.running
    facts = [(t("restart.where"), where or (state.hello.host if state.hello else ""))]
    shown = waiting if len(waiting) <= ROWS else waiting[: ROWS - 1]
    facts += [(t("log.job", id=job.id), f"{job.spec.model}  {job.spec.prompt}") for job in shown]
    if len(shown) < len(waiting):
        facts.append(("", t("list.more", count=len(waiting) - len(shown))))
    loss = t("emptying.loses", count=len(waiting))
    if running is not None:
        loss += t("emptying.runs", id=running.id)
    return ConfirmScreen(
        ConfirmPanel(
            title=t("emptying.title"), facts=tuple(facts), loss=loss, answers=((t("emptying.yes"), True),)
        )
    )
