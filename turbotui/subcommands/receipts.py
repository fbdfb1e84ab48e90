"""Owns how the commands tell a receipt: its promise and its proof in one line, its steps below."""

from __future__ import annotations

from collections.abc import Iterable

import click

from engine.errors import WorkFailed, from_code
from engine.wire import Receipt
from turbotui.format import bytes_text, seconds
from turbotui.subcommands.output import note, table
from turbotui.subcommands.session import Session

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
        text = receipt.error or f"{receipt.action} {receipt.target} failed"
        note(text)
        code = from_code(receipt.error_code or WorkFailed.code, text).exit_code
        raise click.exceptions.Exit(code if exit_code is None else exit_code)


def receipt_lines(receipt: Receipt) -> Iterable[str]:
    """The whole of it. A single step is the action itself and not worth a line."""
    yield _receipt_line(receipt)
    if len(receipt.steps) > 1:
        rows = [
            [step.name, "" if step.bytes is None else bytes_text(step.bytes), seconds(step.elapsed_s)]
            for step in receipt.steps
        ]
        yield from (f"  {line}" for line in table(rows, right=frozenset({1})))
    yield from (f"  {note}" for note in receipt.notes)


def _receipt_line(receipt: Receipt) -> str:
    parts = [f"{receipt.action.replace('_', '-')} {receipt.target}".strip()]
    proof = PROOFS.get(receipt.proof, f"by {receipt.proof}")
    gives_back = bool(receipt.expected_bytes or receipt.returned_bytes)
    if gives_back:
        parts.append(f"expected {bytes_text(receipt.expected_bytes)}")
        parts.append(f"back {bytes_text(receipt.returned_bytes)} {proof}")
    if receipt.residue_bytes:
        names = f" ({', '.join(receipt.residue)})" if receipt.residue else ""
        parts.append(f"residue {bytes_text(receipt.residue_bytes)}{names}")
    if receipt.loaded_bytes and receipt.action == "warm":
        parts.append(f"warm {bytes_text(receipt.loaded_bytes)}{'' if gives_back else f' {proof}'}")
    elif receipt.loaded_bytes:
        parts.append(f"loaded {bytes_text(receipt.loaded_bytes)}")
    parts.append(seconds(receipt.elapsed_s))
    if receipt.proof_reason:
        parts.append(f"({receipt.proof_reason})")
    return "  ".join(parts)
