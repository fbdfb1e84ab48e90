"""Owns the page of a process on the card: whose it is, what it holds, and how to follow it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding

from turbotui.actions import BY_ID
from turbotui.findings import about_process, severity_style
from turbotui.format import UNKNOWN, bytes_text
from turbotui.screens.reader import PagePanel, PageScreen
from turbotui.text import t
from turbotui.text.spoken import spoken
from turbotui.widgets.lines import Row, View, wrapped
from turbotui.widgets.log import began, log_row, when

if TYPE_CHECKING:
    from textual.binding import BindingType

    from engine.wire import DeviceProcess, LogLine

NAME_CELLS = 14
LOOK_BACK_S = 7 * 86400.0
"""What came before is not looked for: reading it would take longer than it is worth."""


def watch_command(process: DeviceProcess) -> str:
    """What follows it in a shell."""
    return f"turbotui watch {process.pid}"


def told_of(view: View, process: DeviceProcess) -> list[LogLine]:
    """Lines of the log that name it."""
    pid = str(process.pid)
    begun = process.started_at or 0.0
    return [
        line for line in view.state.log if line.at >= begun and pid in line.text.replace(",", " ").split()
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrival:
    """How the flight recorder saw it come."""

    at: float
    process: DeviceProcess
    already: bool
    """It was there when the recording began."""


def read_arrival(source: Path, process: DeviceProcess, now: float) -> Arrival | None:
    """When it came and who it was then; None where the recording does not know.

    Raises:
        NotFound: nothing is recorded there.
    """
    from engine.recording.entries import ProcessCame
    from engine.recording.reader import Recording

    since = max(process.started_at or 0.0, now - LOOK_BACK_S)
    for entry in Recording(source).entries(since, now):
        came = entry.what
        if isinstance(came, ProcessCame):
            same = (came.process.pid, came.process.start_time) == (process.pid, process.start_time)
            if same:
                return Arrival(at=entry.at, process=came.process, already=came.already)
    return None


class ProcessPanel(PagePanel):
    """As it was when it was opened, but for its bytes: who took its pid since is another."""

    def __init__(self, process: DeviceProcess) -> None:
        super().__init__(id="process")
        self.process = process
        self.arrival: Arrival | None = None

    def _now(self, view: View) -> list[tuple[int | None, str, DeviceProcess]]:
        """GPU's index, its id and the process as it is there now; none where it has gone."""
        same = (self.process.pid, self.process.start_time)
        return [
            (device.index, device.id, found)
            for device in view.state.devices
            for found in device.processes
            if (found.pid, found.start_time) == same
        ]

    def inputs(self, view: View) -> tuple[object, ...]:
        return (self._now(view), view.state.check, view.state.log, self.top, self.arrival, int(view.wall))

    def title(self, view: View) -> str:
        return t("process.title", pid=self.process.pid, name=self.process.name)

    def keys_text(self, view: View) -> str:
        return t("process.keys" if self.process.ours is None else "process.keys_ours")

    def page(self, view: View, width: int) -> list[Row]:
        paint, process = view.paint, self.process
        rows: list[Row] = []

        def put(name: str, value: str, *, strong: bool = False) -> None:
            for place, line in enumerate(wrapped(value, max(1, width - NAME_CELLS))):
                row = Row(width).field(name if place == 0 else "", NAME_CELLS, paint.muted)
                rows.append(row.add(line, paint.bold if strong else paint.text))

        there = self._now(view)
        for index, device_id, found in there:
            gpu = "" if index is None else f"  GPU {index}"
            put(t("kill.holds"), f"{bytes_text(found.bytes)}{gpu}  {device_id}", strong=True)
        if not there:
            rows.append(Row(width).add(t("process.gone"), paint.wait))
        put(t("kill.owner"), process.user or t("process.unknown_owner"))
        if process.ours is not None:
            put(t("process.role"), t(f"card.our_{process.ours}"))
        if process.program:
            put(t("process.program"), spoken(process.program))
        if process.tenant:
            put(t("process.tenant"), spoken(process.tenant))
        since = UNKNOWN
        if process.started_at is not None:
            since = began(process.started_at, view.wall)
        put(t("restart.since"), since)
        put(t("kill.container"), process.container or t("process.no_container"))
        put(t("kill.command"), process.command or UNKNOWN)
        if (arrival := self.arrival) is not None:
            came = arrival.process
            who = f"{came.user or t('process.unknown_owner')}  {came.command or came.name}"
            key = "process.already" if arrival.already else "process.came_at"
            text = t(key, at=when(arrival.at, view.wall), bytes=bytes_text(came.bytes))
            put(t("process.came"), f"{text}  {who}")
        put(t("process.follow"), watch_command(process), strong=True)
        for finding in about_process(view.state.check, process):
            rows.append(Row(width))
            rows += [
                Row(width).add(line, severity_style(paint, finding))
                for line in wrapped(f"! {spoken(finding.title)}", width)
            ]
            rows += [Row(width).add(line, paint.text) for line in wrapped(spoken(finding.remedy), width)]
        if lines := told_of(view, process):
            rows += [Row(width), Row(width).add(t("process.told"), paint.focus_title)]
            rows += [log_row(paint, line, view.wall, width) for line in lines]
        return rows


class ProcessScreen(PageScreen):
    """Everything about one process."""

    panel: ProcessPanel
    most = 112
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("K", "kill", "help.kill", show=False, id="kill"),
        Binding("y", "copy", show=False, id="copy"),
    ]

    def __init__(self, process: DeviceProcess) -> None:
        super().__init__(ProcessPanel(process))

    def on_mount(self) -> None:
        super().on_mount()
        source, process, now = self.turbo.recordings, self.panel.process, self.turbo.wall()
        if isinstance(source, Path):  # another machine's would have to be brought here for one line
            self.turbo.run_apart(
                t("report.reading"),
                lambda: read_arrival(source, process, now),
                then=self._arrived,
                failed=lambda _why: None,  # without a recording the page is as whole as it can be
                quiet=True,
            )

    def _arrived(self, arrival: Arrival | None) -> None:
        self.panel.arrival = arrival
        self.show_late()

    def action_kill(self) -> None:
        """As on its row, of the one that was read about."""
        if not self.painted:
            return
        self.dismiss()
        reason = self.turbo.why_not(BY_ID["kill"], self.view().look)
        if reason is None:
            self.turbo.commands.ask_to_kill(self.panel.process)
        else:
            self.turbo.say(reason, "wait")

    def action_copy(self) -> None:
        self.turbo.copy_text(watch_command(self.panel.process))
