"""Owns the page of a receipt: what was promised, what was proved, its steps, and what else was found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from turbotui.format import bytes_text, seconds
from turbotui.screens.reader import PagePanel, PageScreen
from turbotui.text import t
from turbotui.text.spoken import spoken, word
from turbotui.widgets.bottom import action_text, proof_text, residue_text
from turbotui.widgets.lines import Row, View, wrapped
from turbotui.widgets.log import when

if TYPE_CHECKING:
    from engine.wire import Receipt, ReceiptStep

NAME_CELLS = 14
BYTES_CELLS = 12
SECONDS_CELLS = 10


def step_row(view: View, step: ReceiptStep, width: int) -> Row:
    """A step with its bytes, and its seconds at the right edge; one under way says of how many bytes."""
    paint = view.paint
    under_way = step.total_bytes is not None
    row = Row(width).add("▸ " if under_way else "✓ ", paint.wait if under_way else paint.text)
    row.field(word(step.name), max(0, width - 2 - 2 * BYTES_CELLS - SECONDS_CELLS), paint.text)
    size = "" if step.bytes is None else bytes_text(step.bytes)
    total = "" if step.total_bytes is None else f" / {bytes_text(step.total_bytes)}"
    row.field(size, BYTES_CELLS, paint.text, right=True).field(total, BYTES_CELLS, paint.muted)
    return row.field(seconds(step.elapsed_s), SECONDS_CELLS, paint.muted, right=True)


def receipt_rows(view: View, receipt: Receipt, width: int) -> list[Row]:
    """The whole of it."""
    paint = view.paint
    rows: list[Row] = []

    def put(name: str, value: str, *, warn: bool = False) -> None:
        for place, line in enumerate(wrapped(value, max(1, width - NAME_CELLS))):
            row = Row(width).field(t(f"receipt.{name}") if place == 0 else "", NAME_CELLS, paint.muted)
            rows.append(row.add(line, paint.wait if warn else paint.text))

    if receipt.error:
        put("failed", spoken(receipt.error), warn=True)
    if receipt.expected_bytes or receipt.returned_bytes:
        put("expected", bytes_text(receipt.expected_bytes))
        proof = t("receipt.by", proof=proof_text(receipt))
        put("back", f"{bytes_text(receipt.returned_bytes)} {proof}")
        left = receipt.residue_bytes
        names = f" ({', '.join(map(spoken, receipt.residue))})" if receipt.residue and left else ""
        put("residue", residue_text(receipt) + names, warn=bool(left))
    if receipt.loaded_bytes:
        put("warm" if receipt.action == "warm" else "loaded", bytes_text(receipt.loaded_bytes))
    if receipt.proof_reason:
        put("proof", spoken(receipt.proof_reason))
    put("took", seconds(receipt.elapsed_s))
    if receipt.steps:
        rows += [Row(width), *(step_row(view, step, width) for step in receipt.steps)]
    if receipt.notes:
        rows += [Row(width), Row(width).add(t("receipt.notes"), paint.focus_title)]
        rows += [
            Row(width).add(line, paint.text)
            for note in receipt.notes
            for line in wrapped(spoken(note), width)
        ]
    return rows


def receipt_title(receipt: Receipt) -> str:
    """Whether it went well, and what was done to whom."""
    return f"{'✓' if receipt.ok else '!'} {action_text(receipt)} {spoken(receipt.target)}".rstrip()


class ReceiptPanel(PagePanel):
    """One receipt."""

    def __init__(self, receipt: Receipt) -> None:
        super().__init__(id="receipt_page")
        self._receipt = receipt

    def inputs(self, view: View) -> tuple[object, ...]:
        return (self.top,)

    def title(self, view: View) -> str:
        receipt = self._receipt
        return receipt_title(receipt) + (f"  {when(receipt.at, view.wall)}" if receipt.at else "")

    def page(self, view: View, width: int) -> list[Row]:
        return receipt_rows(view, self._receipt, width)


class ReceiptScreen(PageScreen):
    """A receipt in full."""

    def __init__(self, receipt: Receipt) -> None:
        super().__init__(ReceiptPanel(receipt))
