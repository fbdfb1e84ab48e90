"""The process that lists, plans and fetches released models; says what it does as JSON, a line each.

python -P -m engine.models.getting.run list|plan|fetch MODELS [NAME] [--parent PID]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from engine.errors import EngineError, StorageUnusable
from engine.models.folders import TOKENIZER
from engine.models.getting.cache import CachedRepository, find_cache
from engine.models.getting.download import fetch_file
from engine.models.getting.hub import Hub
from engine.models.getting.plan import Errand, check_plan, list_released, plan_get
from engine.models.getting.released import find_released
from engine.tether import tether
from engine.wire import ErrorBody, GetNews, GetProgress

EVERY_S = 0.2
"""Between two lines of progress."""
CHUNK_BYTES = 8 * 2**20
"""Of what has come and was not told yet; huggingface_hub writes 10 MiB at a time."""


def fetch(errand: Errand, hub: Hub, on_progress: Callable[[GetProgress], None]) -> tuple[str, ...]:
    """Fetch what is missing of a plan, the smallest files first; where it lies: what `turbotui import` takes.

    Raises:
        EngineError: as `fetch_file`, or what the plan's problem is.
    """
    plan = errand.plan
    check_plan(plan)
    began, last, told_bytes = time.monotonic(), 0.0, 0
    total = sum(file.bytes or 0 for file in plan.files)
    have = {(file.repository, file.path): file.have_bytes for file in plan.files}
    places = {(file.repository, file.path): file.local for file in plan.files}
    # A token or a disk that will not do shows within seconds, and not after the first 28 GB.
    for file in sorted(plan.files, key=lambda one: one.bytes or 0):
        key = (file.repository, file.path)
        if places[key] is not None and not errand.repositories:
            continue

        def told(count: int, checking: bool, key: tuple[str, str] = key, name: str = file.path) -> None:
            nonlocal last, told_bytes
            have[key] = count
            now = time.monotonic()
            # A whole chunk is told in any case: where the Hub stalls behind it, nothing else would.
            if now - last >= EVERY_S or sum(have.values()) - told_bytes >= CHUNK_BYTES:
                last, told_bytes = now, sum(have.values())
                on_progress(
                    GetProgress(
                        file=name,
                        bytes=sum(have.values()),
                        total_bytes=total,
                        elapsed_s=now - began,
                        checking=checking,
                    )
                )

        repository = errand.repositories[file.repository]
        remote = repository.files[file.path]
        cached = CachedRepository.of(Path(plan.folder), file.repository)
        places[key] = str(fetch_file(hub, repository, file.path, remote, cached, told))
    on_progress(GetProgress(file="", bytes=total, total_bytes=total, elapsed_s=time.monotonic() - began))
    found: dict[str, None] = {}
    for file in plan.files:
        if (place := places[file.repository, file.path]) is not None:
            # A tokenizer is a folder of files.
            found[str(Path(place).parent) if file.role == TOKENIZER else place] = None
    return tuple(found)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -P -m engine.models.getting.run", description=__doc__)
    parser.add_argument("verb", choices=("list", "plan", "fetch"))
    parser.add_argument("models", type=Path)
    parser.add_argument("name", nargs="?", default="")
    parser.add_argument("--parent", type=int)  # it ends when that process does
    given = parser.parse_args(arguments)
    if given.parent is not None:
        tether(given.parent, "tt-getter")
    try:
        _answer(given.verb, given.models, given.name)
    except EngineError as error:
        _say(GetNews(error=ErrorBody(code=error.code, message=str(error))))
        return error.exit_code
    except OSError as error:
        message = f"the hub's cache cannot be used: {error}; set HF_HOME to a folder that can be written"
        _say(GetNews(error=ErrorBody(code=StorageUnusable.code, message=message)))
        return StorageUnusable.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def _answer(verb: str, models: Path, name: str) -> None:
    cache = find_cache(os.environ)
    if verb == "list":
        _say(GetNews(models=list_released(cache, models)))
        return
    model = find_released(name)
    _be_quiet()
    hub = Hub()
    errand = plan_get(model, cache, hub)
    _say(GetNews(plan=errand.plan))
    if verb == "fetch":
        _say(GetNews(fetched=fetch(errand, hub, lambda progress: _say(GetNews(progress=progress)))))


def _be_quiet() -> None:
    """Its bars and warnings are for a terminal of its own; what matters is said here, and to nobody else."""
    for name, value in (
        ("HF_HUB_DISABLE_TELEMETRY", "1"),
        ("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
        ("HF_HUB_VERBOSITY", "error"),
    ):
        os.environ[name] = value  # read as it is imported


def _say(news: GetNews) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(news) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
