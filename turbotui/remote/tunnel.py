"""Owns the way to the engine of another machine: signs in, finds its socket, and brings it here.

One lock guards it all; the link's thread and those of single calls use it.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from engine.errors import EngineUnavailable
from engine.wire import StoredImage
from turbotui.client.http import HttpClient
from turbotui.remote.client import BoxClient, Images
from turbotui.remote.finding import Place, question, read_place
from turbotui.remote.relay import Relay
from turbotui.remote.ssh import SshConnection
from turbotui.remote.target import Target

HELLO_TIMEOUT_S = 5.0
"""Longer than here: the way is long, and sometimes congested."""
PREFIX = "turbotui-ssh-"


class Tunnel:
    """Ends with the process, however that ends."""

    def __init__(self, target: Target, *, on_put: Callable[[Path, StoredImage], None]) -> None:
        """`on_put` is told of images of jobs that were put there, in the thread of the call."""
        self.target = target
        self.name = box_name(target)
        self.images = Images(target.host, on_put=on_put)
        self.remark: str | None = None
        """Something about the way that a person should know."""
        self._folder = _folder()
        self._connection = SshConnection(target, self._folder)
        self._sockets = 0
        self._socket = self._folder / "none"
        self._place: Place | None = None
        self._relay: Relay | None = None
        self._lock = threading.RLock()
        self._closed = False
        atexit.register(self.close)

    def sign_in(self, *, ask: bool) -> None:
        """Reach the machine; with `ask` ssh may ask the person on the terminal.

        Raises:
            EngineUnavailable: it cannot be reached.
        """
        with self._lock:
            if self._closed:
                raise EngineUnavailable("the connection was closed")
            self._leave_way()
            self._connection.open(ask=ask)

    def connect(self, *, start: bool = False, ask: bool = False) -> HttpClient:
        """A client of the engine there; with `start` one is started if none runs.

        What still works of the way is kept, the rest is made anew.

        Raises:
            EngineUnavailable: in one sentence why not.
        """
        with self._lock:
            if self._place is not None and self._connection.alive:
                try:
                    return self._greet()
                except EngineUnavailable:
                    if self._connection.may_be_ended and not self._answers():
                        self._connection.close()
            if not self._connection.alive:
                self.sign_in(ask=ask)
            place = read_place(self.target, self._connection.run(question(self.target, start=start)))
            if self._place is None or place.socket != self._place.socket:
                self._leave_way()
                self._connection.forward(self._new_socket(), place.socket)
            self._place = place
            try:
                return self._greet()
            except EngineUnavailable:
                if self._relay is not None:
                    raise
            return self._relay_to(place)

    def arguments(self, *more: str) -> list[str]:
        """What runs a command there through this connection."""
        return self._connection.arguments(*more)

    def run(self, script: str) -> str:
        """As `SshConnection.run`."""
        return self._connection.run(script)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._leave_way()
            self._connection.close()
            shutil.rmtree(self._folder, ignore_errors=True)
        atexit.unregister(self.close)

    def _greet(self) -> HttpClient:
        HttpClient(self._socket, timeout=HELLO_TIMEOUT_S, where=self.name).hello()
        return BoxClient(self._socket, where=self.name, images=self.images)

    def _answers(self) -> bool:
        """Whether the machine itself does, over what ssh holds for a connection."""
        with suppress(EngineUnavailable):
            return "here" in self._connection.run("echo here", timeout=HELLO_TIMEOUT_S)
        return False

    def _relay_to(self, place: Place) -> HttpClient:
        """The other way, for servers that forward no sockets (AllowStreamLocalForwarding no)."""
        why = self._connection.said
        self._relay = Relay(self._connection, self._new_socket(), place.socket)
        try:
            client = self._greet()
        except EngineUnavailable:
            self._leave_way()
            if "connect failed" in why:  # it has ended, and left its socket or lock there
                raise EngineUnavailable(
                    f"no engine answers on {self.name}: nobody listens at {place.socket}"
                ) from None
            raise EngineUnavailable(
                f"the engine of {self.name} cannot be reached through ssh: "
                f"{why or 'its socket is not forwarded'}, and python3 there does not relay it"
            ) from None
        self.remark = (
            f"the ssh server of {self.name} forwards no sockets (AllowStreamLocalForwarding); "
            "a relay there is used, which is slower"
        )
        return client

    def _new_socket(self) -> Path:
        """Never one that was forwarded before: ssh would say that it is, and not bind it again."""
        self._sockets += 1
        self._socket = self._folder / f"engine-{self._sockets}.sock"
        return self._socket

    def _leave_way(self) -> None:
        self._place = None
        if self._relay is not None:
            self._relay.close()
            self._relay = None


def box_name(target: Target) -> str:
    """`user@box`, the user as ssh has it, the box as the person calls it."""
    host = target.host.removeprefix("ssh://").split("/")[0]
    user, at, name = host.rpartition("@")
    if target.host.startswith("ssh://") and not name.endswith("]"):
        name = name.partition(":")[0]
    if not at:
        with suppress(OSError, subprocess.SubprocessError):
            told = subprocess.run(
                [*target.ssh, "-G", "--", target.host],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=5.0,
            )
            user = next(
                (line.removeprefix("user ") for line in told.stdout.splitlines() if line.startswith("user ")),
                "",
            )
    return f"{user}@{name}" if user else name


def _folder() -> Path:
    """A private folder of a short name, for ssh's sockets; those of consoles that were killed go."""
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    if not os.access(base, os.W_OK) or len(os.fsencode(base)) > 40:
        base = Path("/tmp")
    for old in base.glob(f"{PREFIX}*"):
        pid = old.name.removeprefix(PREFIX).partition("-")[0]
        with suppress(OSError):
            if pid.isdecimal() and old.stat().st_uid == os.getuid() and not Path(f"/proc/{pid}").exists():
                shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=base))
