"""Owns the dialog before a GPU is reset: what stands against it, what is lost, and the index to be typed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from turbotui.format import bytes_text
from turbotui.screens.long_confirm import LongConfirmPanel, LongConfirmScreen, fact
from turbotui.text import t
from turbotui.text.spoken import spoken, word
from turbotui.widgets.lines import Row, View

if TYPE_CHECKING:
    from textual.events import Key as KeyEvent

    from engine.wire import ResetPlan

SIGNS = {"ok": "✓", "blocks": "✗", "unknown": "?"}
MOST_DIGITS = 4


def blocked_text(plan: ResetPlan) -> str:
    """What stands against it, by name; empty where nothing does."""
    return ", ".join(word(condition.name) for condition in plan.blocked_by)


class ResetPanel(LongConfirmPanel):
    """The engine's plan. Where something blocks, there is only the way back."""

    def __init__(self, plan: ResetPlan, where: str) -> None:
        blocked = blocked_text(plan)
        loss = t("reset.blocked", names=blocked) if blocked else t("reset.loses", index=plan.index)
        super().__init__(
            title=t("reset.title", index=plan.index),
            loss=loss,
            answers=() if blocked else ((t("reset.yes", index=plan.index), True),),
        )
        self.plan = plan
        self._where = where
        self.typed = ""

    def inputs(self, view: View) -> tuple[object, ...]:
        return (*super().inputs(view), self.typed)

    def parts(self, view: View, width: int) -> list[Row]:
        paint, plan = view.paint, self.plan
        bus = f"  {plan.bus_id}" if plan.bus_id else ""
        rows = fact(width, t("restart.where"), self._where, paint.muted, paint.text)
        name = f"GPU {plan.index}  {plan.name}{bus}  {plan.device_id}"
        rows += fact(width, t("cleanup.device"), name, paint.muted, paint.bold)
        rows += fact(width, t("reset.used"), bytes_text(plan.used_bytes), paint.muted, paint.text)
        advice = word(plan.recovery_action or "") or t("reset.no_advice")
        rows += fact(width, t("reset.advice"), advice, paint.muted, paint.text)
        styles = {"ok": paint.text, "blocks": paint.error, "unknown": paint.wait}
        for condition in plan.conditions:
            style = styles.get(condition.state, paint.wait)
            sign = SIGNS.get(condition.state, "?")
            rows += fact(width, f"{sign} {word(condition.name)}", spoken(condition.text), style, style)
        for place, text in enumerate(plan.ends):
            rows += fact(width, t("reset.ends") if place == 0 else "", spoken(text), paint.muted, paint.text)
        for place, command in enumerate(plan.commands):
            runs = t("reset.runs") if place == 0 else ""
            rows += fact(width, runs, " ".join(command), paint.muted, paint.muted)
        return rows

    def asked(self, view: View, width: int) -> list[Row]:
        if self.plan.blocked_by:
            return []
        paint = view.paint
        row = Row(width).add(t("reset.type", index=self.plan.index) + " ", paint.text)
        return [row.add(self.typed, paint.bold).add("▏", paint.key)]

    def keys_text(self) -> str:
        return t("reader.keys") if self.plan.blocked_by else super().keys_text()

    @property
    def meant(self) -> bool:
        """Whether the index that was typed is this GPU's."""
        return self.typed == str(self.plan.index)


class ResetScreen(LongConfirmScreen):
    """Dismissed with True only after the index was typed and the answer gone to and chosen."""

    panel: ResetPanel

    def on_key(self, event: KeyEvent) -> None:
        panel, digit = self.panel, event.character or ""
        if self.painted and len(digit) == 1 and digit in "0123456789":
            event.stop()
            event.prevent_default()
            panel.typed = (panel.typed + digit)[:MOST_DIGITS]
            panel.say("")
        elif self.painted and event.key in ("backspace", "ctrl+h"):
            event.stop()
            panel.typed = panel.typed[:-1]
            panel.say("")
        elif event.key == "enter" and self.painted and panel.answer is True and not panel.meant:
            event.stop()
            event.prevent_default()
            panel.say(t("reset.not_meant", index=panel.plan.index))
        else:
            super().on_key(event)
