"""Owns the dialogs of the screen of leaks: before a remedy, tracing that costs much, or an export."""

from __future__ import annotations

from typing import TYPE_CHECKING

from turbotui.screens.confirm import ConfirmPanel, ConfirmScreen
from turbotui.text import t
from turbotui.text.spoken import spoken
from turbotui.widgets.leak_rows import cost_when_on, remedy_facts

if TYPE_CHECKING:
    from engine.wire import Remedy, Tracing, Verdict


def remedy_dialog(verdict: Verdict, remedy: Remedy) -> ConfirmScreen:
    """Before a remedy: what it acts on, and what it should give back."""
    panel = ConfirmPanel(
        title=t(f"leaks.action_{remedy.action}"),
        facts=remedy_facts(remedy),
        loss=f"{spoken(verdict.title)}\n{spoken(remedy.text)} {t('leaks.compared')}",
        answers=((t(f"leaks.action_{remedy.action}"), True),),
    )
    return ConfirmScreen(panel)


def trace_dialog(tracing: Tracing) -> ConfirmScreen:
    """Before tracing where it costs much: what it costs, as it was measured or as it may be."""
    panel = ConfirmPanel(
        title=t("leaks.trace_title"),
        facts=((t("leaks.fact_cost"), cost_when_on(tracing)),),
        loss=t("leaks.trace_about"),
        answers=((t("leaks.trace_answer"), True),),
    )
    return ConfirmScreen(panel)


def export_dialog(stem: str) -> ConfirmScreen:
    """Which of two forms a snapshot is written in, and where to."""
    panel = ConfirmPanel(
        title=t("leaks.export_title"),
        facts=((t("leaks.export_to"), f"{stem}.*"),),
        loss=t("leaks.export_about"),
        answers=(("JSON", "json"), ("memory_viz", "pickle")),
    )
    return ConfirmScreen(panel)
