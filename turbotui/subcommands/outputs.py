"""The commands about finished videos on disk: list them, and delete old ones after showing which."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable

import click

from engine.errors import InvalidRequest
from engine.wire import OutputList, PruneRequest, PruneResult
from turbotui.format import bytes_text, seconds
from turbotui.subcommands.output import note, table, titles
from turbotui.subcommands.session import json_option, open_session
from turbotui.text.spoken import counted, spoken, tr, word

UNITS = {"m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


class Age(click.ParamType[float]):
    """`30d`, `12h`, `90m` or `2w`, in seconds."""

    name = "age"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        if found := re.fullmatch(r"(\d+(?:\.\d+)?)([mhdw])", str(value)):
            return float(found[1]) * UNITS[found[2]]
        self.fail(tr("{value} is no age; write it as 30d, 12h, 90m or 2w", value=repr(value)), param, ctx)


@click.command("list")
@json_option
def list_outputs(json: bool) -> None:
    """List the videos that this engine made, oldest first, with what unfinished ones have left."""
    session = open_session(json=json)
    outputs = session.client().outputs()
    session.show(outputs, lambda: _list_lines(outputs))


@click.command()
@click.option("--keep", type=Age(), required=True, metavar="AGE", help="Keep what is younger: 30d, 12h, 2w.")
@click.option("--delete", is_flag=True, help="Delete them; without it they are only listed.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask; needed where there is no terminal to ask on.")
@json_option
def prune(keep: float, delete: bool, yes: bool, json: bool) -> None:
    """List the videos older than AGE, and with --delete delete them after asking.

    Only ever videos that a manifest of this engine names, their manifests, and what writers that have
    ended left of unfinished ones.
    """
    session = open_session(json=json)
    client = session.client()
    before = time.time() - keep
    found = client.prune_outputs(PruneRequest(before=before))
    if not delete or not (found.videos or found.parts):
        session.show(found, lambda: _prune_lines(found))
        return
    if not yes and not sys.stdin.isatty():
        raise InvalidRequest("prune --delete deletes videos and there is no terminal to ask on; add --yes")
    for line in _prune_lines(found):
        note(line)
    if not yes:
        click.confirm(tr("Delete them for good?"), abort=True, err=True)
    result = client.prune_outputs(PruneRequest(before=before, delete=True))
    session.show(result, lambda: _deleted_lines(result))
    if result.problems:
        raise click.exceptions.Exit(5)


def _list_lines(outputs: OutputList) -> Iterable[str]:
    rows = [
        [str(video.job_id), _age(video.at), bytes_text(video.bytes), video.model, video.path]
        for video in outputs.videos
    ]
    rows += [
        ["-", _age(part.at), bytes_text(part.bytes), word("unfinished"), part.path] for part in outputs.parts
    ]
    if rows:
        heading = titles("job", "age", "size", "model", "file")
        yield from table([heading, *rows], right=frozenset({0, 1, 2}))
    total = sum(video.bytes for video in outputs.videos) + sum(part.bytes for part in outputs.parts)
    beside = tr("; {others} other files there are not ours", others=outputs.others) if outputs.others else ""
    folders = ", ".join(outputs.folders)
    videos = counted(len(outputs.videos), "video")
    yield tr(
        "{videos}, {size} in {folders}{beside}",
        videos=videos,
        size=bytes_text(total),
        folders=folders,
        beside=beside,
    )


def _prune_lines(found: PruneResult) -> Iterable[str]:
    for video in found.videos:
        yield tr(
            "{at} old, {size}: {path} and its manifest",
            at=_age(video.at),
            size=bytes_text(video.bytes),
            path=video.path,
        )
    for part in found.parts:
        yield tr(
            "{at} old, {size}, unfinished: {path}",
            at=_age(part.at),
            size=bytes_text(part.bytes),
            path=part.path,
        )
    count = f"{_count(found)}, {bytes_text(found.bytes)}"
    yield tr("would go: {count}", count=count) if found.videos or found.parts else tr("nothing is older")


def _count(found: PruneResult) -> str:
    return tr(
        "{videos} and {parts}",
        videos=counted(len(found.videos), "video"),
        parts=counted(len(found.parts), "leftover"),
    )


def _deleted_lines(result: PruneResult) -> Iterable[str]:
    yield from map(spoken, result.problems)
    yield tr("deleted {result}, {size}", result=_count(result), size=bytes_text(result.bytes))


def _age(at: float) -> str:
    return seconds(max(0.0, time.time() - at))
