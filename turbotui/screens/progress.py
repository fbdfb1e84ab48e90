"""Owns the page of a long action: its steps as they happen, then its receipt with what is still held."""

from __future__ import annotations

from typing import TYPE_CHECKING

from turbotui.screens.reader import PagePanel, PageScreen
from turbotui.screens.receipt import receipt_rows, receipt_title, step_row
from turbotui.text import t
from turbotui.widgets.lines import Row, View, wrapped

if TYPE_CHECKING:
    from engine.wire import Receipt, ReceiptAction

REFRESH_S = 0.1
WAITING_ROWS = 12


class ProgressPanel(PagePanel):
    """What the action has done so far."""

    def __init__(self, action: ReceiptAction, label: str, since: float) -> None:
        super().__init__(id="progress")
        self._action = action
        self._label = label
        self._since = since
        """Monotonic."""
        self.receipt: Receipt | None = None
        self.failure = ""

    @property
    def ended(self) -> bool:
        return self.receipt is not None or bool(self.failure)

    def inputs(self, view: View) -> tuple[object, ...]:
        elapsed = None if self.ended else int((view.monotonic - self._since) * 5)
        return (view.state.steps, self.receipt, self.failure, elapsed, self.top)

    def title(self, view: View) -> str:
        if self.receipt is not None:
            return receipt_title(self.receipt)
        return ("! " if self.failure else "") + self._label

    def remark(self, view: View, width: int) -> Row | None:
        if self.ended:
            return None
        return Row(width).add(f"◌ {view.monotonic - self._since:.1f} s", view.paint.wait)

    def below(self, view: View) -> str:
        return super().below(view) if self.ended else t("progress.keys")

    def page(self, view: View, width: int) -> list[Row]:
        if self.failure:
            return [Row(width).add(line, view.paint.error) for line in wrapped(self.failure, width)]
        if self.receipt is not None:
            return receipt_rows(view, self.receipt, width)
        steps = [step for step in view.state.steps if view.state.steps[0].action == self._action]
        if not steps:
            return [Row(width).add(t("progress.begins"), view.paint.muted)]
        return [step_row(view, progressed.step, width) for progressed in steps]


class ProgressScreen(PageScreen):
    """Leaving it leaves the action to itself; its receipt is in the last line then."""

    panel: ProgressPanel

    def __init__(self, action: ReceiptAction, label: str, since: float) -> None:
        super().__init__(ProgressPanel(action, label, since))

    def on_mount(self) -> None:
        super().on_mount()
        self.set_interval(REFRESH_S, self._go_on)

    def _go_on(self) -> None:
        if not self.panel.ended:
            self.refresh_panel()

    def wanted_size(self, width: int, height: int) -> tuple[int, int]:
        columns, rows = super().wanted_size(width, height)
        return columns, max(rows, min(WAITING_ROWS, height - 2))

    def end(self, receipt: Receipt | None, failure: str = "") -> None:
        """The action has ended, with its receipt or with the reason why there is none."""
        self.panel.receipt, self.panel.failure = receipt, failure
        self.show_late()
