"""Owns what every dialog shares: a framed panel in the middle that follows the newest state."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar, cast

from textual.await_complete import AwaitComplete
from textual.binding import Binding
from textual.screen import ModalScreen

from turbotui.screens.behind import DrawnBehind
from turbotui.widgets.lines import View
from turbotui.widgets.panels import Panel
from turbotui.widgets.selecting import SelectingScreen

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.binding import BindingType
    from textual.events import Resize

    from turbotui.app import TurboApp

Outcome = TypeVar("Outcome")

REFRESH_S = 0.5


class WindowScreen(DrawnBehind, SelectingScreen, ModalScreen[Outcome], Generic[Outcome]):
    """A dialog around one panel. Keys that arrive before it was painted do nothing."""

    DEFAULT_CSS = """
    WindowScreen { align: center middle; background: $background 60%; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "close", show=False),
        Binding("question_mark,？", "help", show=False, id="help"),
        Binding("ctrl+z", "suspend", show=False, id="suspend"),
    ]
    key_help: ClassVar[tuple[tuple[str, str], ...]] = ()
    """Keys that no binding names, each with the text that says what they do."""

    def __init__(self, panel: Panel) -> None:
        super().__init__()
        self.panel = panel
        self.painted = False
        self._dismissed = False

    @property
    def turbo(self) -> TurboApp:
        return cast("TurboApp", self.app)

    def compose(self) -> ComposeResult:
        yield self.panel

    def wanted_size(self, width: int, height: int) -> tuple[int, int]:
        """The panel's size in a terminal of this size."""
        return min(100, width - 4), min(30, height - 4)

    def on_mount(self) -> None:
        self._fit()
        self.panel.focus()
        self.refresh_panel()
        self.set_interval(REFRESH_S, self.refresh_panel)
        self.call_after_refresh(self.turbo.when_drawn, self._now_painted)

    def _now_painted(self) -> None:
        self.painted = True

    def on_resize(self, event: Resize) -> None:
        self.refresh_panel()  # a picture's place, too: half a second in the old one is long

    def _fit(self) -> None:
        width, height = self.wanted_size(*self.app.size)
        self.panel.styles.width = width
        self.panel.styles.height = height

    def view(self) -> View:
        return self.turbo.dashboard.view_now()

    def refresh_panel(self) -> None:
        self._fit()
        self.panel.show(self.view())

    def show_late(self) -> None:
        """Show what came late; nothing where the screen was left meanwhile, or is not there yet."""
        # `is_mounted` alone stays true of a screen that is gone.
        if self.is_mounted and self.is_attached:
            self.refresh_panel()
            self.panel.redraw()

    def dismiss(self, result: Outcome | None = None) -> AwaitComplete:
        """Once: a second key of one write, such as a repeated one, finds the screen on its way out."""
        if self._dismissed:
            return AwaitComplete()
        self._dismissed = True
        return super().dismiss(result)

    def action_help(self) -> None:
        """This screen's own keys."""
        from turbotui.screens.keys import show_keys

        show_keys(self, self.turbo)

    def action_suspend(self) -> None:
        self.turbo.action_suspend_process()

    def action_close(self) -> None:
        self.dismiss(None)
