"""The commands that bring a video here and put an image there, over the engine's own socket."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from turbotui.client.files import Fetched, fetch_video, put_image
from turbotui.client.http import HttpClient
from turbotui.format import bytes_text, percent
from turbotui.subcommands.output import note, say
from turbotui.subcommands.session import json_option, open_session
from turbotui.subcommands.waiting import BAR_CELLS, ProgressBar
from turbotui.text.spoken import tr


@click.command()
@click.argument("job_id", metavar="JOB", type=click.IntRange(min=1))
@click.argument("destination", metavar="[DEST]", type=Path, default=Path())
@click.option("--force", is_flag=True, help="Replace another file of that name.")
@json_option
def fetch(job_id: int, destination: Path, force: bool, json: bool) -> None:
    """Copy the video of JOB into the folder or file DEST, this folder unless given.

    With --host from that machine. One that broke off goes on where it was, by itself and in the next
    run; only a whole file with the right SHA-256 gets its name.
    """
    session = open_session(json=json)
    bar = ProgressBar(sys.stderr)
    clients: list[HttpClient] = []

    def connect() -> HttpClient:
        if clients and session.box is not None:
            return session.box.connect()
        clients.append(session.client())
        return clients[0]

    try:
        got = fetch_video(
            connect,
            job_id,
            destination,
            force=force,
            progress=lambda have, of: bar.draw(_progress_text(tr("job {id}", id=job_id), have, of)),
        )
    finally:
        bar.clear()
    session.show(
        {"path": str(got.path), "bytes": got.bytes, "sha256": got.sha256, "was_there": got.was_there},
        lambda: [_fetched_line(got)],
    )


@click.command()
@click.argument("image", metavar="IMAGE", type=Path)
@json_option
def put(image: Path, json: bool) -> None:
    """Give the engine a copy of IMAGE to begin videos with, and print its path there.

    It lies in a folder of the engine's own, at most 1 GiB of them, the oldest going first that no job
    needs. `turbotui --host BOX generate --image FILE` does this by itself.
    """
    session = open_session(json=json)
    bar = ProgressBar(sys.stderr)
    try:
        stored = put_image(
            session.client(),
            image,
            progress=lambda have, of: bar.draw(_progress_text(image.name, have, of)),
        )
    finally:
        bar.clear()
    if json:
        session.show(stored, lambda: [])
        return
    say(stored.path)
    note(f"{stored.width}x{stored.height}, {bytes_text(stored.bytes)}, sha256 {stored.sha256[:12]}")


def _fetched_line(got: Fetched) -> str:
    if got.was_there:
        return tr("{path} is there already, whole", path=got.path)
    resumed = ""
    if got.resumed_bytes:
        resumed = tr(", {size} of it from before", size=bytes_text(got.resumed_bytes))
    return f"{got.path}  {bytes_text(got.bytes)}, sha256 {got.sha256[:12]}{resumed}"


def _progress_text(name: str, have: int, of: int) -> str:
    share = have / of if of else 1.0
    full = round(share * BAR_CELLS)
    bar = "█" * full + "░" * (BAR_CELLS - full)
    return f"{name} {bar} {percent(share)}  " + tr(
        "{part} of {whole}", part=bytes_text(have), whole=bytes_text(of)
    )
