"""Owns another machine as the console and the commands see it: its engine, its files, its turbotui."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from engine.errors import EngineUnavailable
from engine.wire import Manifest, StoredImage
from turbotui.client.files import FILE_TIMEOUT_S, Fetched, Progress, fetch_video
from turbotui.client.http import HttpClient
from turbotui.remote.recordings import BoxRecordings
from turbotui.remote.target import Target
from turbotui.remote.tunnel import Tunnel
from turbotui.sanitize import clean

RESTART_S = 120.0
NOT_THERE = (126, 127)
"""What a shell exits with that finds no such program."""


class Box:
    """May be used from any thread."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.on_put: Callable[[Path, StoredImage], None] | None = None
        """Told of images of jobs that were put there, in the thread of the call."""
        self._tunnel = Tunnel(target, on_put=self._was_put)
        self.name = self._tunnel.name
        """`user@box`, for people."""
        self.recordings = BoxRecordings(self.connect)

    @property
    def remark(self) -> str | None:
        """Something about the way there that a person should know."""
        return self._tunnel.remark

    def sign_in(self, *, ask: bool) -> None:
        """Reach it; with `ask` ssh may ask the person on the terminal.

        Raises:
            EngineUnavailable: it cannot be reached.
        """
        self._tunnel.sign_in(ask=ask)

    def connect(self, *, start: bool = False, ask: bool = False) -> HttpClient:
        """As `Tunnel.connect`."""
        return self._tunnel.connect(start=start, ask=ask)

    def restart(self) -> None:
        """Have the turbotui there end its engine and start one of its build.

        Raises:
            EngineUnavailable: it cannot.
        """
        try:
            done = subprocess.run(
                self._tunnel.arguments(there(self.target, ["engine", "restart"])),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=RESTART_S,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EngineUnavailable(f"the engine of {self.name} is not restarted: {error}") from error
        if done.returncode != 0:
            said = clean(done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2])
            raise EngineUnavailable(f"the engine of {self.name} is not restarted: {said or done.returncode}")

    def put_image(self, path: Path) -> str:
        """Put an image of this machine there, once for each of its versions; its path there.

        Raises:
            InvalidRequest: it is no image that the engine takes.
        """
        return self._tunnel.images.there(self.connect(), str(path))

    def manifest(self, job_id: int) -> Manifest:
        """What lies beside the video of a job there.

        Raises:
            NotNow, NotFound: it has none, or it is gone.
        """
        return self.connect().ask(f"/jobs/{job_id:d}/manifest", Manifest, FILE_TIMEOUT_S)

    def _was_put(self, file: Path, stored: StoredImage) -> None:
        if self.on_put is not None:
            self.on_put(file, stored)

    def fetch(self, job_id: int, folder: Path, progress: Progress = lambda _have, _of: None) -> Fetched:
        """As `turbotui.client.files.fetch_video`."""
        return fetch_video(self.connect, job_id, folder, progress=progress)

    def scp(self, path: str) -> str:
        """`path` of that machine, as scp and rsync take it here."""
        if self.target.host.startswith("ssh://"):
            return f"scp://{self.target.host.removeprefix('ssh://').rstrip('/')}/{path}"
        return f"{self.target.host}:{path}"

    def copy_command(self, path: str, *, folder: bool = False) -> str:
        """What copies `path` of that machine to where the person is."""
        return f"scp {'-r ' if folder else ''}{shlex.quote(self.scp(path))} ."

    def close(self) -> None:
        self._tunnel.close()


def there(target: Target, arguments: list[str]) -> str:
    """A command line for a shell there that runs its own turbotui, for itself whatever its settings name."""
    return f"env TURBOTUI_HOST= {target.command} {shlex.join(arguments)}"


def run_there(target: Target, arguments: list[str]) -> int:
    """Run turbotui on the machine itself, joined to this terminal, and give its exit code.

    Raises:
        EngineUnavailable: ssh cannot be run, or there is no such program there.
    """
    terminal = ["-t"] if sys.stdin.isatty() and sys.stdout.isatty() else ["-T"]
    command = [*target.ssh, *terminal, "-o", "RemoteCommand=none", "--", target.host]
    try:
        code = subprocess.run([*command, there(target, arguments)], env=dict(os.environ)).returncode
    except OSError as error:
        raise EngineUnavailable(
            f"{target.ssh[0]} cannot be run here ({error.strerror}); install OpenSSH's client"
        ) from error
    if code in NOT_THERE:
        raise EngineUnavailable(
            f"there is no `{target.command}` on {target.host}; say where it is with --remote-command"
        )
    if code == 255:
        raise EngineUnavailable(f"ssh does not reach {target.host}")
    return code
