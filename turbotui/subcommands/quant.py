"""What the commands say of the choice between a model and its int8 sibling, and the option for it."""

from __future__ import annotations

from collections.abc import Iterable

import click

from engine.wire import QUANTS, Job, JobRuns
from turbotui.text.spoken import spoken, tr

quant_option = click.option(
    "--quant",
    type=click.Choice(QUANTS),
    default="auto",
    show_default=True,
    help="Of a model and its int8 sibling: the one named, unless only the sibling fits; or one of them.",
)


def runs_line(runs: JobRuns | None) -> Iterable[str]:
    """What runs in the place of the model that was named, where that is so."""
    if runs is None:
        return
    if runs.reason is None:
        yield tr("runs as {model}", model=runs.model)
    else:
        yield tr("runs as {model}: {reason}", model=runs.model, reason=spoken(runs.reason))


def quant_text(job: Job) -> str | None:
    """What was asked for and what runs; None where nobody asked and nothing else runs."""
    parts = [] if job.spec.quant == "auto" and job.runs is None else [job.spec.quant, *runs_line(job.runs)]
    return ", ".join(parts) or None
