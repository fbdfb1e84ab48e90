"""Imports a model in a process of its own; what it says are lines of JSON (engine.wire.importing).

python -P -m engine.models.importing MODELS PATH... [--name NAME] [--high PATH] [--low PATH]
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

import msgspec

from engine.errors import EngineError, StorageUnusable
from engine.models.importing.make import check_name, check_room, describe, make
from engine.models.importing.plan import Request, make_plan
from engine.models.model import printable
from engine.wire import ErrorBody, Imported, ImportWaits


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -P -m engine.models.importing", description=__doc__)
    parser.add_argument("models", type=Path)
    parser.add_argument("paths", type=Path, nargs="*")
    for name in ("high", "low"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--name")
    parser.add_argument("--dtype", choices=("bf16", "stored"), default="bf16")
    for flag in ("copy", "force", "undistilled", "replace", "dry-run"):
        parser.add_argument(f"--{flag}", action="store_true")
    given = parser.parse_args(arguments)
    # Whatever is under way ends as at Ctrl-C: hidden folders go, a copy stays to be finished.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    request = Request(
        paths=tuple(given.paths),
        high=given.high,
        low=given.low,
        name=given.name,
        copy=given.copy,
        kept=given.dtype,
        force=given.force,
        undistilled=given.undistilled,
    )
    began = time.monotonic()
    try:
        given.models.mkdir(parents=True, exist_ok=True)
        plan = make_plan(given.models, request)
        if not given.dry_run:  # of what is refused for its name nothing is told
            check_name(given.models, plan, replace=given.replace)
        _say(describe(given.models, plan))
        check_room(given.models, plan, replace=given.replace)
        if not given.dry_run:
            root = make(
                given.models,
                plan,
                replace=given.replace,
                progress=_say,
                on_wait=lambda: _say(ImportWaits()),
            )
            _say(Imported(name=plan.name, path=str(root), seconds=round(time.monotonic() - began, 3)))
    except EngineError as error:
        return _refuse(error)
    except OSError as error:
        return _refuse(StorageUnusable(f"the import into {given.models} failed: {error}"))
    except KeyboardInterrupt:
        return 130
    return 0


def _refuse(error: EngineError) -> int:
    body = ErrorBody(code=error.code, message=printable(error.args[0] if error.args else ""))
    sys.stderr.write(msgspec.json.encode(body).decode("utf-8") + "\n")
    return error.exit_code


def _say(event: object) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(event) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
