"""The commands that open things: a job's video, the folder of videos, and the console."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

import click

from engine.errors import NotFound, NotNow
from engine.paths import find_paths, user_name
from engine.wire import Job
from turbotui.client.launch import find_engine
from turbotui.subcommands.output import note, say, say_path
from turbotui.subcommands.session import demo_option, json_option, open_session

OPENER = "xdg-open"


@click.command("open")
@click.argument("job_id", metavar="[JOB]", type=click.IntRange(min=1), required=False)
@click.option("--print", "only_print", is_flag=True, help="Print where it is, and open nothing.")
@json_option
def open_(job_id: int | None, only_print: bool, json: bool) -> None:
    """Open the video of JOB, or without one the folder of videos; over SSH print how to fetch it."""
    session = open_session(json=json)
    client = session.client()
    if job_id is None:
        path = Path(client.status().engine.output_dir)
    else:
        path = _video_of(client.job(job_id))
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
@click.pass_context
def view(context: click.Context, demo: bool) -> None:
    """Attach the console to the engine that runs, and say which one that is."""
    paths = find_paths()
    holder = find_engine(paths)
    if holder is None:
        note("no engine runs; the console starts one")
    else:
        note(f"attaches to engine {holder.build}, pid {holder.pid}, socket {holder.socket}")
    from turbotui.console import open_console

    root = bool(context.find_root().params.get("demo"))
    if code := open_console(demo=demo or root):
        raise click.exceptions.Exit(code)


def _video_of(job: Job) -> Path:
    if job.status != "done" or not job.output:
        raise NotNow(
            f"job {job.id} has no video: it is {job.status}; `turbotui job show {job.id}` tells more"
        )
    path = Path(job.output)
    if not path.is_file():
        raise NotFound(f"the video of job {job.id} is not at {path} any more: it was moved or deleted")
    return path


def has_display(environ: Mapping[str, str]) -> bool:
    """Whether something opened here would be seen by the person: never so over SSH."""
    remote = environ.get("SSH_CONNECTION") or environ.get("SSH_TTY")
    return not remote and bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))


def copy_command(path: Path, environ: Mapping[str, str], *, folder: bool) -> str | None:
    """What fetches `path` to the machine that a person came from over SSH; None where nobody did."""
    fields = environ.get("SSH_CONNECTION", "").split()
    if len(fields) != 4:
        return None
    # The address that the person's own ssh reached: our name may mean nothing over there.
    host, port = fields[2], fields[3]
    host = f"[{host}]" if ":" in host else host
    named = f"{user_name()}@{host}:{path}"
    whole = "-r " if folder else ""
    on = "" if port == "22" else f"-P {port} "
    return (
        f"scp {whole}{on}{shlex.quote(named)} .    # on your own machine; here it is {socket.gethostname()}"
    )


def _open(opener: str, path: Path) -> None:
    try:
        subprocess.Popen(
            [opener, str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        note(f"{opener} cannot be run: {error.strerror}")
