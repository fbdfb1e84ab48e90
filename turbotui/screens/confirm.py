"""Owns the dialog before a dangerous action: frozen on its target, with Cancel focused.

Each dialog is dismissed with the answer that was gone to and chosen; what is false cancels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from turbotui.format import cell_width
from turbotui.screens.window import WindowScreen
from turbotui.text import t
from turbotui.text.spoken import word
from turbotui.widgets.lines import Row, View, wrapped
from turbotui.widgets.log import began
from turbotui.widgets.panels import Panel

if TYPE_CHECKING:
    from textual.events import Key as KeyEvent

NAME_CELLS = 14


class ConfirmPanel(Panel):
    """The facts, and the answers side by side; the first one cancels.

    Args:
        answers: Label and outcome of each way to agree.
    """

    def __init__(
        self,
        *,
        title: str,
        facts: tuple[tuple[str, str], ...],
        loss: str,
        answers: tuple[tuple[str, object], ...],
    ) -> None:
        super().__init__(id="confirm")
        self._title = title
        self.facts = facts
        self.loss = loss
        self.answers = ((t("confirm.cancel"), False), *answers)
        self.place = 0

    @property
    def answer(self) -> object:
        """The outcome of the answer that the cursor is on."""
        return self.answers[self.place][1]

    def step(self, by: int) -> None:
        self.place = (self.place + by) % len(self.answers)
        self.redraw()

    def inputs(self, view: View) -> tuple[object, ...]:
        return (self.place,)

    def below(self, view: View) -> str:
        return t("confirm.keys")

    def title(self, view: View) -> str:
        return self._title

    def body(self, view: View, width: int, height: int) -> list[Row]:
        paint = view.paint
        rows = [Row(width)]
        names = max((NAME_CELLS, *(cell_width(name) + 2 for name, _value in self.facts)))
        for name, value in self.facts:
            rows.append(Row(width).field(name, names, paint.muted).add(value, paint.text))
        rows.append(Row(width))
        rows += [Row(width).add(line, paint.wait) for line in wrapped(self.loss, width)]
        while len(rows) < height - 1:
            rows.append(Row(width))
        buttons = Row(width)
        for place, (label, _outcome) in enumerate(self.answers):
            style = paint.chosen_tab if place == self.place else paint.text
            buttons.add(f"  {label}  ", style).add("  ", paint.text)
        rows.append(buttons)
        return rows


class ConfirmScreen(WindowScreen[object]):
    """Dismissed with an agreeing outcome only after its button was gone to and chosen."""

    panel: ConfirmPanel
    key_help: ClassVar[tuple[tuple[str, str], ...]] = (
        ("← → tab", "screen.answer"),
        ("↵", "screen.agree"),
        ("q n esc", "screen.cancel"),
    )

    def wanted_size(self, width: int, height: int) -> tuple[int, int]:
        columns = min(76, width - 4)
        lines = len(self.panel.facts) + len(wrapped(self.panel.loss, columns - 4)) + 6
        return columns, min(lines, height - 2)

    def on_key(self, event: KeyEvent) -> None:
        if event.key == "escape":
            return
        event.stop()
        event.prevent_default()
        if event.character in ("?", "？"):
            self.action_help()
            return
        if not self.painted:
            return
        if event.key in ("right", "tab", "l"):
            self.panel.step(1)
        elif event.key in ("left", "shift+tab", "h"):
            self.panel.step(-1)
        elif event.key == "enter":
            self.dismiss(self.panel.answer)
        elif event.key in ("q", "n"):
            self.dismiss(False)


def restart_dialog(view: View, where: str | None) -> ConfirmScreen:
    """Before the engine is ended and started again."""
    state = view.state
    facts = [(t("restart.where"), where or (state.hello.host if state.hello else ""))]
    lost = view.look == "lost"
    if lost:
        known = state.engine or state.hello
        was = t("why.no_engine") if known is None else t("restart.was", pid=known.pid)
        facts.append((t("restart.engine"), was))
    elif state.engine is not None:
        engine = state.engine
        facts.append((t("restart.engine"), f"pid {engine.pid}  {engine.build}"))
        facts.append((t("restart.since"), began(engine.started_at, view.wall)))
        facts += [
            (t("restart.worker"), f"pid {worker.pid}  {word(worker.state)}") for worker in state.workers
        ]
    if lost:
        loss = t("restart.loses_lost")
    elif state.running is not None:
        loss = t("restart.loses_job", id=state.running.id)
    else:
        loss = t("restart.loses")
    if state.waiting and not lost:
        loss += t("cleanup.waiting", count=len(state.waiting))
    answers = ((t("restart.yes"), True),)
    return ConfirmScreen(
        ConfirmPanel(title=t("restart.title"), facts=tuple(facts), loss=loss, answers=answers)
    )
