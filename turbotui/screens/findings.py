"""Owns the screen of findings: what the baseline check found, on what evidence, and what mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding

from turbotui.findings import matters, name_of, names_of, severity_style
from turbotui.format import bytes_text, seconds, short_bytes
from turbotui.screens.window import WindowScreen
from turbotui.text import known, t
from turbotui.text.spoken import spoken
from turbotui.widgets.lines import Row, View, safe, width_of, wrapped
from turbotui.widgets.log import short_when, when
from turbotui.widgets.panels import Key, ListPanel

if TYPE_CHECKING:
    from rich.style import Style
    from textual.binding import BindingType

    from engine.wire import CheckReport, Finding

SEVERITY_CELLS = 9
SINCE_CELLS = 12
LEAST_DETAIL = 9
"""Rows below the list that are kept for the chosen finding, also where the list is long."""


class FindingsPanel(ListPanel):
    """The list, the worst first; below it all about the chosen one, which scrolls by itself."""

    def __init__(self, seen: frozenset[str], unknown: str) -> None:
        super().__init__(id="findings")
        self._unknown = unknown
        self._seen = seen
        """As it was when the screen was opened: what is new stays marked while it is read."""
        self.looking = False
        self.said = ""
        self.detail_top = 0
        self._detail_room = 1

    def inputs(self, view: View) -> tuple[object, ...]:
        return (view.state.check, self.looking, self.said, self.detail_top, int(view.wall) // 60)

    @property
    def finding(self) -> Finding | None:
        """The chosen one."""
        report = self.view.state.check if self.view is not None else None
        return _by_name(report).get(str(self.chosen))

    def title(self, view: View) -> str:
        report = view.state.check
        if report is None:
            return t("findings.title")
        if not report.findings:
            return t("findings.title_none")
        new = sum(self._is_new(finding) for finding in report.findings)
        text = t("findings.title_count", count=len(report.findings))
        return text + (t("findings.new", new=new) if new else "")

    def remark(self, view: View, width: int) -> Row | None:
        row, report = Row(width), view.state.check
        if self.looking:
            return row.add(t("findings.looking"), view.paint.wait)
        if report is None:
            return None
        row.add(
            t("findings.looked", at=when(report.at, view.wall), took=seconds(report.elapsed_s)),
            view.paint.muted,
        )
        if report.clean_at is not None and report.findings:
            clean = short_when(report.clean_at, view.wall)
            row.add(t("findings.clean_at", at=clean), view.paint.muted)
        return row

    def below(self, view: View) -> str:
        finding = _by_name(view.state.check).get(str(self.chosen))
        keys = [
            t("findings.key_command") if finding is not None and finding.remedy_command else "",
            t("findings.key_admin") if finding is not None and finding.admin_line else "",
            t("findings.key_scroll") if finding is not None else "",
            t("findings.keys_none"),
        ]
        return self.said or "  ".join(filter(None, keys))

    def keys(self, view: View) -> list[Key]:
        report = view.state.check
        if report is None:
            return []
        return [*_by_name(report), *(("unknown", place) for place in range(len(report.unknown)))]

    def nothing(self, view: View, width: int) -> list[Row]:
        if view.state.check is None:
            return [Row(width).add(self._unknown, view.paint.muted)]
        return [Row(width).add(t("findings.none"), view.paint.text)]

    def row(self, view: View, key: Key, width: int) -> Row:
        paint, report = view.paint, view.state.check
        assert report is not None
        row = Row(width).add("> " if key == self.chosen else "  ", paint.key)
        if isinstance(key, tuple):
            row.field(t("findings.unknown"), SEVERITY_CELLS, paint.muted)
            return row.add(f" {spoken(report.unknown[key[1]])}", paint.muted)
        finding = _by_name(report)[str(key)]
        style = severity_style(paint, finding)
        row.field(known(f"severity.{finding.severity}", finding.severity), SEVERITY_CELLS, style)
        size = "" if finding.bytes is None else short_bytes(finding.bytes)
        row.field(size, 6, paint.text, right=True).add(" ", paint.text)
        since = "" if finding.since is None else short_when(finding.since, view.wall)
        row.field(since, SINCE_CELLS, paint.muted, right=True).add("  ", paint.text)
        if self._is_new(finding):
            row.add(t("findings.is_new") + " ", paint.wait)
        return row.add(spoken(finding.title), paint.text if matters(finding) else paint.muted)

    def heading(self, view: View, width: int) -> list[Row]:
        muted = view.paint.muted
        row = Row(width).add("  ", muted).field(t("findings.severity"), SEVERITY_CELLS, muted)
        row.field("GiB", 6, muted, right=True).add(" ", muted)
        return [row.field(t("findings.column_since"), SINCE_CELLS, muted, right=True)]

    def _is_new(self, finding: Finding) -> bool:
        return matters(finding) and (finding.new or name_of(finding) not in self._seen)

    def body(self, view: View, width: int, height: int) -> list[Row]:
        count = len(self.keys(view)) + 1
        about = _by_name(view.state.check)
        longest = max((sum(map(len, _parts(view, one, width))) for one in about.values()), default=0)
        room = max(2, min(count, height - 1 - min(LEAST_DETAIL, longest)))
        rows = super().body(view, width, room)
        while len(rows) < min(room, height):
            rows.append(Row(width))
        finding = about.get(str(self.chosen))
        unknown = self._chosen_unknown(view)
        if finding is None and not unknown:
            return rows
        rows.append(Row(width).add("─" * width, view.paint.faint))
        if finding is None:
            told = [Row(width).add(line, view.paint.text) for line in wrapped(unknown, width)]
            return [*rows, *told][:height]
        return rows + self._detail(view, finding, width, height - len(rows))

    def _chosen_unknown(self, view: View) -> str:
        """What the chosen row says that the check could not look at; empty where it is a finding's."""
        report = view.state.check
        if report is None or not isinstance(self.chosen, tuple) or self.chosen[1] >= len(report.unknown):
            return ""
        return spoken(report.unknown[self.chosen[1]])

    def wanted_rows(self, view: View, width: int) -> int:
        """As many as the longest finding needs below the list: the window stays while one walks it."""
        listed = self.keys(view)
        details = [
            sum(map(len, _parts(view, finding, width))) for finding in _by_name(view.state.check).values()
        ]
        return len(listed) + 2 + max(details, default=2)

    def _detail(self, view: View, finding: Finding, width: int, room: int) -> list[Row]:
        """Its evidence, which scrolls, and what mends it, which is always in sight."""
        first, last = _parts(view, finding, width)
        last = last[: max(2, room - 3)]
        self._detail_room = max(1, room - len(last))
        self.detail_top = max(0, min(self.detail_top, len(first) - self._detail_room))
        shown = first[self.detail_top : self.detail_top + self._detail_room]
        more = len(first) - self.detail_top - self._detail_room
        if more > 0 and shown:
            # In the blank row before the remedy, so that no evidence is hidden by it.
            last[0] = Row(width).tail(t("findings.more", count=more), view.paint.muted)
        return shown + last

    def scroll_detail(self, by: int) -> None:
        self.detail_top += by * max(1, self._detail_room - 1)
        self.redraw()

    def _go(self, place: int) -> None:
        self.detail_top = 0
        super()._go(place)


def _by_name(report: CheckReport | None) -> dict[str, Finding]:
    """One kind may be found twice without anything to tell both apart: then its place does."""
    found: dict[str, Finding] = {}
    for place, finding in enumerate(report.findings if report is not None else ()):
        name = name_of(finding)
        found[f"{name}#{place}" if name in found else name] = finding
    return found


def _parts(view: View, finding: Finding, width: int) -> tuple[list[Row], list[Row]]:
    """What it rests on, and what mends it."""
    paint = view.paint
    last = [Row(width)]
    last += _told(width, t("findings.remedy"), spoken(finding.remedy), paint.key, paint.text)
    if finding.remedy_command:
        last += _told(width, "y", finding.remedy_command, paint.key, paint.bold)
    first = [
        Row(width).add(line, severity_style(paint, finding)) for line in wrapped(spoken(finding.title), width)
    ]
    if finding.bytes is not None or finding.since is not None:
        text = "" if finding.bytes is None else bytes_text(finding.bytes)
        if finding.since is not None:
            since = t("findings.since", at=short_when(finding.since, view.wall))
            text += f"  {since}  ({seconds(max(0.0, view.wall - finding.since))})"
        first.append(Row(width).add(text.strip(), paint.muted))
    for sentence in finding.evidence:
        first += _told(width, "·", spoken(sentence), paint.muted, paint.text)
    if finding.changed:
        first += _told(width, t("findings.changed"), spoken(finding.changed), paint.muted, paint.text)
    if finding.admin_line:
        first += _told(width, f"a {t('findings.admin')}", finding.admin_line, paint.key, paint.muted)
    return first, last


def _told(width: int, name: str, text: str, name_style: Style, style: Style) -> list[Row]:
    """`text` after its name, further lines below where it began."""
    indent = width_of(name) + 1
    rows = []
    for place, line in enumerate(wrapped(text, max(1, width - indent))):
        row = Row(width)
        if place == 0:
            row.add(name, name_style)
        rows.append(row.to(indent, style).add(line, style))
    return rows


class FindingsScreen(WindowScreen[None]):
    """All findings of the newest check; looking again is a key away."""

    panel: FindingsPanel
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter", "close", show=False),
        Binding("q", "close", show=False, id="quit"),
        Binding("c", "close", show=False, id="findings"),
        Binding("j,down", "walk(1)", show=False, id="down"),
        Binding("k,up", "walk(-1)", show=False, id="up"),
        Binding("g,home", "walk(-100000)", show=False, id="first"),
        Binding("G,end", "walk(100000)", show=False, id="last"),
        Binding("space,ctrl+d,pagedown", "detail(1)", show=False),
        Binding("ctrl+u,pageup", "detail(-1)", show=False),
        Binding("y", "copy_command", show=False, id="copy"),
        Binding("a", "copy_admin", show=False),
        Binding("r", "look_again", show=False),
    ]

    def __init__(self, seen: frozenset[str], unknown: str) -> None:
        super().__init__(FindingsPanel(seen, unknown))

    def wanted_size(self, width: int, height: int) -> tuple[int, int]:
        columns = min(112, width - 2)
        rows = self.panel.wanted_rows(self.view(), columns - 4)
        return columns, max(8, min(rows + 2, height - 2))

    def refresh_panel(self) -> None:
        super().refresh_panel()
        report = self.turbo.link.state.check
        if report is not None:
            self.turbo.read_findings(names_of(report))

    def action_walk(self, by: int) -> None:
        self.panel.said = ""
        self.panel.move(by)

    def action_detail(self, by: int) -> None:
        self.panel.scroll_detail(by)

    def action_copy_command(self) -> None:
        finding = self.panel.finding
        self._copy(finding.remedy_command if finding is not None else None, "findings.no_command")

    def action_copy_admin(self) -> None:
        finding = self.panel.finding
        self._copy(finding.admin_line if finding is not None else None, "findings.no_admin")

    def _copy(self, text: str | None, otherwise: str) -> None:
        if text:
            # What is pasted into a shell must be what was read here.
            self.turbo.copy_text(safe(text))
        self._say(t("findings.copied") if text else t(otherwise))

    def _say(self, text: str) -> None:
        self.panel.said = text
        self.panel.redraw()

    def action_look_again(self) -> None:
        if self.panel.looking:
            return

        def ended(report: CheckReport) -> None:
            self.turbo.link.take_findings(report)
            self._looked("")

        self.panel.looking = True
        self._say("")
        self.turbo.ask(
            t("findings.looking"), lambda client: client.check(), then=ended, failed=self._looked, quiet=True
        )

    def _looked(self, said: str) -> None:
        self.panel.looking = False
        self.panel.said = said
        self.show_late()
