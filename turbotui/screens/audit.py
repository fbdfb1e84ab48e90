"""Owns the audit trail: who had what ended, reset, moved or deleted, with how it ended."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding

from turbotui.format import bytes_text, seconds
from turbotui.screens.long_confirm import fact
from turbotui.screens.reader import PagePanel, PageScreen
from turbotui.screens.window import WindowScreen
from turbotui.text import known, t
from turbotui.text.spoken import spoken, word
from turbotui.widgets.lines import Row, View, wrapped
from turbotui.widgets.log import when
from turbotui.widgets.panels import Key, ListPanel
from turbotui.widgets.typing_line import edited

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.style import Style
    from textual.binding import BindingType
    from textual.events import Key as KeyEvent

    from engine.wire import AuditLine, AuditPage
    from turbotui.theme import Paint

PAGE = 200
WHEN_CELLS = 11
ACTION_CELLS = 13
BYTES_CELLS = 9
TOOK_CELLS = 8
ROOMY = 90
"""Columns from which everything stands in the row."""
DETAIL_ROWS = 3
SIGNS = {"done": "✓", "failed": "!", "refused": "✗", "asked": "◌"}


def who_of(line: AuditLine, *, whole: bool = False) -> str:
    """`me pts/3 turbotui`, with `whole` the pid and the uid too."""
    if line.uid is None and line.pid is None:
        return t("audit.engine")
    user = line.user or f"uid {line.uid}"
    parts = [user, line.terminal, line.program]
    if whole:
        parts += [f"pid {line.pid}", f"uid {line.uid}" if line.user else None]
    return " ".join(part for part in parts if part)


def entry_facts(line: AuditLine) -> list[tuple[str, str]]:
    """Everything about one deed; its day too, since the text is taken elsewhere."""
    what = known(f"audit.action_{line.action}", line.action)
    state, result = t(f"audit.state_{line.state}"), word(line.result)
    facts = [
        (t("audit.when"), time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(line.at))),
        (t("audit.who"), who_of(line, whole=True)),
        (t("audit.what"), what if what == line.action else f"{what}  ({line.action})"),
        (t("audit.target"), spoken(line.target)),
        (t("audit.state"), state),
    ]
    if result not in ("", state):
        facts.append((t("audit.result"), result))
    if line.bytes is not None:
        facts.append((t("audit.bytes"), bytes_text(line.bytes)))
    if line.elapsed_s is not None:
        facts.append((t("audit.took"), seconds(line.elapsed_s)))
    return facts


def entry_text(line: AuditLine) -> str:
    """The same to be copied, a fact a line."""
    return "\n".join(f"{name}: {value}" for name, value in entry_facts(line))


class EntryPanel(PagePanel):
    """One deed in full."""

    def __init__(self, line: AuditLine) -> None:
        super().__init__(id="audit_entry")
        self.entry = line

    def inputs(self, view: View) -> tuple[object, ...]:
        return (self.top,)

    def title(self, view: View) -> str:
        return t("audit.title")

    def keys_text(self, view: View) -> str:
        return t("audit.keys_entry")

    def page(self, view: View, width: int) -> list[Row]:
        paint = view.paint
        return [
            row
            for name, text in entry_facts(self.entry)
            for row in fact(width, name, text, paint.muted, paint.text)
        ]


class EntryScreen(PageScreen):
    """One line of the trail."""

    panel: EntryPanel
    BINDINGS: ClassVar[list[BindingType]] = [Binding("y", "copy", show=False, id="copy")]

    def __init__(self, line: AuditLine) -> None:
        super().__init__(EntryPanel(line))

    def action_copy(self) -> None:
        self.turbo.copy_text(entry_text(self.panel.entry))


class AuditPanel(ListPanel):
    """The newest first; rows are named by when they were asked for and of what."""

    def __init__(self) -> None:
        super().__init__(id="audit")
        self.entries: tuple[AuditLine, ...] | None = None
        self.older = False
        self.unreadable = 0
        self.failure = ""
        self.wanted = ""
        self.editing = False
        self._by_key: dict[Key, AuditLine] = {}

    def inputs(self, view: View) -> tuple[object, ...]:
        return (self.entries, self.failure, self.wanted, self.editing, self.older, int(view.wall) // 3600)

    def title(self, view: View) -> str:
        return t("audit.title")

    def remark(self, view: View, width: int) -> Row | None:
        row, paint = Row(width), view.paint
        if self.editing or self.wanted:
            row.add("/", paint.key).add(self.wanted, paint.text if self.editing else paint.wait)
            row.add("▏" if self.editing else t("log.clears"), paint.key if self.editing else paint.muted)
        else:
            row.add("/ ", paint.key).add(t("log.filter"), paint.muted)
        return row

    def below(self, view: View) -> str:
        more = super().below(view)
        keys = t("audit.keys" if self.keys(view) else "audit.keys_none")
        return (f"{more}  " if more else "") + keys

    def keys(self, view: View) -> list[Key]:
        wanted = self.wanted.casefold()
        self._by_key = {}
        same: Counter[Key] = Counter()
        # From the oldest: one that comes is counted last of those that look the same.
        for line in reversed(self.entries or ()):
            name = (line.at, line.action, line.target, line.uid, line.pid)
            same[name] += 1
            if not wanted or wanted in _searched(line):
                self._by_key[(*name, same[name])] = line
        return list(reversed(self._by_key))

    @property
    def entry(self) -> AuditLine | None:
        """The chosen one."""
        return self._by_key.get(self.chosen)

    def nothing(self, view: View, width: int) -> list[Row]:
        paint = view.paint
        if self.failure:
            return [Row(width).add(self.failure, paint.wait)]
        if self.entries is None:
            return [Row(width).add(t("audit.reading"), paint.wait)]
        text = t("log.no_match", text=self.wanted) if self.wanted else t("audit.none")
        return [Row(width).add(text, paint.muted)]

    def heading(self, view: View, width: int) -> list[Row]:
        muted = view.paint.muted
        row = Row(width).add("  ", muted).field(t("audit.when"), WHEN_CELLS, muted).add("   ", muted)
        row.field(t("audit.what"), ACTION_CELLS, muted).add(" ", muted)
        row.field(t("audit.bytes"), BYTES_CELLS, muted, right=True)
        if width >= ROOMY:
            row.field(t("audit.took"), TOOK_CELLS, muted, right=True)
        row.add("  ", muted)
        who = self._who_cells(width)
        return [row.field(t("audit.who"), who, muted).add(" ", muted).add(t("audit.target"), muted)]

    @staticmethod
    def _who_cells(width: int) -> int:
        return 10 if width < ROOMY else 20 if width < 130 else 26

    def row(self, view: View, key: Key, width: int) -> Row:
        paint, line = view.paint, self._by_key[key]
        row = Row(width).add("> " if key == self.chosen else "  ", paint.key)
        row.field(when(line.at, view.wall), WHEN_CELLS, paint.muted).add(" ", paint.text)
        row.add(f"{SIGNS[line.state]} ", _style(paint, line))
        row.field(known(f"audit.action_{line.action}", line.action), ACTION_CELLS, paint.bold)
        row.add(" ", paint.text)
        row.field("" if line.bytes is None else bytes_text(line.bytes), BYTES_CELLS, paint.text, right=True)
        if width >= ROOMY:
            took = "" if line.elapsed_s is None else seconds(line.elapsed_s)
            row.field(took, TOOK_CELLS, paint.muted, right=True)
        row.add("  ", paint.text)
        row.field(who_of(line), self._who_cells(width), paint.text).add(" ", paint.text)
        why = spoken(line.result.removeprefix(f"{line.state}: ")) or t("audit.state_asked")
        tail = "" if line.state == "done" else f"  {why}"
        return row.add(spoken(line.target), paint.text).add(tail, _style(paint, line))

    def body(self, view: View, width: int, height: int) -> list[Row]:
        """Below the list, all of the chosen one that its row has no room for."""
        room = max(2, height - DETAIL_ROWS - 1)
        rows = super().body(view, width, room)
        if (line := self.entry) is None or height <= DETAIL_ROWS + 2:
            return rows
        rows += [Row(width) for _ in range(room - len(rows))]
        rows.append(Row(width).add("─" * width, view.paint.faint))
        took = "" if line.elapsed_s is None else f"  {seconds(line.elapsed_s)}"
        ended = word(line.result) or t("audit.state_asked")
        told = f"{who_of(line, whole=True)}{took}\n{spoken(line.target)}: {ended}"
        return rows + [
            Row(width).add(one, _style(view.paint, line)) for one in wrapped(told, width)[:DETAIL_ROWS]
        ]


def _style(paint: Paint, line: AuditLine) -> Style:
    if line.state == "done":
        return paint.text
    return paint.error if line.state == "failed" else paint.wait


def _further(page: AuditPage, entries: Sequence[AuditLine]) -> list[AuditLine]:
    """Of those that are there, those before all of the newest `page`; none where some lie between."""
    if not page.older or not page.lines or not any(line.at >= page.lines[-1].at for line in entries):
        return []
    return [line for line in entries if line.at < page.lines[-1].at]


def _searched(line: AuditLine) -> str:
    parts = (line.action, known(f"audit.action_{line.action}", ""), line.target, line.result, who_of(line))
    return " ".join(parts).casefold()


class AuditScreen(WindowScreen[None]):
    """Read in a thread, again with every receipt; what is older comes when one walks there."""

    panel: AuditPanel
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "close", show=False, id="quit"),
        Binding("t", "close", show=False, id="audit"),
        Binding("j,down", "walk(1)", show=False, id="down"),
        Binding("k,up", "walk(-1)", show=False, id="up"),
        Binding("g,home", "walk(-100000)", show=False, id="first"),
        Binding("G,end", "walk(100000)", show=False, id="last"),
        Binding("ctrl+d,pagedown,space", "page(1)", show=False, id="half_down"),
        Binding("ctrl+u,pageup", "page(-1)", show=False, id="half_up"),
        Binding("slash,／", "filter", show=False, id="filter"),
        Binding("enter", "open", show=False, id="open"),
        Binding("y", "copy", show=False, id="copy"),
        Binding("r", "read", show=False),
    ]

    def __init__(self) -> None:
        super().__init__(AuditPanel())
        self._asking = False
        self._receipts = -1

    def wanted_size(self, width: int, height: int) -> tuple[int, int]:
        return min(140, width - 2), min(max(14, len(self.panel.entries or ()) + DETAIL_ROWS + 4), height - 2)

    def refresh_panel(self) -> None:
        receipts = self.turbo.link.state.receipts
        if receipts != self._receipts and not self._asking:
            self._receipts = receipts
            self.action_read()
        super().refresh_panel()

    def action_read(self) -> None:
        """The newest page again."""
        self._ask(None)

    def _ask(self, before: float | None) -> None:
        if self._asking:
            return
        self._asking = True

        def came(page: AuditPage) -> None:
            panel = self.panel
            if before is None:
                rest = _further(page, panel.entries or ())
                panel.entries, older = (*page.lines, *rest), panel.older if rest else page.older
            else:
                panel.entries, older = (*(panel.entries or ()), *page.lines), page.older
            panel.older, panel.unreadable, panel.failure = older, page.unreadable, ""
            self._asked()

        def failed(error: str) -> None:
            self.panel.failure = error
            self._asked()

        self.turbo.ask(
            t("audit.reading"),
            lambda client: client.audit(limit=PAGE, before=before),
            then=came,
            failed=failed,
            quiet=True,
        )

    def _asked(self) -> None:
        self._asking = False
        self.show_late()

    def action_walk(self, by: int) -> None:
        self.panel.move(by)
        self._look_for_older()

    def action_page(self, by: int) -> None:
        self.panel.page(by)
        self._look_for_older()

    def _look_for_older(self) -> None:
        panel = self.panel
        last = panel.entries[-1] if panel.entries else None
        if last is not None and panel.older and panel.entry is last:
            self._ask(last.at)

    def action_filter(self) -> None:
        self.panel.editing = True
        self.panel.redraw()

    def action_open(self) -> None:
        entry = self.panel.entry
        if entry is not None and self.painted:
            self.turbo.push_screen(EntryScreen(entry))

    def action_copy(self) -> None:
        entry = self.panel.entry
        self.turbo.copy_text(None if entry is None else entry_text(entry))

    def action_close(self) -> None:
        if self.panel.wanted and not self.panel.editing:
            self.panel.wanted = ""
            self.panel.redraw()
        else:
            self.dismiss(None)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Letters are the filter's while it is being written."""
        return not self.panel.editing

    def on_key(self, event: KeyEvent) -> None:
        panel = self.panel
        if not panel.editing:
            return
        event.stop()
        event.prevent_default()
        if event.key in ("enter", "escape"):
            panel.editing = False
            panel.wanted = panel.wanted if event.key == "enter" else ""
        else:
            panel.wanted = edited(panel.wanted, event)
        panel.redraw()
