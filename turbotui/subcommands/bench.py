"""The benchmarks as commands: figures beside what they must reach, measured on this host."""

from __future__ import annotations

import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from engine.errors import InvalidRequest
from engine.paths import find_paths
from turbotui.format import bytes_text, pad, seconds
from turbotui.subcommands.output import note, print_json, say
from turbotui.subcommands.session import demo_option, json_option, open_session
from turbotui.text.spoken import listed, tr

if TYPE_CHECKING:
    from collections.abc import Iterable

    from turbotui.bench.balance import Figure
    from turbotui.bench.rows import Row
    from turbotui.bench.start import Measured

MISSED_EXIT = 5
MARKS = {True: "ok  ", False: "MISS", None: "    "}


@click.command("start")
@json_option
def start(json: bool) -> int:
    """Measure engine start, first picture, status and the demo job, in a folder of their own."""
    from turbotui.bench.start import measure_start  # nothing of it belongs to a start of the CLI

    return _tell(measure_start(), json=json)


@click.command("console")
@json_option
@click.option("--quick", is_flag=True, help="Short stretches, few keys, half a minute of soak.")
@click.option("--engine/--no-engine", default=True, help="Over a demo engine, too.", show_default=True)
@click.option("--soak/--no-soak", default=True, help="An hour of traffic at ten times.", show_default=True)
def console(json: bool, quick: bool, engine: bool, soak: bool) -> int:
    """Measure what the console costs: first picture, core, bytes to the terminal, memory, key to screen.

    Over scripted traffic and a demo engine in a folder of its own, in terminals of its own.
    """
    from turbotui.bench.console import Options, measure_console  # nothing of it belongs to a start of the CLI

    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    return _tell(measure_console(Options(quick=quick, engine=engine, soak=soak)), json=json)


def _tell(found: Iterable[Measured], *, json: bool) -> int:
    """Each figure as soon as it is known, or all at the end as JSON; the exit code."""
    rows = []
    for row in found:
        rows.append(row)
        if not json:
            value = (
                tr("could not be measured") if row.value is None else f"{row.value:.3g} {row.unit}".strip()
            )
            limit = "" if row.limit is None else tr("  (at most {limit:g})", limit=row.limit)
            note = f"  {row.note}" if row.note else ""
            say(f"{MARKS[row.reached]} {row.name}: {value}{limit}{note}")
    if json:
        print_json(rows)
    return 0 if all(row.reached is not False for row in rows) else MISSED_EXIT


@click.command("switch")
@json_option
@demo_option
@click.option("--baseline", is_flag=True, help="Measure plain diffusers beside it, run by run.")
@click.option("--baseline-runs", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--cycles", type=click.IntRange(min=1), default=5, show_default=True, help="Runs of each row.")
@click.option("--quick", is_flag=True, help="One run of each row and ten random switches.")
@click.option("--models", type=click.Path(path_type=Path), help="Where the random models lie.")
@click.option("--dtype", type=click.Choice(("bf16", "int8")), default="bf16", show_default=True)
@click.option("--only", multiple=True, metavar="ROW", help="A row or group of rows; may be repeated.")
@click.option("--out", type=click.Path(path_type=Path), help="Put the rows into this file as well, by name.")
def switch(
    json: bool,
    demo: bool,
    baseline: bool,
    baseline_runs: int,
    cycles: int,
    quick: bool,
    models: Path | None,
    dtype: str,
    only: tuple[str, ...],
    out: Path | None,
) -> int:
    """Measure what switching models costs and leaves behind, with an engine in a folder of its own.

    Uses the models of `turbotui models make-random`, or with --demo small ones that it makes itself.
    """
    # Nothing of it belongs to a start of the CLI.
    from turbotui.bench.rows import merged, read_rows, write_rows
    from turbotui.bench.switch import Options, measure_switch

    demo = open_session(json=json, demo=demo).demo
    if demo and dtype != "bf16":
        raise InvalidRequest("the demo models are bf16; leave --dtype out with --demo")
    options = Options(
        models=models if demo or models is not None else find_paths().models,
        demo=demo,
        dtype="int8" if dtype == "int8" else "bf16",
        cycles=cycles,
        quick=quick,
        only=only,
        baseline_runs=min(baseline_runs, cycles if not quick else 1) if baseline else 0,
    )
    # The usual end of a command that took too long would leave an engine behind.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    earlier = [] if out is None else read_rows(out)
    if out is not None:
        write_rows(out, earlier)  # a file that cannot be written is better known now than in an hour
    rows: list[Row] = []
    if not json:
        say(header_line())
    for row in measure_switch(options, say=note):
        rows.append(row)
        if out is not None:
            write_rows(out, merged(earlier, rows))
        if not json:
            say(row_line(row))
            if row.note:
                say(f"       {row.note}")
    if json:
        print_json(merged([], rows))
    return MISSED_EXIT if any(row.ok is False for row in rows) else 0


@click.command("balance")
@json_option
@demo_option
@click.option("--model", "-m", help="Whose jobs run; needs --models where it is none of your own.")
@click.option("--models", type=click.Path(path_type=Path), help="Where the models lie.")
@click.option(
    "--samples",
    type=click.IntRange(min=2),
    default=10_000,
    show_default=True,
    help="Half of them at rest, half while a job denoises.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=1, max=1700),
    default=300.0,
    show_default=True,
    help="Each half ends after so long.",
)
@click.option(
    "--hz",
    type=click.FloatRange(min=1, max=500),
    default=100.0,
    show_default=True,
    help="Readings a second while samples are taken; ten are usual.",
)
def balance(
    json: bool, demo: bool, model: str | None, models: Path | None, samples: int, seconds: float, hz: float
) -> int:
    """Measure whether the parts of the device's memory add up, and what looking at it costs.

    With an engine in a folder of its own. Uses the model named by --model, or with --demo a small one.
    """
    from turbotui.bench.balance import Options, measure_balance  # nothing of it belongs to a start of the CLI

    demo = open_session(json=json, demo=demo).demo
    if demo == (model is not None):
        raise InvalidRequest("name a model by --model, or take --demo for a small one")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    options = Options(
        demo=demo,
        models=models if demo or models is not None else find_paths().models,
        model=model,
        samples=samples,
        seconds=seconds,
        hz=hz,
    )
    found = []
    for figure in measure_balance(options):
        found.append(figure)
        if not json:
            say(figure_line(figure))
            if figure.note:
                say(f"       {figure.note}")
    if json:
        print_json([{**asdict(figure), "ok": figure.ok} for figure in found])
    return MISSED_EXIT if any(figure.ok is False for figure in found) else 0


def figure_line(figure: Figure) -> str:
    """A figure with its aim."""

    def text(value: float | None) -> str:
        if value is None:
            return tr("not known")
        return bytes_text(round(value)) if figure.unit == "B" else f"{value:.5g}"

    aims = [(tr("at least"), figure.at_least), (tr("at most"), figure.at_most)]
    aim = listed(f"{name} {text(value)}" for name, value in aims if value is not None)
    return f"{MARKS[figure.ok]} {figure.title}: {text(figure.value)}" + (f"  ({aim})" if aim else "")


def row_line(row: Row) -> str:
    """A row as a line of the table."""
    cells = [_figure(row, figure) for figure in (row.value, row.worst, row.target, row.baseline)]
    return f"{MARKS[row.ok]} {pad(row.title, TITLE_CELLS)}" + "".join(
        pad(cell, 11, "right") for cell in cells
    )


def _figure(row: Row, value: float | None) -> str:
    if value is None:
        return "-"
    if row.unit == "s":
        return seconds(value) if value < 0.0995 else f"{value:.3g} s"
    if row.unit == "B":
        return bytes_text(round(value))
    return f"{value:.3g} {row.unit}".strip()


TITLE_CELLS = 62


def header_line() -> str:
    """The heads of its columns."""
    names = (tr("median"), tr("worst"), tr("target"), tr("usual way"))
    return f"     {'':<{TITLE_CELLS}}" + "".join(pad(name, 11, "right") for name in names)
