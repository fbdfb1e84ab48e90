"""Owns the screen of leaks: who holds memory, whether that is a leak, and what gives it back, by a key."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, ClassVar, TypeVar

from textual.binding import Binding

from engine.wire import ExportRequest, MarkRequest, RemedyRequest, TraceRequest
from turbotui.actions import BY_ID
from turbotui.format import bytes_text
from turbotui.screens.confirm import ConfirmPanel, ConfirmScreen
from turbotui.screens.reader import PagePanel, PageScreen
from turbotui.screens.receipt import receipt_rows
from turbotui.screens.window import WindowScreen
from turbotui.text import t
from turbotui.text.spoken import spoken
from turbotui.widgets.leak_rows import cost_text, remedy_facts, remedy_rows, verdict_rows
from turbotui.widgets.leaks import LeaksPanel
from turbotui.widgets.lines import Row, View, safe

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.binding import BindingType

    from engine.wire import (
        DeviceProcess,
        ExportedSnapshot,
        LeakReport,
        Mark,
        Remedy,
        RemedyResult,
        Tracing,
        Verdict,
    )
    from turbotui.client.base import Client

Answer = TypeVar("Answer")
FACT_CELLS = 14


class LeaksScreen(WindowScreen[None]):
    """Looks as it opens; enter tells all of the chosen verdict, and a key runs its remedy."""

    panel: LeaksPanel
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", show=False),
        Binding("q", "close", show=False, id="quit"),
        Binding("l", "close", show=False, id="leaks"),
        Binding("j,down", "walk(1)", show=False, id="down"),
        Binding("k,up", "walk(-1)", show=False, id="up"),
        Binding("g,home", "walk(-100000)", show=False, id="first"),
        Binding("G,end", "walk(100000)", show=False, id="last"),
        Binding("ctrl+d,pagedown", "page(1)", show=False),
        Binding("ctrl+u,pageup", "page(-1)", show=False),
        Binding("right,tab", "section(1)", "screen.leaks_section", show=False),
        Binding("left,shift+tab", "section(-1)", "screen.leaks_section", show=False),
        Binding("enter", "whole", "screen.leaks_whole", show=False),
        Binding("f", "remedy", "screen.leaks_remedy", show=False),
        Binding("t", "trace", "screen.leaks_trace", show=False),
        Binding("m", "mark", "screen.leaks_mark", show=False),
        Binding("e", "export", "screen.leaks_export", show=False),
        Binding("c", "findings", "help.findings", show=False, id="findings"),
        Binding("y", "copy_command", show=False, id="copy"),
        Binding("a", "copy_admin", show=False),
        Binding("r", "look_again", show=False),
    ]

    def __init__(self) -> None:
        super().__init__(LeaksPanel())

    def wanted_size(self, width: int, height: int) -> tuple[int, int]:
        return min(160, width - 2), min(40, height - 2)

    def on_mount(self) -> None:
        super().on_mount()
        self._look()

    # ------------------------------------------------------------------ asking

    def _ask(self, label: str, work: Callable[[Client], Answer], then: Callable[[Answer], None]) -> None:
        panel = self.panel
        panel.busy = label

        def ended(answer: Answer) -> None:
            panel.busy = ""
            then(answer)
            self.show_late()

        self.turbo.ask(label, work, then=ended, failed=self._failed, quiet=True)
        panel.redraw()

    def _failed(self, error: str) -> None:
        panel = self.panel
        panel.busy = ""
        if panel.report is None:
            panel.failed = error
        else:
            panel.said = error
        self.show_late()

    def _look(self) -> None:
        self._ask(t("leaks.looking"), lambda client: client.leaks(), self._looked)

    def _looked(self, report: LeakReport) -> None:
        self.panel.report, self.panel.failed = report, ""

    def _refused(self) -> bool:
        """Whether nothing may be done here, which is said."""
        reason = self.turbo.why_not(BY_ID["free"], self.turbo.link.state.look(self.turbo.monotonic()))
        if reason is not None:
            self._say(reason)
        return reason is not None

    def _say(self, text: str) -> None:
        self.panel.said, self.panel.section = text, 0
        self.panel.redraw()

    # ------------------------------------------------------------------ looking

    def action_walk(self, by: int) -> None:
        self.panel.said = ""
        self.panel.move(by)

    def action_page(self, by: int) -> None:
        self.panel.said = ""
        self.panel.page(by)

    def action_section(self, by: int) -> None:
        self.panel.step_section(by)

    def action_look_again(self) -> None:
        if not self.panel.busy:
            self.panel.said = ""
            self._look()

    def action_whole(self) -> None:
        job = self.panel.job(self.view())
        if job is not None:
            from turbotui.screens.job import JobScreen

            self.app.push_screen(JobScreen(job.id))
        elif self.panel.verdict is not None:
            self.app.push_screen(VerdictScreen(self.panel.verdict, self.mend))

    def action_findings(self) -> None:
        from turbotui.screens.findings import FindingsScreen

        self.app.push_screen(FindingsScreen(self.turbo.seen.findings, self.turbo.why_no_check()))

    def action_copy_command(self) -> None:
        verdict = self.panel.verdict
        remedy = None if verdict is None else verdict.remedy
        self._copy(None if remedy is None else remedy.command, "leaks.no_command")

    def action_copy_admin(self) -> None:
        verdict = self.panel.verdict
        self._copy(None if verdict is None else verdict.admin_line, "findings.no_admin")

    def _copy(self, text: str | None, otherwise: str) -> None:
        if text:
            self.turbo.copy_text(safe(text))
        self._say(t("findings.copied") if text else t(otherwise))

    # ------------------------------------------------------------------ acting

    def action_remedy(self) -> None:
        if self.painted and self.panel.verdict is not None:
            self.mend(self.panel.verdict)

    def mend(self, verdict: Verdict) -> None:
        """Ask before the remedy of `verdict`, or say why there is none."""
        if self.panel.busy:
            return
        if verdict.remedy is None:
            self._say(t("leaks.no_remedy"))
        elif not self._refused():
            # Frozen: a look that ends meanwhile may have put another verdict in this place.
            agreed = partial(self._agreed, verdict.remedy)
            self.app.push_screen(remedy_dialog(verdict, verdict.remedy), agreed)

    def _agreed(self, remedy: Remedy, agreed: object) -> None:
        if agreed is not True:
            return
        process = self._process(remedy)
        if process is not None:
            from turbotui.screens.kill import is_others, other_user_dialog

            if is_others(self.view(), process):
                dialog = other_user_dialog(self.view(), process, self.turbo.where)
                self.app.push_screen(dialog, partial(self._run, remedy, True))
                return
        self._run(remedy, False, True)

    def _process(self, remedy: Remedy) -> DeviceProcess | None:
        """Whom a kill would end, where it is on a card's list."""
        if remedy.pid is None:
            return None
        return next(
            (
                process
                for device in self.turbo.link.state.devices
                for process in device.processes
                if (process.pid, process.start_time) == (remedy.pid, remedy.start_time)
            ),
            None,
        )

    def _run(self, remedy: Remedy, other_user: bool, agreed: object) -> None:
        if agreed is not True:
            return
        request = RemedyRequest(remedy=remedy, other_user=other_user)
        self._ask(t("leaks.mending"), lambda client: client.remedy(request), self._mended)

    def _mended(self, result: RemedyResult) -> None:
        self.panel.said = result_text(result)
        if self.is_attached and self.app.screen is self:
            self.app.push_screen(ResultScreen(result))
        self._look()

    def action_trace(self) -> None:
        report = self.panel.report
        if report is None or self.panel.busy or self._refused():
            return
        request = TraceRequest(on=not report.tracing.on)
        label = t("leaks.tracing_begins" if request.on else "leaks.tracing_ends")
        self._ask(label, lambda client: client.trace(request), self._traced)

    def _traced(self, tracing: Tracing) -> None:
        self.panel.said = t("leaks.now_on") + cost_text(tracing) if tracing.on else t("leaks.now_off")
        self._look()

    def action_mark(self) -> None:
        report = self.panel.report
        if report is None or self.panel.busy or self._refused():
            return
        request = MarkRequest(on=report.since is None or report.since.lost is not None)
        self._ask(t("leaks.marking"), lambda client: client.mark(request), self._marked)

    def _marked(self, mark: Mark) -> None:
        self.panel.said = t("leaks.marked" if mark.at is not None else "leaks.unmarked")
        self._look()

    def action_export(self) -> None:
        engine = self.turbo.link.state.engine
        if engine is None or self.panel.busy or self._refused():
            return
        stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(self.turbo.wall()))
        stem = f"{engine.output_dir.rstrip('/')}/memory-{stamp}"
        self.app.push_screen(export_dialog(stem), partial(self._export, stem))

    def _export(self, stem: str, chosen: object) -> None:
        if chosen not in ("json", "pickle"):
            return
        request = ExportRequest(path=f"{stem}.{chosen}", format=chosen)
        self._ask(t("leaks.exporting"), lambda client: client.export_snapshot(request), self._exported)

    def _exported(self, written: ExportedSnapshot) -> None:
        self.turbo.copy_text(safe(written.path))
        self._say(t("leaks.exported", path=written.path, bytes=bytes_text(written.bytes)))


# --------------------------------------------------------------------------- dialogs and pages


def remedy_dialog(verdict: Verdict, remedy: Remedy) -> ConfirmScreen:
    """Before a remedy: what it acts on, and what it should give back."""
    panel = ConfirmPanel(
        title=t(f"leaks.action_{remedy.action}"),
        facts=remedy_facts(remedy),
        loss=f"{spoken(verdict.title)}\n{spoken(remedy.text)} {t('leaks.compared')}",
        answers=((t(f"leaks.action_{remedy.action}"), True),),
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


def result_text(result: RemedyResult) -> str:
    """What was promised and what came back, in one sentence."""
    predicted, returned = bytes_text(result.predicted_bytes), bytes_text(result.returned_bytes)
    if not result.receipt.ok:
        return t("leaks.result_failed", error=spoken(result.receipt.error or ""))
    if result.returned_bytes is None:
        return t("leaks.result_unseen", predicted=predicted)
    if result.predicted_bytes is None:
        return t("leaks.result_only", returned=returned)
    key = "leaks.result_kept" if result.kept else "leaks.result_short"
    return t(key, predicted=predicted, returned=returned)


class ResultPanel(PagePanel):
    """The prediction against what came back, then the receipt."""

    def __init__(self, result: RemedyResult) -> None:
        super().__init__(id="remedy_result")
        self._result = result

    def inputs(self, view: View) -> tuple[object, ...]:
        return (self.top,)

    def title(self, view: View) -> str:
        sign = "✓" if self._result.kept or (self._result.kept is None and self._result.receipt.ok) else "!"
        return f"{sign} {t(f'leaks.action_{self._result.remedy.action}')}"

    def page(self, view: View, width: int) -> list[Row]:
        paint, result = view.paint, self._result
        style = paint.proof if result.kept else paint.wait
        rows = [Row(width).add(result_text(result), style), Row(width)]
        predicted, returned = result.predicted_bytes, result.returned_bytes
        most = max(predicted or 0, returned or 0)
        if most and predicted is not None and returned is not None:
            room = max(4, width - FACT_CELLS - 12)
            for name, size in (("leaks.predicted_bar", predicted), ("leaks.returned_bar", returned)):
                row = Row(width).field(t(name), FACT_CELLS, paint.muted)
                row.field(bytes_text(size), 12, paint.text)
                rows.append(row.add("▆" * round(room * size / most), paint.bar))  # a gap between the two
            rows.append(Row(width))
        return rows + receipt_rows(view, result.receipt, width)


class ResultScreen(PageScreen):
    """A remedy's receipt."""

    def __init__(self, result: RemedyResult) -> None:
        super().__init__(ResultPanel(result))


class VerdictPanel(PagePanel):
    """All of one verdict."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(id="verdict_page")
        self.verdict = verdict
        self.said = ""

    def inputs(self, view: View) -> tuple[object, ...]:
        return (self.top, self.said)

    def keys_text(self, view: View) -> str:
        remedy = self.verdict.remedy
        keys = [
            t("leaks.key_remedy") if remedy is not None else "",
            t("leaks.key_command") if remedy is not None and remedy.command else "",
            t("leaks.key_admin") if self.verdict.admin_line else "",
            t("reader.keys"),
        ]
        return self.said or "  ".join(filter(None, keys))

    def title(self, view: View) -> str:
        verdict = self.verdict
        sign = t("leaks.leak") if verdict.leak else t("leaks.no_leak")
        size = "" if verdict.bytes is None else f"  {bytes_text(verdict.bytes)}"
        return f"{t(f'leaks.kind_{verdict.kind}')}: {sign}{size}"

    def page(self, view: View, width: int) -> list[Row]:
        rows = verdict_rows(view, self.verdict, width)
        return [*rows, Row(width), *remedy_rows(view, self.verdict, width)]


class VerdictScreen(PageScreen):
    """A verdict in full, with the keys that it names; `mend` asks before its remedy."""

    panel: VerdictPanel
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f", "remedy", "screen.leaks_remedy", show=False),
        Binding("y", "copy_command", show=False, id="copy"),
        Binding("a", "copy_admin", show=False),
    ]

    def __init__(self, verdict: Verdict, mend: Callable[[Verdict], None]) -> None:
        super().__init__(VerdictPanel(verdict))
        self._mend = mend

    def action_remedy(self) -> None:
        if self.painted:
            self.dismiss()
            self._mend(self.panel.verdict)

    def action_copy_command(self) -> None:
        remedy = self.panel.verdict.remedy
        self._copy(None if remedy is None else remedy.command, "leaks.no_command")

    def action_copy_admin(self) -> None:
        self._copy(self.panel.verdict.admin_line, "findings.no_admin")

    def _copy(self, text: str | None, otherwise: str) -> None:
        if text:
            self.turbo.copy_text(safe(text))
        self.panel.said = t("findings.copied") if text else t(otherwise)
        self.panel.redraw()
