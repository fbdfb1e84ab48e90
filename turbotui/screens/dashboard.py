"""Owns the dashboard: the panels, where they stand, when they are drawn and what the looking keys do."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar, cast

from textual.binding import Binding

from turbotui.actions import (
    ACTIONS,
    BY_ID,
    bound_keys,
    key_line,
)
from turbotui.screens.behind import DrawnBehind
from turbotui.screens.panel_keys import PanelKeys
from turbotui.screens.past import PastKeys
from turbotui.screens.plan import LEAST, Place, is_wide, plan
from turbotui.screens.planned import PlannedLayout
from turbotui.text import t
from turbotui.widgets.bottom import (
    TABS,
    Notice,
    ReceiptLine,
    RunningLine,
    Tabs,
    TooSmall,
)
from turbotui.widgets.card import CardPanel
from turbotui.widgets.header import Clock, Header
from turbotui.widgets.history import HistoryPanel
from turbotui.widgets.key_line import KeyHint, KeyLine
from turbotui.widgets.lines import LinePanel, View
from turbotui.widgets.log import LogPanel, LogTail
from turbotui.widgets.memory import MemoryPanel
from turbotui.widgets.models import ModelsPanel
from turbotui.widgets.pressure import PressureBanner, pressing
from turbotui.widgets.queue import QueuePanel
from turbotui.widgets.selecting import SelectingScreen
from turbotui.widgets.strip import GpuStrip

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.binding import BindingType
    from textual.events import DescendantFocus, Resize
    from textual.geometry import Size
    from textual.layout import Layout
    from textual.timer import Timer

    from turbotui.app import TurboApp
    from turbotui.history import History
    from turbotui.state import ConsoleState

FULL_S = 0.1
RESTING_S = 0.5
NOTICE_S = 20.0
ERROR_NOTICE_S = 120.0
"""An error is read by who looks away for a while, too."""
LEAST_NOTICE_S = 3.0
"""So long an answer can be read before a receipt takes its place that the person did not ask for."""


class DashboardScreen(DrawnBehind, PanelKeys, PastKeys, SelectingScreen):
    """Draws at 10 Hz while something moves and the terminal has attention, else at 2 Hz."""

    CSS = """
    DashboardScreen { background: $background; overflow: hidden; }
    """
    # With priority a key acts before the next one is looked at, so that what is typed in one go acts
    # in its order; without it, it acts where a panel took the key for itself and then did not want it.
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            bound_keys(action), f"act('{action.id}')", action.id, id=action.id, show=False, priority=first
        )
        for action in ACTIONS
        for first in (True, False)
    ]

    def __init__(self) -> None:
        super().__init__(id="dashboard")
        self.tab = "history"
        self.banner = False
        """Whether the pressure's row has its place."""
        self.strip = False
        """Whether the GPUs' row has its place."""
        self._planned = PlannedLayout(self._places)
        self._timer: Timer | None = None
        self._interval = 0.0
        self._attentive = True
        self._notice_at = 0.0
        self._notice_least_s = 0.0
        self._notice_before: tuple[int, str] = (0, "")
        """Receipts issued and the link's state as the notice was said."""
        self._notice_of: float | None = None
        """The moment that was shown as it was said."""
        self._found: list[LinePanel] = []
        self._receipt = ReceiptLine(id="receipt")

    @property
    def turbo(self) -> TurboApp:
        return cast("TurboApp", self.app)

    @property
    def layout(self) -> Layout:
        return self._planned

    def compose(self) -> ComposeResult:
        yield Header(id="header", where=self.turbo.where, key_of=self.turbo.key_of)
        yield Clock(id="clock")
        yield GpuStrip(id="strip", on_choose=self.look_at, key_of=self.turbo.key_of)
        yield MemoryPanel(id="memory", key_of=self.turbo.key_of)
        yield Tabs(id="tabs", on_choose=self.choose, key_of=self.turbo.key_of)
        yield HistoryPanel(id="history", on_point=self.point_at, on_turn=self.step)
        yield ModelsPanel(id="models")
        yield QueuePanel(id="queue")
        yield CardPanel(id="card")
        yield LogPanel(id="log")
        add = partial(self.turbo.why_not, BY_ID["add"])
        yield RunningLine(id="running", key_of=self.turbo.key_of, why_not=add)
        yield LogTail(id="tail")
        yield PressureBanner(id="pressure", key_of=self.turbo.key_of)
        self._receipt.notes_key = self.turbo.key_of("last_receipt")
        self._receipt.switch_key = self.turbo.key_of("switch")
        yield self._receipt
        yield KeyLine(id="keys", hints=self._hints, on_choose=self.action_act)
        yield TooSmall(id="too_small", least=LEAST)

    def on_mount(self) -> None:
        self._apply_plan(self.app.size)
        self.set_focus(self.query_one("#queue"))
        self.tick()
        self._set_timer()

    def on_resize(self, event: Resize) -> None:
        self._apply_plan(event.size)

    def _places(self, width: int, height: int) -> dict[str, Place]:
        read_only = self.turbo.read_only
        return plan(width, height, self.tab, banner=self.banner, strip=self.strip, read_only=read_only)

    def _apply_plan(self, size: Size) -> None:
        places = self._places(size.width, size.height)
        for panel in self._panels():
            panel.display = panel.id in places
        focused = self.focused
        if focused is None or not focused.display:
            fallback = self.tab if self.tab in places else "queue"
            if fallback in places:
                self.set_focus(self.query_one(f"#{fallback}"))

    def _panels(self) -> list[LinePanel]:
        if not self._found:
            self._found = [child for child in self.children if isinstance(child, LinePanel)]
        return self._found

    # ------------------------------------------------------------------ drawing

    @property
    def attentive(self) -> bool:
        """Whether the terminal has the focus, as far as it says."""
        return self._attentive

    def set_attentive(self, attentive: bool) -> None:
        """Draw at the full rate, or slowly while nobody looks."""
        self._attentive = attentive
        self._set_timer()

    def state_changed(self) -> None:
        """There is news; behind a dialog, and while nobody looks, the timer's next turn is soon enough."""
        if self._attentive and not self.is_behind:
            self.tick()

    def _set_timer(self) -> None:
        """Ten pictures a second while there is something to see and somebody who looks, else two.

        Two also behind a dialog: drawing through it costs the whole screen's time each time.
        """
        state = self.turbo.link.state
        moving = state.running is not None or self.turbo.pending is not None or state.link != "connected"
        watched = self._attentive and not self.is_behind and not self.turbo.slow
        interval = FULL_S if moving and watched else RESTING_S
        if interval != self._interval:
            if self._timer is not None:
                self._timer.stop()
            self._interval = interval
            self._timer = self.set_interval(interval, self.tick)

    def on_screen_suspend(self) -> None:
        self._set_timer()

    def on_screen_resume(self) -> None:
        self._set_timer()
        self.tick()

    def view_now(self) -> View:
        """The newest state, as of this moment."""
        app = self.turbo
        state = app.link.state
        device = state.device
        return View(
            state=state,
            history=self._history(state),
            paint=app.paint,
            wall=app.wall(),
            monotonic=app.monotonic(),
            look=state.look(app.monotonic()) if device or state.link != "connected" else "starting",
            read_only=app.read_only,
            making_demo=app.making_demo,
            away_since=app.away_since,
            seen=app.seen.findings,
            unwatched=not self._attentive,
        )

    def _history(self, state: ConsoleState) -> History | None:
        return None if state.device is None else self.turbo.link.history(state.device.id)

    def tick(self) -> None:
        """Draw what has changed since the last time."""
        if not self.is_mounted:
            return
        self._set_timer()
        if self.turbo.behind:
            return  # what has changed is drawn when the terminal reads on
        view = self.with_timeline(self.view_now())
        picture = view
        if self._frozen is not None:
            state, wall, monotonic = self._frozen
            state = replace(state, chosen_device=view.state.chosen_device)
            history = self._history(state)
            view = replace(view, paused_at=wall)
            picture = replace(
                view, state=state, history=history, wall=wall, monotonic=monotonic, paused_at=wall
            )
        if view.look in ("stale", "lost"):
            picture = replace(picture, paint=self.turbo.grey_paint)
        view, graph, picture = self.in_time(view, picture)
        rows = (pressing(view) is not None, len(view.state.gpus) > 1)
        if rows != (self.banner, self.strip):
            self.banner, self.strip = rows
            self._apply_plan(self.app.size)
            self.refresh(layout=True)
        receipt = self._receipt
        receipt.pending = self.turbo.pending
        if receipt.notice is not None and self._notice_is_over(receipt.notice, view):
            receipt.notice = None
        live: tuple[str, ...] = ("header", "clock", "pressure", "receipt", "keys", "too_small")
        if view.state.own_probe and self._frozen is None:
            live += ("memory", "history", "card")
        with self.app.batch_update():
            for panel in self._panels():
                if panel.display:
                    panel.show(view if panel.id in live else graph if panel.id == "history" else picture)

    def redraw_all(self) -> None:
        """Draw everything again: the language or the theme is another one."""
        self.tick()
        for panel in self._panels():
            if panel.display:
                panel.redraw()

    # ------------------------------------------------------------------ notices

    def say(self, notice: Notice) -> None:
        """Show a sentence in the last line until something newer is to be said."""
        self._receipt.notice = notice
        self._notice_at = self.turbo.monotonic()
        state = self.turbo.link.state
        self._notice_before = (state.receipts, state.link)
        self._notice_of, self._notice_least_s = self.past_at, LEAST_NOTICE_S
        self.tick()

    def acts_again(self) -> None:
        """What comes of it is to be seen at once."""
        self._notice_least_s = 0.0

    def _notice_is_over(self, notice: Notice, view: View) -> bool:
        if self.past_at != self._notice_of:
            return True
        said_s = view.monotonic - self._notice_at
        receipts, link = self._notice_before
        if view.state.link != link or (view.state.receipts != receipts and said_s >= self._notice_least_s):
            return True
        lasts_s = ERROR_NOTICE_S if notice.tone == "error" else NOTICE_S
        return said_s > (lasts_s if notice.lasts_s is None else notice.lasts_s)

    # ------------------------------------------------------------------ keys

    def focused_place(self) -> str:
        """The id of the panel that has the focus."""
        return self.focused.id or "" if self.focused is not None else ""

    def _hints(self, view: View) -> tuple[KeyHint, ...]:
        offered = key_line(self.focused_place(), past=self.past_at is not None)
        return self.turbo.key_line(
            KeyHint(
                action=name,
                key=self.turbo.key_of(name),
                label=t(f"key.{name}"),
                enabled=self.turbo.why_not(BY_ID[name], view.look) is None,
                rank=rank,
            )
            for name, rank in offered
        )

    def on_descendant_focus(self, event: DescendantFocus) -> None:
        self.tick()

    def choose(self, panel_id: str) -> None:
        """Go to a panel; in a small terminal it comes into the middle."""
        width, height = self.app.size
        if panel_id != "memory" and not is_wide(width, height):
            self.tab = panel_id
            self.query_one(Tabs).chosen = panel_id
            self._apply_plan(self.app.size)
            self.refresh(layout=True)
        elif panel_id != "memory":
            # Kept for when the terminal shrinks.
            self.tab = self.query_one(Tabs).chosen = panel_id
        target = self.query_one(f"#{panel_id}", LinePanel)
        if target.display:
            # Not `target.focus()`, which takes effect later than the next key.
            self.set_focus(target)
        self.tick()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Letters are the filter's while it is being written."""
        editing = action == "act" and self.query_one(LogPanel).editing
        return not editing and super().check_action(action, parameters)

    def action_act(self, name: str) -> None:
        """Every key of the dashboard arrives here."""
        if name.startswith("panel_"):
            self.choose(TABS[int(name.removeprefix("panel_")) - 1])
            return
        looking = getattr(self, f"look_{name}", None)
        if looking is not None:
            looking()
        else:
            self.turbo.act(name)

    def look_next_panel(self) -> None:
        self._step_panel(1)

    def look_previous_panel(self) -> None:
        self._step_panel(-1)

    def _step_panel(self, by: int) -> None:
        current = self.focused_place()
        place = TABS.index(current) if current in TABS else 0
        self.choose(TABS[(place + by) % len(TABS)])

    def look_at(self, device_id: str) -> None:
        """Show another device in the bar, the graph and the list of processes."""
        self.turbo.link.look_at(device_id)
        self.tick()

    def look_axis(self) -> None:
        self.query_one(HistoryPanel).next_axis()

    def look_back(self) -> None:
        self._go_back()

    def look_quit(self) -> None:
        self.turbo.away_since = None  # it says no more than that there is something to read
        if not self._go_back():
            self.turbo.action_leave()

    def _go_back(self) -> bool:
        """End the filter or the pause; False when there was nothing to go back from."""
        log = self.query_one(LogPanel)
        if log.wanted and self.focused is log:
            log.end_filter(keep=False)
        elif self.go_to_now():
            return True
        elif self._frozen is not None:
            self.look_pause()
        elif self.turbo.away_since is not None:
            self.turbo.away_since = None
            self.tick()
        else:
            return False
        return True
