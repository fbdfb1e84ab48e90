"""The command that makes a model of released checkpoints, where they lie or copied."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import msgspec

from engine.errors import InvalidRequest, ModelUnusable, NotNow, StorageUnusable, WorkFailed
from engine.paths import find_paths
from engine.wire import Imported, ImportPart, ImportPlan, ImportProgress, ImportWaits
from turbotui.format import bytes_text, percent, seconds
from turbotui.subcommands.output import note, print_json_line, say, table, titles
from turbotui.subcommands.session import json_option
from turbotui.text.spoken import spoken, tr

Event = ImportPlan | ImportWaits | ImportProgress | Imported
_KINDS: dict[str, type[Event]] = {
    "plan": ImportPlan,
    "waiting": ImportWaits,
    "progress": ImportProgress,
    "done": Imported,
}


class _Tag(msgspec.Struct, frozen=True):
    event: str


class _Refusal(msgspec.Struct, frozen=True):
    code: str
    message: str


@click.command("import")
@click.argument("paths", metavar="PATH...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--name", help="What the model is called; by default as the DiT's file is.")
@click.option("--high", metavar="PATH", type=click.Path(path_type=Path), help="The high-noise expert's file.")
@click.option("--low", metavar="PATH", type=click.Path(path_type=Path), help="The low-noise expert's file.")
@click.option("--copy", is_flag=True, help="Write the weights anew as aligned safetensors.")
@click.option(
    "--dtype",
    type=click.Choice(("bf16", "stored")),
    default="bf16",
    show_default=True,
    help="In which weights are kept: bf16 as the reference computes, or as the files have them.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be made of what.")
@click.option("--replace", is_flag=True, help="Make a model anew that was imported before.")
@click.option("--force", is_flag=True, help="Believe --high and --low against the files' names.")
@click.option("--undistilled", is_flag=True, help="Take a DiT that is not distilled, too.")
@json_option
def import_(
    paths: tuple[Path, ...],
    name: str | None,
    high: Path | None,
    low: Path | None,
    json: bool,
    dtype: str,
    **flags: bool,
) -> None:
    """Make a model of released checkpoints: TurboWan, Wan2.1_VAE.pth, umT5, or diffusers repositories.

    In place by default: the model is a table that points into the files, which stay where they are. What
    is not given is taken from beside it or from a model here; the tokenizer also from the hub's cache.

    A copy that Ctrl-C ended goes on where it stopped when it is asked for again. With --json: the plan, the
    progress and the model, a line of JSON each.
    """
    if not paths and high is None and low is None:
        raise InvalidRequest("give the files or folders to import")
    options = [*(["--name", name] if name else []), "--dtype", dtype]
    options += ["--high", str(high.absolute())] if high else []
    options += ["--low", str(low.absolute())] if low else []
    options += [f"--{flag.replace('_', '-')}" for flag, given in flags.items() if given]
    # Absolute: the child has another folder, and a file may be called as an option is.
    given = [str(path.absolute()) for path in paths]
    try:
        _tell(_run(find_paths().models, [*given, *options]), json=json)
    except KeyboardInterrupt:
        if flags["copy"]:
            note(tr("what is whole of the copy stays; the same command goes on from there"))
        raise


def _tell(events: Iterator[Event], *, json: bool) -> None:
    """Print what the importer says, as it says it."""
    told = 0
    for event in events:
        if json:
            print_json_line(event)
        elif isinstance(event, ImportPlan):
            for line in _plan_lines(event):
                say(line)
        elif isinstance(event, ImportWaits):
            note(tr("another import is under way; waiting for its end"))
        elif isinstance(event, ImportProgress):
            done = 100 * event.done_bytes // max(1, event.total_bytes)
            if done != told:
                share = percent(event.done_bytes / max(1, event.total_bytes))
                note(tr("{component}: {share} of {size} written", component=event.component, share=share,
                        size=bytes_text(event.total_bytes)))  # fmt: skip
            told = done
        else:
            took = seconds(event.seconds)
            say(tr("{name} is ready, after {took}: turbotui switch {name}", name=event.name, took=took))


def _plan_lines(plan: ImportPlan) -> Iterable[str]:
    rows = [titles("PART", "FROM", "SIZE", "WHAT IT IS")]
    rows += [[part.name, _source(part), bytes_text(part.bytes), spoken(part.title)] for part in plan.parts]
    yield tr("{name} ({kind}) will be {path}", name=plan.name, kind=plan.kind, path=plan.path)
    yield from table(rows, right=frozenset({2}))
    if plan.copy:
        yield tr("{size} will be written; {free} are free", size=bytes_text(plan.written_bytes),
                 free=bytes_text(plan.free_bytes))  # fmt: skip
    else:
        yield tr("the files are used where they lie: leave them there")
    for remark in plan.notes:
        yield spoken(remark)


def _source(part: ImportPart) -> str:
    if part.of_model is not None:
        return tr("of {model}", model=part.of_model)
    return part.path if part.files == 1 else tr("{count} files of {path}", count=part.files, path=part.path)


def _run(models: Path, arguments: list[str]) -> Iterator[Event]:
    """Import in a process of its own, since the engine's reader is none of the console's; what it says.

    Raises:
        EngineError: it refused or failed, in its own words.
    """
    try:
        models.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageUnusable(f"{models} cannot be made: {error.strerror}") from error
    command = [sys.executable, "-P", "-m", "engine.models.importing", str(models), *arguments]
    # A file and not a pipe: nobody reads it before the end.
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints:
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints, cwd=models
        ) as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    kind = _KINDS[msgspec.json.decode(line, type=_Tag).event]
                    yield msgspec.json.decode(line, type=kind)
            except BaseException:
                # At Ctrl-C it got the signal as well; what of a copy is whole stays for the next time.
                process.terminate()
                raise
        if process.returncode == 0:
            return
        complaints.seek(0)
        words = complaints.read().strip().splitlines()
    raise _error(words, process.returncode)


def _error(words: list[str], code: int) -> Exception:
    """What the importer refused with: its last line names the kind of error and says it."""
    last = words[-1] if words else f"the importer ended with exit code {code}"
    try:
        refusal = msgspec.json.decode(last, type=_Refusal)
    except (msgspec.MsgspecError, ValueError):
        return WorkFailed(last)
    for kind in (InvalidRequest, ModelUnusable, NotNow, StorageUnusable):
        if kind.code == refusal.code:
            return kind(refusal.message)
    return WorkFailed(refusal.message)
