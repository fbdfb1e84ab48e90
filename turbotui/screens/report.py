"""Owns the page that tells what happened: the report of a recording, read in a thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding

from turbotui.format import seconds
from turbotui.screens.reader import PagePanel, PageScreen
from turbotui.text import t
from turbotui.widgets.lines import Row, View, width_of, wrapped
from turbotui.widgets.log import short_when

if TYPE_CHECKING:
    from textual.binding import BindingType

    from turbotui.remote.recordings import Source

HEAD_CELLS = 11
"""What a section's name takes in a line of the report."""
WAITING_ROWS = 10
"""About as many as a quiet night has."""


def tell_report(source: Source, since: float, until: float) -> list[str]:
    """The lines of `turbotui report` for a stretch; they are clean.

    Raises:
        NotFound: nothing is recorded there.
    """
    from engine.recording.reader import Recording
    from turbotui.remote.recordings import stretch_of
    from turbotui.report.lines import report_lines
    from turbotui.report.read import read_report

    with stretch_of(source, since, until) as path:
        recording = Recording(path)
        lines = report_lines(read_report(recording, since, until))
        return [*lines, *recording.remarks.values()]


class ReportPanel(PagePanel):
    """The lines, each wrapped below its own beginning."""

    def __init__(self, stretch: tuple[float, float], *, more: bool) -> None:
        super().__init__(id="report")
        self.stretch = stretch
        self._more = more
        """Whether there is another stretch to tell of."""
        self.lines: list[str] | None = None
        self.failure = ""

    def inputs(self, view: View) -> tuple[object, ...]:
        return (self.top, self.stretch, self.lines is None, self.failure)

    def title(self, view: View) -> str:
        since, until = self.stretch
        begin, end = short_when(since, view.wall), short_when(until, view.wall)
        return t("report.title", since=begin, until=end, length=seconds(until - since))

    def below(self, view: View) -> str:
        more = self._count - self.top - self._room
        keys = t("report.keys_more" if self._more else "report.keys")
        return (t("list.more", count=more) + "  " if more > 0 else "") + keys

    def page(self, view: View, width: int) -> list[Row]:
        paint = view.paint
        if self.failure:
            return [Row(width).add(line, paint.wait) for line in wrapped(self.failure, width)]
        if self.lines is None:
            return [Row(width).add(t("report.reading"), paint.wait)]
        rows = [Row(width).add(line, paint.bold) for line in wrapped("".join(self.lines[:1]), width)]
        for line in self.lines[1:]:
            name, text = _divided(line)
            for place, part in enumerate(wrapped(text, max(1, width - HEAD_CELLS))):
                row = Row(width).field(name if place == 0 else "", HEAD_CELLS, paint.key)
                rows.append(row.add(part, paint.text))
        return rows


def _divided(line: str) -> tuple[str, str]:
    """The name that a line begins with, in its cells, and the rest."""
    cells = place = 0
    while cells < HEAD_CELLS and place < len(line):
        cells += width_of(line[place])
        place += 1
    return line[:place], line[place:]


class ReportScreen(PageScreen):
    """What happened in one of `stretches` of the recording at `source`."""

    panel: ReportPanel
    most = 116
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("w", "next_stretch", show=False, id="report"),
        Binding("y", "copy", show=False, id="copy"),
    ]

    def __init__(self, source: Source, stretches: tuple[tuple[float, float], ...]) -> None:
        super().__init__(ReportPanel(stretches[0], more=len(stretches) > 1))
        self._source = source
        self._stretches = stretches

    def on_mount(self) -> None:
        super().on_mount()
        self._read()

    def wanted_size(self, width: int, height: int) -> tuple[int, int]:
        columns, rows = super().wanted_size(width, height)
        return columns, rows if self.panel.lines is not None else min(WAITING_ROWS, height - 2)

    def action_next_stretch(self) -> None:
        """Tell of the other stretch, where there is one."""
        place = self._stretches.index(self.panel.stretch)
        stretch = self._stretches[(place + 1) % len(self._stretches)]
        if stretch != self.panel.stretch:
            self.panel.stretch, self.panel.lines, self.panel.failure, self.panel.top = stretch, None, "", 0
            self.refresh_panel()
            self._read()

    def _read(self) -> None:
        stretch = self.panel.stretch

        def told(lines: list[str]) -> None:
            if stretch == self.panel.stretch:
                self.panel.lines = lines
                self.show_late()

        def failed(error: str) -> None:
            if stretch == self.panel.stretch:
                self.panel.failure = error
                self.show_late()

        self.turbo.run_apart(
            t("report.reading"),
            lambda: tell_report(self._source, *stretch),
            then=told,
            failed=failed,
            quiet=True,
        )

    def action_copy(self) -> None:
        self.turbo.copy_text("\n".join(self.panel.lines or ()))
