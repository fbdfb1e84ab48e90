"""Owns how the commands tell a receipt: its promise and its proof in one line, its steps below."""

from __future__ import annotations

from collections.abc import Iterable

import click

from engine.errors import WorkFailed, from_code
from engine.wire import Receipt
from turbotui.format import bytes_text, seconds
from turbotui.subcommands.output import note, table
from turbotui.subcommands.session import Session
from turbotui.text.spoken import spoken, tr, word

PROOFS = {
    "nvml-process": "by NVML",
    "device-delta": "by the device's total",
    "allocator": "by the allocator",
    "process-rss": "by the worker's memory",
    "page-cache": "by the page cache",
    "process-exit": "by the end of the process",
}


def show_receipt(session: Session, receipt: Receipt, *, exit_code: int | None = None) -> None:
    """Print `receipt`; one that is not ok ends the command: with 4 if it was refused, 5 if it failed.

    `exit_code` is that of a receipt that is not ok where the caller knows better.
    """
    session.show(receipt, lambda: receipt_lines(receipt))
    if not receipt.ok:
        text = spoken(receipt.error or "") or tr(
            "{action} {target} failed", action=word(receipt.action), target=spoken(receipt.target)
        )
        note(text)
        code = from_code(receipt.error_code or WorkFailed.code, text).exit_code
        raise click.exceptions.Exit(code if exit_code is None else exit_code)


def receipt_lines(receipt: Receipt) -> Iterable[str]:
    """The whole of it. A single step is the action itself and not worth a line."""
    yield _receipt_line(receipt)
    if len(receipt.steps) > 1:
        rows = [
            [word(step.name), "" if step.bytes is None else bytes_text(step.bytes), seconds(step.elapsed_s)]
            for step in receipt.steps
        ]
        yield from (f"  {line}" for line in table(rows, right=frozenset({1})))
    yield from (f"  {spoken(note)}" for note in receipt.notes)


def _receipt_line(receipt: Receipt) -> str:
    parts = [f"{word(receipt.action.replace('_', '-'))} {spoken(receipt.target)}".strip()]
    proof = tr(PROOFS.get(receipt.proof, "by {proof}"), proof=receipt.proof)
    gives_back = bool(receipt.expected_bytes or receipt.returned_bytes)
    if gives_back:
        parts.append(tr("expected {expected_bytes}", expected_bytes=bytes_text(receipt.expected_bytes)))
        parts.append(
            tr(
                "back {returned_bytes} {proof}",
                returned_bytes=bytes_text(receipt.returned_bytes),
                proof=proof,
            )
        )
    if receipt.residue_bytes:
        names = f" ({', '.join(map(spoken, receipt.residue))})" if receipt.residue else ""
        parts.append(
            tr("residue {residue_bytes}{names}", residue_bytes=bytes_text(receipt.residue_bytes), names=names)
        )
    elif receipt.within_bytes:
        parts.append(tr("residue 0 ±{within_bytes}", within_bytes=bytes_text(receipt.within_bytes)))
    if receipt.loaded_bytes and receipt.action == "warm":
        parts.append(
            tr(
                "warm {loaded_bytes}{value}",
                loaded_bytes=bytes_text(receipt.loaded_bytes),
                value="" if gives_back else f" {proof}",
            )
        )
    elif receipt.loaded_bytes:
        parts.append(tr("loaded {loaded_bytes}", loaded_bytes=bytes_text(receipt.loaded_bytes)))
    parts.append(seconds(receipt.elapsed_s))
    if receipt.proof_reason:
        parts.append(f"({spoken(receipt.proof_reason)})")
    return "  ".join(parts)
