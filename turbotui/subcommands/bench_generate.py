"""The benchmark of whole videos as a command: each stage beside its target and plain diffusers."""

from __future__ import annotations

import shlex
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from engine.paths import find_paths
from turbotui.format import pad
from turbotui.subcommands.output import note, print_json, say
from turbotui.subcommands.session import demo_option, json_option, open_session
from turbotui.text.spoken import tr

if TYPE_CHECKING:
    from turbotui.bench.generate_rows import Case

MISSED_EXIT = 5
MARKS = {True: "ok  ", False: "MISS", None: "    "}
TITLE_CELLS = 22
ATTENTIONS = ("dense", "sla", "sagesla")


@click.command("generate")
@json_option
@demo_option
@click.option("--models", type=click.Path(path_type=Path), help="Where the models lie.")
@click.option("--model", "-m", "names", multiple=True, help="A random one is made if need be.")
@click.option("--resolution", multiple=True, help="A name in the model's table, such as 480p.")
@click.option("--attention", type=click.Choice(ATTENTIONS), multiple=True, help="By default the model's own.")
@click.option("--sla-topk", type=float, help="The share of key blocks that each query block attends to.")
@click.option("--quant", help="How the linear layers compute, as a job is asked.")
@click.option("--aspect-ratio", help="Such as 16:9.")
@click.option("--frames", type=int, help="4n + 1.")
@click.option("--steps", type=int, help="Denoising steps, 1 to 4.")
@click.option("--runs", type=click.IntRange(min=1), default=3, show_default=True, help="Jobs that count.")
@click.option("--baseline", is_flag=True, help="Measure plain diffusers beside it, run by run.")
@click.option("--room", metavar="SIZE", help="Leave the engine so much of the GPU, such as 24564MiB.")
@click.option("--out", type=click.Path(path_type=Path), help="Put the table into this file as Markdown.")
def generate(
    json: bool,
    demo: bool,
    models: Path | None,
    names: tuple[str, ...],
    resolution: tuple[str, ...],
    attention: tuple[str, ...],
    sla_topk: float | None,
    quant: str | None,
    aspect_ratio: str | None,
    frames: int | None,
    steps: int | None,
    runs: int,
    baseline: bool,
    room: str | None,
    out: Path | None,
) -> int:
    """Measure what a video takes: text, DiT, VAE, file, from prompt to mp4, and the most memory.

    With an engine in a folder of its own. Each job that counts has a new prompt; none is the first.
    Makes the models of `turbotui models make-random` where they are missing, or with --demo small ones.
    """
    # Nothing of it belongs to a start of the CLI.
    from turbotui.bench.ballast import read_room
    from turbotui.bench.generate import DEMO_MODELS, MODELS, Options, measure_generate
    from turbotui.bench.generate_rows import markdown
    from turbotui.bench.rows import write_file

    demo = open_session(json=json, demo=demo).demo
    options = Options(
        models=models if demo or models is not None else find_paths().models,
        names=names or (DEMO_MODELS if demo else MODELS),
        resolutions=resolution or (None,),
        attentions=attention or (None,),
        sla_topk=sla_topk,
        quant=quant,
        aspect_ratio=aspect_ratio,
        frames=frames,
        steps=steps,
        runs=runs,
        baseline=baseline,
        demo=demo,
        room_bytes=None if room is None else read_room(room),
    )
    # The usual end of a command that took too long would leave an engine behind.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    command = f"turbotui {shlex.join(sys.argv[1:])}"
    cases: list[Case] = []
    if out is not None:
        write_file(out, b"")  # a file that cannot be written is better known now than in an hour
    for case in measure_generate(options, say=note):
        cases.append(case)
        if out is not None:
            write_file(out, markdown(cases, command).encode())
        if not json:
            _show(case)
    if json:
        print_json([{**asdict(case), "ok": case.ok} for case in cases])
    return 0 if all(case.ok for case in cases) else MISSED_EXIT


def _show(case: Case) -> None:
    from turbotui.bench.generate_rows import text_of

    say(case.label)
    if case.problem:
        return
    names = (tr("median"), tr("worst"), tr("target"), tr("usual way"))
    say(f"     {'':<{TITLE_CELLS}}" + "".join(pad(name, 11, "right") for name in names))
    for one in case.figures:
        values = (one.value, one.worst, one.target, one.baseline)
        cells = "".join(pad(text_of(value, one.unit), 11, "right") for value in values)
        say(f"{MARKS[one.ok]} {pad(one.title, TITLE_CELLS)}{cells}" + (f"  {one.note}" if one.note else ""))
    if case.baseline_note:
        say(f"     {case.baseline_note}")
