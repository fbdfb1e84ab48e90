"""Owns the sheet of dangerous actions: what each would give back and cost, or why it cannot be now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding

from turbotui.actions import ACTIONS, BY_ID, half_width
from turbotui.format import UNKNOWN, bytes_text
from turbotui.history import parts_of
from turbotui.screens.reset import blocked_text
from turbotui.screens.window import WindowScreen
from turbotui.text import t
from turbotui.widgets.lines import Row, View, wrapped
from turbotui.widgets.panels import Key, ListPanel
from turbotui.workers import held_bytes

if TYPE_CHECKING:
    from textual.binding import BindingType
    from textual.events import Key as KeyEvent

    from engine.wire import ResetPlan
    from turbotui.app import TurboApp

KEY_CELLS = 4
NAME_CELLS = 22
BYTES_CELLS = 10
DETAIL_ROWS = 3
DANGEROUS = tuple(action.id for action in ACTIONS if action.tier == "dangerous")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """A dangerous action as it would be now."""

    id: str
    bytes: int | None = None
    """What comes back; None where that cannot be known."""
    text: str
    """What is lost, or why it cannot be."""
    possible: bool = True


def cost_of(view: View, name: str, plan: ResetPlan | str | None) -> Cost:
    """Action `name` by the newest state; `plan` is what the engine said about a reset, or its refusal."""
    state, device = view.state, view.state.device
    worker = next(iter(state.workers), None)
    held = None if worker is None else held_bytes(worker, state.devices)
    waiting = len(state.waiting)
    job = state.running
    others = [
        process
        for found in state.devices
        if found.kind == "cuda"
        for process in found.processes
        if process.ours is None
    ]
    if name == "hard_cleanup":
        if worker is None:
            return Cost(id=name, text=t("cleanup.nothing"), possible=False)
        text = t("cleanup.loses") if job is None else t("cleanup.loses_job", id=job.id)
        return Cost(id=name, bytes=held, text=text)
    if name == "kill":
        if not others:
            return Cost(id=name, text=t("sheet.nobody"), possible=False)
        known = [process.bytes for process in others]
        size = None if None in known else sum(size or 0 for size in known)
        return Cost(id=name, bytes=size, text=t("sheet.kill_costs", count=len(others)))
    if name == "reset":
        if device is None or device.kind == "cpu":
            return Cost(id=name, text=t("reset.cpu"), possible=False)
        if isinstance(plan, str):
            return Cost(id=name, text=plan, possible=False)
        if plan is not None and plan.blocked_by:
            text = f"{t('reset.blocked', names=blocked_text(plan))} {t('sheet.reset_why')}"
            return Cost(id=name, text=text, possible=False)
        text = t("reset.loses", index=device.index)
        if plan is None:
            text += " " + t("sheet.asking")
        free = None if device.balance is None else parts_of(device.balance).get("free")
        used = None if free is None else device.total_bytes - free
        return Cost(id=name, bytes=used, text=text)
    if name == "full_cleanup":
        text = t("sheet.full", count=len(others)) if others else t("sheet.full_alone")
        return Cost(id=name, bytes=held, text=text)
    stay = t("cleanup.waiting", count=waiting) if waiting else ""
    if job is not None:
        return Cost(id=name, bytes=held, text=t("restart.loses_job", id=job.id) + stay)
    if view.look == "lost":
        return Cost(id=name, bytes=held, text=t("restart.loses_lost"))
    return Cost(id=name, bytes=held, text=t("restart.loses") + stay)


class SheetPanel(ListPanel):
    """A row for each; below it all that is to be said of the chosen one."""

    def __init__(self, app: TurboApp) -> None:
        super().__init__(id="sheet")
        self._app = app
        self.plan: ResetPlan | str | None = None

    def inputs(self, view: View) -> tuple[object, ...]:
        state = view.state
        return (state.workers, state.devices, state.jobs, self.plan)

    def cost(self, view: View, name: str) -> Cost:
        reason = self._app.why_not(BY_ID[name], view.look)
        if reason is not None:
            return Cost(id=name, text=reason, possible=False)
        return cost_of(view, name, self.plan)

    def title(self, view: View) -> str:
        return t("sheet.title")

    def below(self, view: View) -> str:
        begin = any(self.cost(view, name).possible for name in DANGEROUS)
        return (t("sheet.keys") + "  " if begin else "") + t("sheet.keys_trail")

    def keys(self, view: View) -> list[Key]:
        return list(DANGEROUS)

    def heading(self, view: View, width: int) -> list[Row]:
        muted = view.paint.muted
        row = Row(width).to(KEY_CELLS + NAME_CELLS, muted)
        row.field(t("sheet.back"), BYTES_CELLS, muted, right=True)
        return [row.add("  " + t("sheet.costs"), muted)]

    def row(self, view: View, key: Key, width: int) -> Row:
        paint = view.paint
        cost = self.cost(view, str(key))
        strong, plain = (paint.alarm, paint.bold) if cost.possible else (paint.muted, paint.muted)
        row = Row(width).field(f" {self._app.key_of(cost.id)}", KEY_CELLS, strong)
        row.field(t(f"sheet.{cost.id}"), NAME_CELLS, plain)
        size = ""
        if cost.possible:
            size = UNKNOWN if cost.bytes is None else bytes_text(cost.bytes)
        row.field(size, BYTES_CELLS, paint.text, right=True).add("  ", paint.text)
        return row.add(cost.text, paint.text if cost.possible else paint.muted)

    def body(self, view: View, width: int, height: int) -> list[Row]:
        rows = super().body(view, width, height - DETAIL_ROWS - 1)
        while len(rows) < height - DETAIL_ROWS - 1:
            rows.append(Row(width))
        cost = self.cost(view, str(self.chosen))
        style = view.paint.text if cost.possible else view.paint.wait
        rows.append(Row(width).add("─" * width, view.paint.faint))
        return rows + [Row(width).add(line, style) for line in wrapped(cost.text, width)[:DETAIL_ROWS]]


class SheetScreen(WindowScreen[str | None]):
    """Dismissed with the id of the action to begin, which then asks as by its own key."""

    panel: SheetPanel
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "close", show=False, id="quit"),
        Binding("exclamation_mark,！", "close", show=False, id="sheet"),
        Binding("j,down", "walk(1)", show=False, id="down"),
        Binding("k,up", "walk(-1)", show=False, id="up"),
        Binding("enter", "begin", show=False),
        Binding("t", "trail", show=False, id="audit"),
    ]

    def on_mount(self) -> None:
        super().on_mount()
        device = self.turbo.link.state.device
        if device is None or device.kind != "cuda":
            return
        if self.turbo.why_not(BY_ID["reset"], self.view().look) is not None:
            return
        index = device.id
        self.turbo.ask(
            t("sheet.asking"),
            lambda client: client.reset_plan(index),
            then=self._told,
            failed=self._told,
            quiet=True,
        )

    def _told(self, plan: ResetPlan | str) -> None:
        self.panel.plan = plan
        self.show_late()

    def wanted_size(self, width: int, height: int) -> tuple[int, int]:
        return min(118, width - 2), min(len(DANGEROUS) + DETAIL_ROWS + 4, height - 2)

    def action_walk(self, by: int) -> None:
        self.panel.move(by)

    def action_trail(self) -> None:
        """Who began any of these before."""
        self.dismiss("audit")

    def action_begin(self) -> None:
        self._begin(str(self.panel.chosen))

    def on_key(self, event: KeyEvent) -> None:
        """A dangerous key means the same here as on the dashboard."""
        key = half_width(event.character)
        found = next((name for name in DANGEROUS if self.turbo.key_of(name) == key), None)
        if found is not None:
            event.stop()
            self._begin(found)

    def _begin(self, name: str) -> None:
        # A reset that something blocks is shown all the same: its dialog says what, condition by condition.
        if self.painted and (name == "reset" or self.panel.cost(self.view(), name).possible):
            self.dismiss(name)
