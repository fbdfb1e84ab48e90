"""The commands that look at models, make one to measure with, and give their memory back."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import click

from engine.errors import InvalidRequest, StorageUnusable, WorkFailed
from engine.paths import find_paths
from engine.wire import ComponentStatus, ModelStatus, UnloadRequest
from turbotui.format import bytes_text
from turbotui.subcommands.finding import scan
from turbotui.subcommands.getting import get
from turbotui.subcommands.output import say, table, titles
from turbotui.subcommands.receipts import show_receipt
from turbotui.subcommands.session import JsonGroup, demo_option, json_option, open_session
from turbotui.subcommands.targets import split_target
from turbotui.text.spoken import spoken, tr, word

RANDOM_SIZES = ("wan2.1-t2v-1.3b", "wan2.1-t2v-14b", "wan2.2-i2v-a14b")
"""As the engine's maker knows them, which the CLI cannot import: it needs torch."""


@click.group("models", cls=JsonGroup, invoke_without_command=True)
@json_option
@demo_option
@click.pass_context
def models_group(context: click.Context, json: bool, demo: bool) -> None:
    """List the models on this host and what of them is loaded, or make one."""
    if context.invoked_subcommand is not None:
        return
    session = open_session(json=json, demo=demo)
    models = [model for model in session.client().models() if model.demo or not session.demo]
    session.show(models, lambda: _model_lines(models))


@models_group.command("make-random")
@click.argument("name", type=click.Choice(RANDOM_SIZES))
@click.option("--dtype", type=click.Choice(("bf16", "int8")), default="bf16", show_default=True)
@click.option("--layers", type=click.IntRange(min=1), help="Leave out the deeper layers.")
def make_random(name: str, dtype: str, layers: int | None) -> None:
    """Make a model of a released one's size with random weights, to measure without a download.

    It is called NAME-random, or NAME-random-int8, and takes the released one's room on disk.
    """
    options = ["--dtype", dtype, *(["--layers", str(layers)] if layers is not None else [])]
    _run_maker(find_paths().models, [name, *options])


models_group.add_command(scan)
models_group.add_command(get)


def _run_maker(models: Path, arguments: list[str]) -> None:
    """Run the maker in a process of its own, since it needs torch, and pass on what it says.

    Raises:
        StorageUnusable, InvalidRequest, WorkFailed: it refused or failed, in its own words.
    """
    try:
        models.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageUnusable(f"{models} cannot be made: {error.strerror}") from error
    command = [sys.executable, "-P", "-m", "engine.models.random_models", str(models), *arguments]
    # A file and not a pipe: nobody reads it before the end.
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            cwd=models,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                say(spoken(line.rstrip()))
            code = process.wait()
        except BaseException:
            # At Ctrl-C it got the signal as well, and takes away what it began.
            process.terminate()
            process.wait()
            raise
        if code == 0:
            return
        complaints.seek(0)
        words = complaints.read().strip().splitlines()
    kind = {StorageUnusable.exit_code: StorageUnusable, InvalidRequest.exit_code: InvalidRequest}
    raise kind.get(code, WorkFailed)(words[-1] if words else f"the maker ended with exit code {code}")


@click.command()
@click.argument("target", metavar="[MODEL[/COMPONENT]]", default="")
@json_option
@demo_option
def unload(target: str, json: bool, demo: bool) -> None:
    """Give back the memory of a component, a model, or all of them."""
    session = open_session(json=json, demo=demo)
    model, component = split_target(target)
    request = UnloadRequest(model=model, component=component)
    show_receipt(session, session.client().unload(request))


@click.command()
@json_option
@demo_option
def free(json: bool, demo: bool) -> None:
    """Give back the allocator's cache and idle components, also while a job runs."""
    session = open_session(json=json, demo=demo)
    show_receipt(session, session.client().free())


def _model_lines(models: list[ModelStatus]) -> Iterable[str]:
    if not models:
        return [
            tr("no models; `turbotui models scan` looks for some on this host"),
            tr("`turbotui models get` lists what can be fetched"),
            tr("`turbotui models --demo` makes three small ones to try"),
        ]
    rows = [titles("", "MODEL", "KIND", "DTYPE", "SIZE", "ON THE DEVICE")]
    for model in models:
        where = spoken(model.problem or "") or ", ".join(map(_component_text, model.components))
        if model.no_jobs is not None:
            where += tr("; not distilled: it takes no jobs")
        mark = "!" if model.problem else "*" if model.active else ""
        rows.append([mark, model.name, model.kind, model.dtype, bytes_text(model.bytes), where])
    return table(rows, right=frozenset({4}))


def _component_text(component: ComponentStatus) -> str:
    state = "leased" if component.leased else {"absent": "-"}.get(component.state, component.state)
    return f"{component.name} {word(state)}"
