"""`turbotui models get`: fetches a released model into the hub's cache and imports it from there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable

import click

from engine.errors import InvalidRequest, WorkFailed, from_code
from engine.paths import find_paths
from engine.wire import FileToGet, GetNews, GetPlan, GetProgress, ReleasedModel
from turbotui.format import bytes_text, seconds
from turbotui.subcommands.children import news_of
from turbotui.subcommands.output import note, print_json, print_json_line, say, table, titles
from turbotui.subcommands.session import json_option
from turbotui.subcommands.waiting import ProgressBar
from turbotui.text import language
from turbotui.text.spoken import tr, word

GETTER = "engine.models.getting.run"


@click.command("get")
@click.argument("name", required=False, default="")
@click.option("--yes", is_flag=True, help="Fetch it without asking.")
@click.option("--no-import", "no_import", is_flag=True, help="Only fetch it into the hub's cache.")
@json_option
def get(name: str, yes: bool, no_import: bool, json: bool) -> None:
    """Fetch a released model from the Hub and import it in place; without NAME list those there are.

    Tells size and licence and asks first. Goes on where it broke off, and keeps only what has the right
    digest. Honours HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE; where the Hub cannot be reached it
    prints the commands for a machine that can. With --json and without --yes it only tells the plan; with
    both, what was fetched and then what `turbotui import --json` says, a line of JSON each.
    """
    models = str(find_paths().models)
    if not name:
        _list(models, json=json)
        return
    plan = next((news.plan for news in news_of(GETTER, ["plan", models, name], GetNews) if news.plan), None)
    if plan is None:
        raise WorkFailed("the fetching process ended without a plan")
    if json and not yes:
        print_json(plan)
        return
    for line in plan_lines(plan):
        note(line)
    if plan.problem is not None:
        for command in (*plan.elsewhere, *plan.here):
            say(command)
        raise from_code(plan.problem.code, plan.problem.message)
    if not yes:
        if not sys.stdin.isatty():
            raise InvalidRequest("models get fetches gigabytes and there is no terminal to ask on; add --yes")
        click.confirm(tr("Fetch it?"), abort=True, err=True)
    fetched = _fetch(models, plan)
    if json:
        print_json_line(GetNews(plan=plan, fetched=fetched))
    words = ["import", *fetched, "--lang", "zh" if language() == "zh_CN" else "en"]
    words += ["--json"] if json else []
    if no_import:
        note(tr("it lies in {folder}; import it with `turbotui models scan`'s command", folder=plan.folder))
    elif code := subprocess.run([sys.executable, "-P", "-m", "turbotui", *words]).returncode:
        raise click.exceptions.Exit(code)


def _list(models: str, *, json: bool) -> None:
    for news in news_of(GETTER, ["list", models], GetNews):
        if news.models is not None:
            if json:
                print_json(news.models)
            else:
                for line in _list_lines(news.models):
                    say(line)


def _list_lines(models: Iterable[ReleasedModel]) -> Iterable[str]:
    rows = [titles("NAME", "KIND", "DTYPE", "SIZE", "HERE")]
    shared = 0
    for model in models:
        shared = model.shared_bytes
        dtype = "int8" if model.int8 else "bf16"
        rows.append([model.name, model.kind, dtype, bytes_text(model.about_bytes), word(model.presence)])
    yield from table(rows, right=frozenset({3}))
    yield tr(
        "sizes by the shapes of the nets, with {shared} of encoder and VAE that all of them share",
        shared=bytes_text(shared),
    )


def plan_lines(plan: GetPlan) -> Iterable[str]:
    """What would be fetched, under which licences, and where to."""
    yield tr("{name} from {endpoint}", name=plan.name, endpoint=plan.endpoint)
    rows = [[f"  {file.role}", _size(file), file.path, _here(file)] for file in plan.files]
    yield from table(rows, right=frozenset({1}))
    for licence in plan.licences:
        if licence.name is not None:
            yield tr("licence of {repository}: {name}", repository=licence.repository, name=licence.name)
        elif plan.missing_bytes:
            yield tr(
                "licence of {repository}: its card names none; look at {page}",
                repository=licence.repository,
                page=f"{plan.endpoint}/{licence.repository}",
            )
    if plan.missing_bytes == 0:
        yield tr("all of it lies in {folder} already", folder=plan.folder)
    elif plan.missing_bytes is not None:
        yield tr(
            "{missing} to fetch into {folder}, whose disk has {free} free",
            missing=bytes_text(plan.missing_bytes),
            folder=plan.folder,
            free=bytes_text(plan.free_bytes),
        )


def _size(file: FileToGet) -> str:
    return bytes_text(file.bytes)


def _here(file: FileToGet) -> str:
    if file.local is not None:
        return tr("here already")
    return tr("{bytes} of it here", bytes=bytes_text(file.have_bytes)) if file.have_bytes else ""


def _fetch(models: str, plan: GetPlan) -> tuple[str, ...]:
    bar, first = ProgressBar(sys.stderr), None
    try:
        for news in news_of(GETTER, ["fetch", models, plan.name], GetNews):
            if news.progress is not None and sys.stderr.isatty():
                first = first or news.progress
                bar.draw(progress_text(news.progress, first))
            if news.fetched is not None:
                return news.fetched
    except KeyboardInterrupt:
        bar.clear()
        note(tr("what came stays; the same command goes on from there"))
        raise click.exceptions.Exit(130) from None
    finally:
        bar.clear()
    raise WorkFailed("the fetching process ended before all was there")


def progress_text(now: GetProgress, first: GetProgress) -> str:
    """How much of the model is here, how fast it comes, how long that takes yet, and which file it is."""
    parts = [tr("{part} of {whole}", part=bytes_text(now.bytes), whole=bytes_text(now.total_bytes))]
    elapsed, came = now.elapsed_s - first.elapsed_s, now.bytes - first.bytes
    if now.checking:
        parts.append(tr("reading what is here already"))
    elif elapsed > 0.5 and came > 0:
        rate = came / elapsed
        parts.append(f"{bytes_text(round(rate))}/s")
        parts.append(tr("{eta_s} left", eta_s=seconds((now.total_bytes - now.bytes) / rate)))
    return "  ".join((*parts, now.file))
