"""Owns the screen of leaks: who holds memory, whether that is a leak, and what gives it back, by a key."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, ClassVar, TypeVar

from textual.binding import Binding

from engine.wire import ExportRequest, MarkRequest, RemedyRequest, TraceRequest
from turbotui.actions import BY_ID
from turbotui.format import bytes_text
from turbotui.screens.leak_dialogs import export_dialog, remedy_dialog, trace_dialog
from turbotui.screens.leak_pages import ResultScreen, VerdictScreen, result_text
from turbotui.screens.window import WindowScreen
from turbotui.text import t
from turbotui.widgets.leak_rows import cost_text
from turbotui.widgets.leaks import LeaksPanel
from turbotui.widgets.lines import safe

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


class LeaksScreen(WindowScreen[None]):
    """Looks as it opens; enter tells all of the chosen verdict, and a key runs its remedy."""

    panel: LeaksPanel
    acting = frozenset({"remedy", "trace", "mark", "export"})
    """What a console that only looks is not offered."""
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
        if not report.tracing.on and report.tracing.device == "cpu":
            # A GPU's allocator notes its blocks itself; here each operation is looked at.
            self.app.push_screen(trace_dialog(report.tracing), self._trace_agreed)
            return
        self._trace(not report.tracing.on)

    def _trace_agreed(self, agreed: object) -> None:
        if agreed is True:
            self._trace(True)

    def _trace(self, on: bool) -> None:
        request = TraceRequest(on=on)
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
