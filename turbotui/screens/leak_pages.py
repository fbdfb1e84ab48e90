"""Owns the pages of the screen of leaks: all of one verdict, and what came back of a remedy's promise."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding

from turbotui.format import bytes_text
from turbotui.screens.reader import PagePanel, PageScreen
from turbotui.screens.receipt import receipt_rows
from turbotui.text import t
from turbotui.text.spoken import spoken
from turbotui.widgets.leak_rows import only_looks, remedy_rows, said_style, verdict_rows
from turbotui.widgets.lines import Row, View, safe, wrapped

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.binding import BindingType

    from engine.wire import RemedyResult, Verdict

FACT_CELLS = 14


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
        text = result_text(self._result)
        sign = f"{text[0]} " if text[0] in "✓!" else ""
        return sign + t(f"leaks.action_{self._result.remedy.action}")

    def page(self, view: View, width: int) -> list[Row]:
        paint, result = view.paint, self._result
        text = result_text(result)
        rows = [Row(width).add(line, said_style(paint, text)) for line in wrapped(text, width)]
        rows.append(Row(width))
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
            t("leaks.key_remedy") if remedy is not None and not only_looks(view) else "",
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
    acting = frozenset({"remedy"})
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
