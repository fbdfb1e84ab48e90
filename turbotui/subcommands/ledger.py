"""The command that reads the memory ledger: what each action and stage held, and how the floors move."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import get_args

import click

from engine.wire import Held, LedgerKind, LedgerLine, LedgerPage, Trend
from turbotui.format import UNKNOWN, bytes_text, cell_width, clip, clock, seconds, short_bytes
from turbotui.sanitize import clean
from turbotui.sparkline import sparkline
from turbotui.subcommands.output import columns, table
from turbotui.subcommands.session import json_option, open_session
from turbotui.text.spoken import spoken, tr, word

KIB, MIB, GIB = 2**10, 2**20, 2**30
WHAT_CELLS = 30
NARROW = 100
"""Cells of a terminal in which dates and the ends of names go first."""
NARROW_WHAT_CELLS = 18
SPARK_CELLS = 40
GAP = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One column of the table."""

    head: str
    text: Callable[[LedgerLine], str]
    goes: int = 0
    """In a narrow terminal the highest go first; 0 stays."""
    right: bool = True
    to_peak: bool = False
    """Whether its cells begin with the peak."""


@click.command()
@click.option("--job", type=click.IntRange(1), metavar="N", help="Only this job and its stages.")
@click.option(
    "--kind",
    "kinds",
    type=click.Choice(get_args(LedgerKind)),
    multiple=True,
    help="Only lines of this kind; may be repeated.",
)
@click.option("--model", metavar="NAME", help="Only lines of this model.")
@click.option("--last", type=click.IntRange(1, 5000), default=40, show_default=True, help="At most so many.")
@click.option(
    "--before", type=click.IntRange(1), metavar="ID", help="Only lines before the one of this number."
)
@json_option
def ledger(
    job: int | None,
    kinds: tuple[LedgerKind, ...],
    model: str | None,
    last: int,
    before: int | None,
    json: bool,
) -> None:
    """Show what loads, unloads, switches, jobs and stages held, the newest last, and how floors move."""
    session = open_session(json=json)
    page = session.client().ledger(limit=last, before=before, job=job, kinds=kinds, model=model)
    session.show(page, lambda: ledger_lines(page))


def ledger_lines(page: LedgerPage) -> Iterable[str]:
    """The page for people: its lines in order of time, then its trends."""
    if page.problem is not None:
        yield tr("lines are not kept: {problem}", problem=page.problem)
    if not page.lines:
        yield tr("the ledger has no such line")
    else:
        if page.older:
            yield tr("more before that: --before {at}", at=page.lines[-1].id)
        shown = _shown(page.lines[::-1], columns(sys.stdout))
        to_peak = [word(column.head) for column in shown if column.to_peak]
        if to_peak:
            yield tr("{columns}: the peak → what was left", columns=", ".join(to_peak))
        rows = [[word(column.head) for column in shown]]
        rows += [[column.text(line) for column in shown] for line in page.lines[::-1]]
        right = frozenset(at for at, column in enumerate(shown) if column.right)
        # The last column would be cut, not aligned: one more that is empty.
        yield from table([[*row, ""] for row in rows], right=right)
    trends = [trend for trend in page.trends if trend.floors]
    if trends:
        yield ""
        yield from table([[_spark(trend), spoken(trend.text)] for trend in trends])


def _shown(lines: Iterable[LedgerLine], room: int | None) -> list[Column]:
    """The columns that fit into the terminal, or all."""
    lines = list(lines)
    shown = list(NARROW_COLUMNS if room is not None and room < NARROW else COLUMNS)
    while room is not None and any(column.goes for column in shown):
        cells = {column: [column.text(line) for line in lines] for column in shown}
        widths = (
            max(cell_width(clean(text)) for text in (word(column.head), *texts))
            for column, texts in cells.items()
        )
        if sum(widths) + GAP * len(shown) <= room:
            break
        # One that says nothing, as the device's where there is none, before any that does.
        empty = {column for column, texts in cells.items() if set(texts) == {UNKNOWN}}
        shown.remove(max(shown, key=lambda column: (column.goes > 0, column in empty, column.goes)))
    return shown


def _spark(trend: Trend) -> str:
    return ("! " if trend.grows else "  ") + sparkline(trend.floors, SPARK_CELLS)


def _when(line: LedgerLine) -> str:
    return time.strftime("%m-%d %H:%M:%S", time.localtime(line.at))


def _short_what(line: LedgerLine) -> str:
    return clip(_what(line), NARROW_WHAT_CELLS)


def _what(line: LedgerLine) -> str:
    mark = "" if line.ok else f" {word('failed')}"
    if line.kind == "job":
        named = spoken(line.target)
        return clip(f"{named}{mark} {line.model or ''}".rstrip(), WHAT_CELLS)
    if line.kind == "stage":
        stage, _, component = line.target.partition(" ")
        return clip("  " + " ".join(part for part in (word(stage), component) if part) + mark, WHAT_CELLS)
    return clip(f"{word(line.kind)}{mark} {spoken(line.target)}", WHAT_CELLS)


def _course(held: Held) -> str:
    """`2.6→9.1→2.6`, the peak left out where it is not known."""
    parts = [held.before, held.after] if held.peak is None else [held.before, held.peak, held.after]
    return UNKNOWN if set(parts) == {None} else "→".join(map(_short, parts))


def _short(count: int | None) -> str:
    """As `short_bytes`, and below a GiB in MiB: what a small model's stages differ in."""
    if count is not None and MIB <= abs(count) < GIB:
        return f"{count / MIB:.0f}M"
    return short_bytes(count)


def _after(name: str) -> Callable[[LedgerLine], str]:
    def text(line: LedgerLine) -> str:
        held: Held = getattr(line, name)
        return bytes_text(held.after)

    return text


def _to_peak(name: str) -> Callable[[LedgerLine], str]:
    """`9.1→2.6`: what it reached, and what was left."""

    def text(line: LedgerLine) -> str:
        held: Held = getattr(line, name)
        if held.peak is None:
            return UNKNOWN if held.after is None else _short(held.after)
        return f"{_short(held.peak)}→{_short(held.after)}"

    return text


def _change(line: LedgerLine) -> str:
    """Of a job what it left, of any other line the floor; in few cells."""
    floor, before = line.floor_bytes, line.floor_before_bytes
    if line.kind == "load" or floor is None:
        return UNKNOWN
    job = line.kind == "job" and before is not None
    change = floor - (before or 0) if job else floor
    text = bytes_text(change) if abs(change) < KIB else _short(change)
    return f"+{text}" if job and change >= 0 else text


def _floor(line: LedgerLine) -> str:
    floor, before = line.floor_bytes, line.floor_before_bytes
    if line.kind == "load":
        return UNKNOWN  # others may compute beside it, and what they hold is in use
    if line.kind != "job" or floor is None or before is None:
        return bytes_text(floor)
    change = floor - before
    return f"{bytes_text(floor)} {'+' if change >= 0 else ''}{bytes_text(change)}"


COLUMNS = (
    Column(head="when", text=_when, right=False),
    Column(head="what", text=_what, right=False),
    Column(head="took", text=lambda line: seconds(line.elapsed_s)),
    Column(head="allocated", text=lambda line: _course(line.allocated)),
    Column(head="reserved", text=_after("reserved"), goes=3),
    Column(head="device", text=_to_peak("device"), goes=1, to_peak=True),
    Column(head="host", text=_to_peak("rss"), goes=2, to_peak=True),
    Column(head="pinned", text=_after("pinned"), goes=4),
    Column(head="floor", text=_floor),
)
NARROW_COLUMNS = (
    Column(head="when", text=lambda line: clock(line.at), right=False),
    Column(head="what", text=_short_what, right=False),
    COLUMNS[2],
    Column(head="allocated", text=_to_peak("allocated"), to_peak=True),
    *COLUMNS[4:-1],
    Column(head="floor", text=_change),
)
