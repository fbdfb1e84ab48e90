"""Owns the screen of models to have: what lies on the engine's host, and what can be fetched to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, TypeVar

from textual.binding import Binding

from engine.wire import GetRequest, ImportRequest, ScanRequest
from turbotui.actions import BY_ID
from turbotui.format import bytes_text, clip_middle
from turbotui.screens.confirm import ConfirmPanel, ConfirmScreen
from turbotui.screens.window import WindowScreen
from turbotui.text import t
from turbotui.text.spoken import spoken
from turbotui.widgets.errand import errand_rows
from turbotui.widgets.lines import Row, View, safe, wrapped
from turbotui.widgets.panels import Key, ListPanel

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.binding import BindingType

    from engine.wire import (
        ErrandStatus,
        FoundModel,
        FoundPart,
        GetPlan,
        ModelErrand,
        ModelScan,
        ReleasedModel,
    )
    from turbotui.client.base import Client

Answer = TypeVar("Answer")

NAME_CELLS = 32
SIZE_CELLS = 9
DETAIL_ROWS = 6


class FoundPanel(ListPanel):
    """One of two lists, and below it all about the chosen row and what is under way."""

    def __init__(self) -> None:
        super().__init__(id="found")
        self.scan: ModelScan | None = None
        self.released: tuple[ReleasedModel, ...] = ()
        self.plan: GetPlan | None = None
        """Why the chosen one cannot be fetched from here, with what to do."""
        self.errand: ModelErrand | None = None
        self.fetching = False
        """Whether the list is that of what can be fetched."""
        self.busy = ""
        self.said = ""

    def inputs(self, view: View) -> tuple[object, ...]:
        return (self.scan, self.released, self.plan, self.errand, self.fetching, self.busy, self.said)

    # ------------------------------------------------------------------ frame

    def title(self, view: View) -> str:
        return t("found.title_get") if self.fetching else t("found.title")

    def remark(self, view: View, width: int) -> Row | None:
        return Row(width).add(self.busy, view.paint.wait) if self.busy else None

    def below(self, view: View) -> str:
        found = "found.keys" if self.keys(view) else "found.keys_none"
        if view.read_only:  # names no key that would be refused
            found = "found.keys_look"
        get = "found.keys_get_look" if view.read_only else "found.keys_get"
        keys = [t(get if self.fetching else found)]
        if self.fetching and self.plan is not None:
            keys.insert(0, t("found.key_copy"))
        if self.errand is not None and self.errand.state == "running" and not view.read_only:
            keys.insert(0, t("found.key_cancel"))
        return "  ".join(keys)

    # ------------------------------------------------------------------ rows

    def keys(self, view: View) -> list[Key]:
        if self.fetching:
            return [("released", model.name) for model in self.released]
        if self.scan is None:
            return []
        models: list[Key] = [("model", place) for place in range(len(self.scan.models))]
        return [*models, *(("part", place) for place in range(len(self.scan.parts)))]

    def nothing(self, view: View, width: int) -> list[Row]:
        if self.busy or self.said:
            return []
        return [Row(width).add(line, view.paint.text) for line in wrapped(t("found.nothing"), width)]

    def row(self, view: View, key: Key, width: int) -> Row:
        row = Row(width).add("> " if key == self.chosen else "  ", view.paint.key)
        chosen = self._of(key)
        if chosen is None:
            return row
        kind = key[0] if isinstance(key, tuple) else ""
        if kind == "released":
            return self._released_row(view, row, key)
        return self._model_row(view, row, key) if kind == "model" else self._part_row(view, row, key)

    def _model_row(self, view: View, row: Row, key: Key) -> Row:
        model, paint = self.model(key), view.paint
        assert model is not None
        cells = min(NAME_CELLS, max(12, row.left - 36))
        row.field(clip_middle(model.name, cells), cells, paint.bold).add(f"  {model.kind}  ", paint.muted)
        row.field(bytes_text(model.bytes), SIZE_CELLS, paint.text, right=True).add("  ", paint.text)
        if model.imported:
            return row.add(t("found.imported"), paint.muted)
        if model.missing:
            return row.add(t("found.lacks", count=len(model.missing)), paint.wait)
        if view.read_only:
            return row.add(t("verdict.usable"), paint.muted)
        return row.add(t("found.ready"), paint.ours)

    def _part_row(self, view: View, row: Row, key: Key) -> Row:
        part, paint = self.part(key), view.paint
        assert part is not None
        style = (
            paint.text if part.verdict == "usable" else paint.wait if part.verdict == "parts" else paint.muted
        )
        row.field(t(f"verdict.{part.verdict}"), 12, style)
        row.field(bytes_text(part.bytes), SIZE_CELLS, paint.text, right=True).add("  ", paint.text)
        title = spoken(part.title)
        row.add(title, style).add("  ", paint.text)
        return row.add(clip_middle(part.path, max(8, row.left)), paint.muted) if row.left > 8 else row

    def _released_row(self, view: View, row: Row, key: Key) -> Row:
        model, paint = self.release(key), view.paint
        assert model is not None
        cells = min(NAME_CELLS, max(12, row.left - 36))
        row.field(clip_middle(model.name, cells), cells, paint.text)
        dtype = "int8" if model.int8 else "bf16"
        row.add(f"  {model.kind} {dtype}  ", paint.muted)
        row.field(bytes_text(model.about_bytes), SIZE_CELLS, paint.text, right=True).add("  ", paint.text)
        return row.add(t(f"presence.{model.presence}"), paint.muted)

    def body(self, view: View, width: int, height: int) -> list[Row]:
        detail = self._detail(view, width)[: max(2, height - 4)]
        rows = super().body(view, width, max(1, height - 1 - len(detail)))
        while len(rows) < height - 1 - len(detail):
            rows.append(Row(width))
        return [*rows, Row(width).add("─" * width, view.paint.faint), *detail]

    def _detail(self, view: View, width: int) -> list[Row]:
        """What is under way or was just said, and all about the chosen row."""
        paint = view.paint
        rows = errand_rows(view, self.errand, width)
        if self.said:
            rows += [Row(width).add(line, paint.wait) for line in wrapped(self.said, width)]
        if self.plan is not None:
            commands = (*self.plan.elsewhere, *self.plan.here)
            return [*rows, *(Row(width).add(clip_middle(line, width), paint.text) for line in commands)]
        lines = self._about()
        rows += [Row(width).add(line, paint.muted) for text in lines for line in wrapped(text, width)]
        return rows or [Row(width)]

    def _about(self) -> list[str]:
        """Sentences about the chosen row, or of the whole look where none is."""
        if (model := self.model(self.chosen)) is not None:
            told = (*model.missing, *model.notes)
            return [*(spoken(sentence) for sentence in told), *model.paths][:DETAIL_ROWS]
        if (part := self.part(self.chosen)) is not None:
            return [spoken(part.sentence), part.path]
        if (released := self.release(self.chosen)) is not None:
            return [
                t("found.shared", repository=released.repository, bytes=bytes_text(released.shared_bytes))
            ]
        if self.scan is not None and not self.fetching:
            return [t("found.looked", places=", ".join(self.scan.places)), *map(spoken, self.scan.skipped)]
        return []

    # ------------------------------------------------------------------ what a row is

    def _of(self, key: Key) -> object:
        return self.model(key) or self.part(key) or self.release(key)

    def model(self, key: Key) -> FoundModel | None:
        if self.scan is None or not isinstance(key, tuple) or key[0] != "model":
            return None
        return self.scan.models[key[1]] if key[1] < len(self.scan.models) else None

    def part(self, key: Key) -> FoundPart | None:
        if self.scan is None or not isinstance(key, tuple) or key[0] != "part":
            return None
        return self.scan.parts[key[1]] if key[1] < len(self.scan.parts) else None

    def release(self, key: Key) -> ReleasedModel | None:
        if not isinstance(key, tuple) or key[0] != "released":
            return None
        return next((model for model in self.released if model.name == key[1]), None)


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
