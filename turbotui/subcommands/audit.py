"""The command that reads the audit log: who had what ended, reset, moved or deleted."""

from __future__ import annotations

import time
from collections.abc import Iterable

import click

from engine.wire import AuditLine, AuditPage
from turbotui.format import UNKNOWN, bytes_text, seconds
from turbotui.subcommands.output import table
from turbotui.subcommands.session import json_option, open_session
from turbotui.text.spoken import spoken, tr, word


@click.command()
@click.option("--limit", type=click.IntRange(1, 5000), default=50, show_default=True, help="At most so many.")
@click.option(
    "--before",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="Only what was asked before this epoch time.",
)
@json_option
def audit(limit: int, before: float | None, json: bool) -> None:
    """Show who had what killed, reset, cleaned up or deleted, the newest first, and how it ended."""
    session = open_session(json=json)
    page = session.client().audit(limit=limit, before=before)
    session.show(page, lambda: _lines(page))


def _lines(page: AuditPage) -> Iterable[str]:
    if not page.lines:
        yield tr("nothing is on record")
    yield from table([_row(line) for line in page.lines])
    if page.older:
        yield tr("more before that: --before {at}", at=repr(page.lines[-1].at))
    if page.unreadable:
        yield tr("lines that cannot be read: {unreadable}", unreadable=page.unreadable)


def _row(line: AuditLine) -> list[str]:
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(line.at))
    who = word("engine") if line.pid is None else f"{line.user or line.uid} pid {line.pid}"
    asked = " ".join(part for part in (who, line.terminal, line.program) if part)
    size = UNKNOWN if line.bytes is None else bytes_text(line.bytes)
    return [
        at,
        word(line.action),
        word(line.state),
        size,
        seconds(line.elapsed_s),
        asked,
        f"{spoken(line.target)}: {word(line.result)}",
    ]
