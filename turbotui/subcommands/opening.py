"""The commands that open things: a job's video, the folder of videos, and the console."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import click

from engine.errors import NotNow
from engine.paths import find_paths
from turbotui import garbage
from turbotui.client.launch import find_engine
from turbotui.opening import OPENER, copy_command, has_display, output_of, start_opener, video_of
from turbotui.subcommands.output import note, say, say_path
from turbotui.subcommands.session import (
    demo_option,
    find_meant,
    json_option,
    open_session,
    read_only_option,
)
from turbotui.text.spoken import spoken, tr


@click.command("open")
@click.argument("job_id", metavar="[JOB]", type=click.IntRange(min=1), required=False)
@click.option("--print", "only_print", is_flag=True, help="Print where it is, and open nothing.")
@json_option
def open_(job_id: int | None, only_print: bool, json: bool) -> None:
    """Open the video of JOB, or without one the folder of videos; over SSH print how to fetch it."""
    session = open_session(json=json)
    client = session.client()
    if session.box is not None:
        far = client.status().engine.output_dir if job_id is None else output_of(client.job(job_id))
        there = session.box.scp(far)
        fetch = session.box.copy_command(far, folder=job_id is None)
        session.show({"path": there, "copy": fetch}, lambda: [there, fetch])
        return
    if job_id is None:
        path = Path(client.status().engine.output_dir)
    else:
        path = video_of(client.job(job_id))
    if json:
        session.show(
            {"path": str(path), "copy": copy_command(path, os.environ, folder=job_id is None)}, lambda: []
        )
        return
    say_path(path)
    if not only_print and has_display(os.environ) and (opener := shutil.which(OPENER)):
        _open(opener, path)
    elif command := copy_command(path, os.environ, folder=job_id is None):
        say(command)


@click.command()
@demo_option
@read_only_option
@click.pass_context
def view(context: click.Context, demo: bool, read_only: bool) -> None:
    """Attach the console to the engine that runs, and say which one that is."""
    before = context.find_root().params
    read_only = read_only or bool(before.get("read_only"))
    paths = find_paths()
    target = find_meant()
    holder = find_engine(paths) if target is None else None
    if target is not None:
        note(tr("attaches to the engine of {host}", host=target.host))
    elif holder is None and read_only:
        note(tr("no engine runs; the console only looks and waits for one"))
    elif holder is None:
        note(tr("no engine runs; the console starts one"))
    else:
        note(
            tr(
                "attaches to engine {build}, pid {pid}, socket {socket}",
                build=holder.build,
                pid=holder.pid,
                socket=holder.socket,
            )
        )
    garbage.hold()
    from turbotui.console import open_console

    if code := open_console(demo=demo or bool(before.get("demo")), target=target, read_only=read_only):
        raise click.exceptions.Exit(code)


def _open(opener: str, path: Path) -> None:
    try:
        start_opener(opener, path)
    except NotNow as problem:  # where it is was said already
        note(spoken(str(problem)))
