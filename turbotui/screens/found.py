"""Owns the screen of models to have: asking for what there is, importing it, fetching what is not here."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, TypeVar

from textual.binding import Binding

from engine.wire import GetRequest, ImportRequest, ScanRequest
from turbotui.actions import BY_ID
from turbotui.format import bytes_text
from turbotui.screens.confirm import ConfirmPanel, ConfirmScreen
from turbotui.screens.window import WindowScreen
from turbotui.text import t
from turbotui.text.spoken import spoken
from turbotui.widgets.found import FoundPanel
from turbotui.widgets.lines import safe

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.binding import BindingType

    from engine.wire import (
        ErrandStatus,
        FoundModel,
        GetPlan,
        ModelScan,
        ReleasedModel,
    )
    from turbotui.client.base import Client

Answer = TypeVar("Answer")


class FoundScreen(WindowScreen[None]):
    """Looks as it opens; enter imports or fetches the chosen one, and what is under way is shown."""

    panel: FoundPanel
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", show=False),
        Binding("q", "close", show=False, id="quit"),
        Binding("i", "found", "screen.found", show=False, id="found"),
        Binding("g", "fetchable", "screen.fetchable", show=False),
        Binding("j,down", "walk(1)", show=False, id="down"),
        Binding("k,up", "walk(-1)", show=False, id="up"),
        Binding("home", "walk(-100000)", show=False),
        Binding("G,end", "walk(100000)", show=False, id="last"),
        Binding("ctrl+d,pagedown", "page(1)", show=False),
        Binding("ctrl+u,pageup", "page(-1)", show=False),
        Binding("enter", "take", "screen.import_or_fetch", show=False),
        Binding("x", "cancel_errand", "screen.cancel_errand", show=False, id="cancel"),
        Binding("D", "demo", "help.demo", show=False, id="demo"),
        Binding("r", "look_again", show=False),
        Binding("y", "copy", show=False, id="copy"),
    ]

    def __init__(self, *, fetching: bool = False) -> None:
        super().__init__(FoundPanel())
        self.panel.fetching = fetching
        self._asking = False

    def wanted_size(self, width: int, height: int) -> tuple[int, int]:
        return min(116, width - 2), min(32, height - 2)

    def on_mount(self) -> None:
        super().on_mount()
        self._ask_errand()
        self._ask_list()

    def refresh_panel(self) -> None:
        super().refresh_panel()
        errand = self.panel.errand
        if errand is not None and errand.state == "running":
            self._ask_errand()

    # ------------------------------------------------------------------ asking

    def _ask_list(self) -> None:
        """What the list in sight is of, unless it is known."""
        panel = self.panel
        if panel.fetching and not panel.released:
            self._ask(t("found.listing"), lambda client: client.released_models(), self._took_released)
        elif not panel.fetching and panel.scan is None:
            request = ScanRequest()
            self._ask(t("found.looking"), lambda client: client.scan_models(request), self._took_scan)

    def _took_scan(self, scan: ModelScan) -> None:
        self.panel.scan = scan

    def _took_released(self, models: list[ReleasedModel]) -> None:
        self.panel.released = tuple(models)

    def _ask(self, label: str, work: Callable[[Client], Answer], then: Callable[[Answer], None]) -> None:
        self.panel.busy, self.panel.said = label, ""

        def ended(answer: Answer) -> None:
            self.panel.busy = ""
            then(answer)
            self._redraw()

        self.turbo.ask(label, work, then=ended, failed=self._failed, quiet=True)
        self._redraw()

    def _failed(self, error: str) -> None:
        self.panel.busy, self.panel.said = "", error
        self._redraw()

    def _redraw(self) -> None:
        if self.is_attached:
            self.refresh_panel()

    def _ask_errand(self) -> None:
        if self._asking:
            return
        self._asking = True

        def told(status: ErrandStatus) -> None:
            self._asking = False
            self._took_errand(status)

        def failed(error: str) -> None:
            self._asking = False

        self.turbo.ask("errand", lambda client: client.model_errand(), then=told, failed=failed, quiet=True)

    def _took_errand(self, status: ErrandStatus) -> None:
        before, self.panel.errand = self.panel.errand, status.errand
        ended = before is not None and before.state == "running" and status.errand is not None
        if ended and status.errand is not None and status.errand.state != "running":
            # What is here has changed with it.
            self.panel.scan, self.panel.released = None, ()
            self._ask_list()
        if self.is_attached:
            self.panel.redraw()

    # ------------------------------------------------------------------ keys

    def action_found(self) -> None:
        self._turn(fetching=False)

    def action_fetchable(self) -> None:
        self._turn(fetching=True)

    def _turn(self, *, fetching: bool) -> None:
        panel = self.panel
        panel.fetching, panel.plan, panel.said, panel.walked = fetching, None, "", False
        self._ask_list()
        self._redraw()

    def action_walk(self, by: int) -> None:
        self.panel.plan, self.panel.said = None, ""
        self.panel.move(by)

    def action_page(self, by: int) -> None:
        self.panel.plan, self.panel.said = None, ""
        self.panel.page(by)

    def action_look_again(self) -> None:
        if not self.panel.busy:
            self.panel.scan, self.panel.released = None, ()
            self._ask_list()

    def action_copy(self) -> None:
        panel = self.panel
        model, part = panel.model(panel.chosen), panel.part(panel.chosen)
        if panel.plan is not None:
            text = "\n".join((*panel.plan.elsewhere, *panel.plan.here))
        else:
            text = model.command if model is not None else part.path if part is not None else ""
        if text:
            self.turbo.copy_text("\n".join(map(safe, text.split("\n"))))
            panel.said = t("found.copied")
            panel.redraw()

    def action_take(self) -> None:
        panel = self.panel
        if not self.painted or panel.busy:
            return
        model, released = panel.model(panel.chosen), panel.release(panel.chosen)
        if model is None and released is None:
            return
        # A console that only looks, and a moment that is over, act as little here as anywhere.
        reason = self.turbo.why_not(BY_ID["demo"], self.turbo.link.state.look(self.turbo.monotonic()))
        if reason is not None:
            panel.said = reason
        elif model is not None:
            self._import(model)
        elif released is not None:
            label = t("found.asking")
            self._ask(label, lambda client: client.get_plan(released.name), self._took_plan)
        self._redraw()

    def _import(self, model: FoundModel) -> None:
        if model.imported:
            self.panel.said = t("found.imported_already", name=model.name)
        elif model.missing:
            self.panel.said = t("found.not_yet", name=model.name)
        else:
            request = ImportRequest(name=model.name, paths=model.paths)
            self._ask(t("found.beginning"), lambda client: client.import_model(request), self._took_errand)

    def _took_plan(self, plan: GetPlan) -> None:
        if plan.problem is not None:
            self.panel.plan, self.panel.said = plan, spoken(plan.problem.message)
            return
        request = GetRequest(name=plan.name)

        def agreed(answer: object) -> None:
            if answer is True:
                self._ask(t("found.beginning"), lambda client: client.get_model(request), self._took_errand)

        if self.is_attached:
            self.app.push_screen(get_dialog(plan), agreed)

    def action_demo(self) -> None:
        if self.painted:  # the dashboard shows how it goes
            self.dismiss()
            self.turbo.act("demo")

    def action_cancel_errand(self) -> None:
        errand = self.panel.errand
        if errand is None or errand.state != "running":
            self.panel.said = t("found.nothing_runs")
            self._redraw()
        elif self.turbo.read_only:
            self.panel.said = t("why.read_only")
            self._redraw()
        else:
            self._ask(t("found.cancelling"), lambda client: client.cancel_errand(), self._took_errand)


def get_dialog(plan: GetPlan) -> ConfirmScreen:
    """Before gigabytes are fetched: how many, under which licences, and where to."""
    facts = [(t("found.to_fetch"), bytes_text(plan.missing_bytes)), (t("found.folder"), plan.folder)]
    facts.append((t("found.free"), bytes_text(plan.free_bytes)))
    facts += [
        (t("found.licence"), f"{licence.name or t('found.no_licence')}  {licence.repository}")
        for licence in plan.licences
    ]
    answers = ((t("found.yes"), True),)
    title = t("found.get_title", name=plan.name)
    panel = ConfirmPanel(title=title, facts=tuple(facts), loss=t("found.after"), answers=answers)
    return ConfirmScreen(panel)
