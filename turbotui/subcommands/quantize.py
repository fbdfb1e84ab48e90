"""The command that makes the int8 sibling of a model, in a process of its own, since that needs torch."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import click
import msgspec

from engine.errors import StorageUnusable, WorkFailed, from_code
from engine.wire import ErrorBody, Quantised, QuantisePlan, QuantiseProgress
from turbotui.draft import whole_path
from turbotui.format import bytes_text, percent, seconds
from turbotui.subcommands.output import note, say, table, titles
from turbotui.subcommands.session import INTERRUPTED_EXIT, Session, json_option, open_session
from turbotui.subcommands.waiting import ProgressBar
from turbotui.text.spoken import counted, spoken, tr

SAID_EVERY_S = 5.0
"""Between two lines of progress where no bar can be drawn."""
LEAST_SHARE = 0.02
"""Of the work, before its rate says how long the rest takes."""


class Line(msgspec.Struct, frozen=True):
    """One line of the maker: exactly one of these."""

    plan: QuantisePlan | None = None
    progress: QuantiseProgress | None = None
    done: Quantised | None = None
    error: ErrorBody | None = None


@click.command()
@click.argument("model")
@click.option("--name", help="What the new model is called; by default MODEL-int8.")
@click.option("--out", metavar="DIR", help="Write it there, on another disk, and only link to it.")
@click.option("--dry-run", is_flag=True, help="Only tell what it would take.")
@json_option
def quantize(model: str, name: str | None, out: str | None, dry_run: bool, json: bool) -> None:
    """Make the int8 sibling of MODEL: half its weights' memory, and jobs take it where bf16 does not fit.

    Uses the processor alone and no device memory. Stopped by Ctrl-C it goes on from there when it is
    started again; nobody sees the new model before it is whole.
    """
    session = open_session(json=json)
    models = session.paths.models
    options = [*(["--name", name] if name is not None else []), *(["--dry-run"] if dry_run else [])]
    if out is not None:
        options += ["--out", whole_path(out)]
    run = _Run(session, dry_run=dry_run)
    try:
        with _maker(models, [*options, "--", str(models), model]) as lines:
            for line in lines:
                run.heard(line)
    except KeyboardInterrupt:
        run.bar.clear()
        note(tr("what is written is kept; the same command goes on from there"))
        raise click.exceptions.Exit(INTERRUPTED_EXIT) from None
    finally:
        run.bar.clear()


class _Run:
    """Tells what is heard, as it comes."""

    def __init__(self, session: Session, *, dry_run: bool) -> None:
        self.bar = ProgressBar(sys.stderr)
        self._session = session
        self._dry_run = dry_run
        self._said_at = 0.0

    def heard(self, line: Line) -> None:
        """Raises what the maker refused or failed with."""
        if line.error is not None:
            raise from_code(line.error.code, line.error.message)
        if line.plan is not None:
            self._planned(line.plan)
        elif line.progress is not None:
            self._goes(line.progress)
        elif line.done is not None:
            done = line.done
            self.bar.clear()
            self._session.show(done, lambda: _done_lines(done))

    def _planned(self, plan: QuantisePlan) -> None:
        if self._dry_run:
            self._session.show(plan, lambda: _plan_lines(plan))
            return
        for line in _plan_lines(plan):
            (note if self._session.json else say)(line)

    def _goes(self, progress: QuantiseProgress) -> None:
        text = progress_text(progress)
        if sys.stderr.isatty():
            self.bar.draw(text)
        elif progress.elapsed_s - self._said_at >= SAID_EVERY_S:
            self._said_at = progress.elapsed_s
            note(text)


def progress_text(progress: QuantiseProgress) -> str:
    """`transformer/...: 3.2 GiB of 13.5 GiB, 24 %, 25 s left`."""
    share = progress.done_bytes / progress.bytes if progress.bytes else 0.0
    parts = [
        tr(
            "{file}: {done_bytes} of {bytes}, {share}",
            file=progress.file,
            done_bytes=bytes_text(progress.done_bytes),
            bytes=bytes_text(progress.bytes),
            share=percent(share),
        )
    ]
    if progress.stage == "check":
        parts.append(tr("reading it back"))
    elif share >= LEAST_SHARE:
        parts.append(tr("{eta_s} left", eta_s=seconds(progress.elapsed_s * (1 - share) / share)))
    return "  ".join(parts)


def _plan_lines(plan: QuantisePlan) -> Iterable[str]:
    yield tr(
        "{name}: {layers} of {model} become int8; its DiT weights shrink from {source_bytes} to {bytes}",
        name=plan.name,
        layers=counted(plan.layers, "linear layer"),
        model=plan.model,
        source_bytes=bytes_text(plan.source_bytes),
        bytes=bytes_text(plan.bytes),
    )
    yield tr(
        "to write: {left} to {path}, where {free_bytes} are free",
        left=bytes_text(plan.bytes - plan.kept_bytes),
        path=plan.path,
        free_bytes=bytes_text(plan.free_bytes),
    )
    if plan.kept_bytes:
        yield tr("an earlier run left {kept_bytes}, which are kept", kept_bytes=bytes_text(plan.kept_bytes))


def _done_lines(done: Quantised) -> Iterable[str]:
    yield tr(
        "{name} is ready: {bytes} written in {elapsed_s}, read back and found right",
        name=done.name,
        bytes=bytes_text(done.bytes),
        elapsed_s=seconds(done.elapsed_s),
    )
    rows = [titles("LAYER", "OFF BY")]
    rows += [[error.layer, f"{100 * error.relative_l2:.2f} %"] for error in done.errors]
    yield from table(rows, right=frozenset({1}))
    if done.remark:
        yield spoken(done.remark)
    yield tr("`turbotui generate --model {model} --quant int8` uses it", model=done.model)


@contextmanager
def _maker(models: Path, arguments: list[str]) -> Iterator[Iterator[Line]]:
    """What the maker says, line by line; it has ended at the end.

    Raises:
        StorageUnusable: there is no folder of models, and none can be made.
        WorkFailed: it ended without a word.
    """
    try:
        models.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageUnusable(f"{models} cannot be made: {error.strerror}") from error
    command = [sys.executable, "-P", "-m", "engine.models.quantising", *arguments]
    # A file and not a pipe: nobody reads it before the end.
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints, cwd=models
        ) as process,
    ):
        assert process.stdout is not None
        try:
            yield _lines(process.stdout)
            code = process.wait()
        except BaseException:
            # At Ctrl-C it got the signal as well; what it has written whole stays.
            process.terminate()
            raise
        if code:
            complaints.seek(0)
            words = complaints.read().strip().splitlines()
            raise WorkFailed(words[-1] if words else f"the maker ended with exit code {code}")


def _lines(stream: IO[bytes]) -> Iterator[Line]:
    for raw in stream:
        yield msgspec.json.decode(raw, type=Line)
