"""Owns how a finished video is brought before the person: opened here, or fetched to where they sit."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import NotFound, NotNow
from engine.paths import user_name

if TYPE_CHECKING:
    from engine.wire import Job

OPENER = "xdg-open"


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """Where a video is, and what became of showing it."""

    path: Path
    shown: bool
    """A program of this machine was given it."""
    command: str | None = None
    """What fetches it, where the person sits elsewhere."""


def open_video(job: Job) -> Opened:
    """Show the video of `job` where the person can see it, else say how to fetch it.

    Raises:
        NotNow: it has none, or the program that opens it cannot be run.
        NotFound: it is gone.
    """
    path = video_of(job)
    opener = shutil.which(OPENER) if has_display(os.environ) else None
    if opener is not None:
        start_opener(opener, path)
        return Opened(path=path, shown=True)
    return Opened(path=path, shown=False, command=copy_command(path, os.environ, folder=False))


def output_of(job: Job) -> str:
    """Where the video of `job` lies, on whatever machine.

    Raises:
        NotNow: it has none.
    """
    if job.status != "done" or not job.output:
        raise NotNow(
            f"job {job.id} has no video: it is {job.status}; `turbotui job show {job.id}` tells more"
        )
    return job.output


def video_of(job: Job) -> Path:
    path = Path(output_of(job))
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


def start_opener(opener: str, path: Path) -> None:
    """Give `path` to `opener`, which goes on by itself.

    Raises:
        NotNow: it cannot be run.
    """
    try:
        subprocess.Popen(
            [opener, str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise NotNow(f"{opener} cannot be run: {error.strerror}") from error
