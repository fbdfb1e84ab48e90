"""The process that looks for models; says what it does as JSON, a line each.

python -P -m engine.models.finding.run MODELS [PATH...] [--cwd DIR] [--parent PID]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from engine.models.finding.look import Look, look_through
from engine.models.finding.match import match_models, told_parts
from engine.models.finding.places import Place, find_places
from engine.models.model import printable
from engine.tether import tether
from engine.wire import ModelScan, ScanNews, ScanProgress

EVERY_S = 0.2
"""Between two lines of progress."""


def scan(
    places: Iterable[Place], models: Path, on_folder: Callable[[Path, Look], None] = lambda folder, look: None
) -> ModelScan:
    """What lies in `places` and could become models in the folder `models`."""
    began = time.monotonic()
    look = look_through(places, own=models, on_folder=on_folder)
    made = match_models(look.found, models)
    return ModelScan(
        at=time.time(),
        elapsed_s=time.monotonic() - began,
        models=made,
        parts=told_parts(look.found, made),
        places=tuple(dict.fromkeys(printable(path) for path in look.places)),
        others=look.others,
        skipped=tuple(printable(sentence) for sentence in look.skipped),
    )


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -P -m engine.models.finding.run", description=__doc__)
    parser.add_argument("models", type=Path)
    parser.add_argument("paths", type=Path, nargs="*")
    parser.add_argument("--cwd", type=Path)  # the person's, which is not this process's
    parser.add_argument("--parent", type=int)  # it ends when that process does
    given = parser.parse_args(arguments)
    if given.parent is not None:
        tether(given.parent, "tt-finder")
    last = 0.0

    def told(folder: Path, look: Look) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY_S:
            last = time.monotonic()
            progress = ScanProgress(
                place=printable(folder), num_folders=look.num_folders, num_parts=len(look.found)
            )
            _say(ScanNews(progress=progress))

    places = find_places(tuple(given.paths), os.environ, cwd=given.cwd or Path.cwd())
    try:
        _say(ScanNews(scan=scan(places, given.models, told)))
    except KeyboardInterrupt:
        return 130
    return 0


def _say(news: ScanNews) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(news) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
