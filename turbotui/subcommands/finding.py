"""`turbotui models scan`: what of models lies on this host's disks, and what imports it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

import click

from engine.errors import WorkFailed
from engine.paths import find_paths
from engine.wire import FoundModel, FoundPart, ModelScan, ScanNews
from turbotui.format import bytes_text, clip_middle
from turbotui.subcommands.children import news_of
from turbotui.subcommands.output import print_json, say, table, titles
from turbotui.subcommands.session import json_option
from turbotui.subcommands.waiting import ProgressBar
from turbotui.text.spoken import counted, spoken, tr, word

FINDER = "engine.models.finding.run"


@click.command("scan")
@click.argument("paths", metavar="[PATH...]", nargs=-1, type=click.Path(path_type=Path))
@json_option
def scan(paths: tuple[Path, ...], json: bool) -> None:
    """Look for models on this host: hub caches, TurboDiffusion and ComfyUI folders, disks, and each PATH.

    Tells what each find is by its tensors, and the command that imports what belongs together. Reads no
    weights and changes nothing.
    """
    found = look(paths)
    if json:
        print_json(found)
    else:
        for line in _lines(found):
            say(line)


def look(paths: Iterable[Path]) -> ModelScan:
    """Have the disks looked through, with a line of progress on a terminal.

    Raises:
        WorkFailed: the process that looks ended without an answer.
    """
    bar = ProgressBar(sys.stderr)
    given = [str(path.absolute()) for path in paths]
    arguments = ["--cwd", os.getcwd(), str(find_paths().models), *given]
    try:
        for news in news_of(FINDER, arguments, ScanNews):
            if news.scan is not None:
                return news.scan
            if news.progress is not None and sys.stderr.isatty():
                folders = counted(news.progress.num_folders, "folder")
                bar.draw(f"{folders}  {clip_middle(news.progress.place, 60)}")
    finally:
        bar.clear()
    raise WorkFailed("the look for models ended without an answer")


def _lines(scan: ModelScan) -> Iterable[str]:
    if scan.parts:
        rows = [titles("VERDICT", "SIZE", "WHAT", "WHERE")]
        rows += [[word(part.verdict), bytes_text(part.bytes), part.title, part.path] for part in scan.parts]
        yield from table(rows, right=frozenset({1}))
        yield ""
        yield from _whys(scan.parts)
    for model in scan.models:
        yield from _model_lines(model)
    if not scan.models:
        yield tr("nothing here makes a model; `turbotui models get` lists what can be fetched")
    if scan.others:
        yield tr("{files} of other nets not listed", files=counted(scan.others, "weight file"))
    yield from (spoken(sentence) for sentence in scan.skipped)


def _whys(parts: Iterable[FoundPart]) -> Iterable[str]:
    """The sentence of each that is not simply usable."""
    for part in parts:
        if part.verdict != "usable":
            yield f"{Path(part.path).name}: {spoken(part.sentence)}"


def _model_lines(model: FoundModel) -> Iterable[str]:
    about = f"{model.name}  {model.kind}  {bytes_text(model.bytes)}"
    if model.imported:
        yield tr("{model}: imported already", model=about)
    elif model.missing:
        yield tr("{model}: cannot be imported yet", model=about)
        yield from (f"  {spoken(sentence)}" for sentence in model.missing)
    else:
        yield tr("{model}: import it with", model=about)
        yield f"  {model.command}"
    if not model.imported:
        yield from (f"  {spoken(sentence)}" for sentence in model.notes)
