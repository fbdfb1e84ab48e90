"""The benchmarks as commands: figures beside what they must reach, measured on this host."""

from __future__ import annotations

import click

from turbotui.subcommands.output import print_json, say
from turbotui.subcommands.session import json_option


@click.command("start")
@json_option
def start(json: bool) -> int:
    """Measure engine start, first picture, status and the demo job, in a folder of their own."""
    from turbotui.bench.start import measure_start  # nothing of it belongs to a start of the CLI

    rows = []
    for row in measure_start():
        rows.append(row)
        if not json:
            value = "could not be measured" if row.value is None else f"{row.value:.3g} {row.unit}".strip()
            limit = "" if row.limit is None else f"  (at most {row.limit:g})"
            mark = {True: "ok  ", False: "MISS", None: "    "}[row.reached]
            say(f"{mark} {row.name}: {value}{limit}")
    if json:
        print_json(rows)
    return 0 if all(row.reached is not False for row in rows) else 5
