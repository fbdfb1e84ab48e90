"""Owns one connection of the person's ssh: signed in once, then used for commands and for the socket.

Their configuration, keys, agent, known hosts and jump hosts are ssh's business and stay so. What it
asks (a password, a new host's key) it asks on the terminal, before anything is painted; later it may
ask nothing. A connection of theirs that ssh shares already (ControlMaster) is used and left alone.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

from engine.errors import EngineUnavailable
from turbotui.remote.target import Target
from turbotui.sanitize import clean

SIGN_IN_S = 120.0
"""What a person gets to answer what ssh asks."""
BATCH_S = 20.0
COMMAND_S = 60.0
"""A cold disk there may take long to start Python."""
KEEP_ALIVE = ("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3")
QUIET = (
    *("-T", "-o", "ClearAllForwardings=yes", "-o", "RemoteCommand=none"),
    *("-o", "ForwardAgent=no", "-o", "ForwardX11=no"),
)
"""What the person has set up for their own sessions there is not for ours."""
_POLL_S = 0.02
_ECHO_AFTER_S = 0.3
_TETHER = (
    "import ctypes,os,sys;"
    "ctypes.CDLL(None).prctl(1,15,0,0,0);"
    "os.getppid()==int(sys.argv[1]) or os._exit(1);"
    "os.execvp(sys.argv[2],sys.argv[2:])"
)
"""Ends what it becomes by SIGTERM when the thread that started it ends (PR_SET_PDEATHSIG), also when
that process is killed. A program of its own, since nothing but exec is safe between fork and exec here."""


class SshConnection:
    """Used by one thread at a time."""

    def __init__(self, target: Target, folder: Path) -> None:
        """`folder` is private and short, for the sockets."""
        self.target = target
        self.folder = folder
        self._control = folder / "ctl"
        self._master: subprocess.Popen[bytes] | None = None
        self._theirs = False
        self._said: deque[str] = deque(maxlen=20)
        self._reader: threading.Thread | None = None
        self._keepers: list[subprocess.Popen[bytes]] = []

    # ----------------------------------------------------------------- the connection

    @property
    def alive(self) -> bool:
        if self._theirs:
            return self._check(())
        return self._master is not None and self._master.poll() is None

    @property
    def may_be_ended(self) -> bool:
        """Whether it is ours, to be given up where nothing comes through it any more."""
        return not self._theirs

    @property
    def said(self) -> str:
        """What ssh said last."""
        return " | ".join(list(self._said)[-3:])

    def open(self, *, ask: bool) -> None:
        """Sign in. With `ask` ssh may ask the person on the terminal.

        Raises:
            EngineUnavailable: in one sentence why not.
        """
        self.close()
        if self._check(()):
            self._theirs = True
            return
        self._said.clear()
        batch = () if ask else ("-o", "BatchMode=yes")
        arguments = [
            *self.target.ssh,
            *("-M", "-S", str(self._control), "-N", "-o", "ControlPersist=no", "-o", "ConnectTimeout=15"),
            *(*KEEP_ALIVE, *QUIET, *batch, "--", self.target.host),
        ]
        self._start(arguments, echo=ask and sys.stderr.isatty())
        assert self._master is not None and self._reader is not None
        deadline = time.monotonic() + (SIGN_IN_S if ask else BATCH_S)
        # It makes its control socket once it is signed in.
        while not self._control.exists():
            if self._master.poll() is not None:
                self._reader.join(1.0)
                raise self._refused(ask)
            if time.monotonic() >= deadline:
                self.close()
                raise EngineUnavailable(f"ssh has not reached {self.target.host} in time; {self.said}")
            time.sleep(_POLL_S)

    def close(self) -> None:
        """End what is ours of it."""
        for keeper in self._keepers:
            if keeper.stdin is not None:
                keeper.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                keeper.wait(2.0)
        self._keepers.clear()
        self._theirs = False
        master, self._master = self._master, None
        if master is not None and master.poll() is None:
            master.terminate()
            try:
                master.wait(2.0)
            except subprocess.TimeoutExpired:
                master.kill()
                master.wait()
        with suppress(FileNotFoundError):
            self._control.unlink()

    # ----------------------------------------------------------------- its use

    def arguments(self, *more: str) -> list[str]:
        """A program and its arguments that run something there through the connection."""
        return [*self.target.ssh, *self._by(), "-o", "BatchMode=yes", *QUIET, "--", self.target.host, *more]

    def run(self, script: str, timeout: float = COMMAND_S) -> str:
        """What a POSIX shell there prints for `script`.

        Raises:
            EngineUnavailable: ssh fails, or it takes too long.
        """
        try:
            done = subprocess.run(
                self.arguments("sh -s"), input=script.encode(), capture_output=True, timeout=timeout
            )
        except subprocess.TimeoutExpired as error:
            raise self._silent(timeout) from error
        except OSError as error:
            raise self._no_ssh(error) from error
        if done.returncode == 255:
            for raw in done.stderr.splitlines():
                self._keep(raw)
            raise self._refused(ask=False)
        return done.stdout.decode("utf-8", "replace")

    def forward(self, here: Path, there: str, timeout: float = COMMAND_S) -> None:
        """Let the socket `there` be reached at `here`, where nothing lies yet.

        Raises:
            EngineUnavailable: ssh does not want to, or not in time. That the other side refuses
                shows only when it is used.
        """
        if ":" in f"{here}{there}":
            raise EngineUnavailable(
                f"the engine's socket on {self.target.host} is {clean(there)}, and ssh -L divides at a "
                "colon; let turbotui there use a folder without one (TURBOTUI_HOME)"
            )
        ask = [*self.target.ssh, *self._by(), "-O"]
        way = ["-L", f"{here}:{there}", "--", self.target.host]
        if self._theirs:
            # Theirs lives on: whoever reads from our pipe takes it back once we are gone, however we go.
            cancel = shlex.join([*ask, "cancel", *way])
            try:
                self._keepers.append(
                    subprocess.Popen(
                        ["/bin/sh", "-c", f"cat >/dev/null; exec {cancel}"],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                        start_new_session=True,
                    )
                )
            except OSError as error:
                raise self._no_ssh(error) from error
        try:
            done = subprocess.run(
                [*ask, "forward", *way], stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout
            )
        except subprocess.TimeoutExpired as error:
            raise self._silent(timeout) from error
        except OSError as error:
            raise self._no_ssh(error) from error
        if done.returncode != 0:
            said = clean(done.stderr.decode("utf-8", "replace").strip()) or f"exit {done.returncode}"
            raise EngineUnavailable(f"ssh does not forward the engine's socket: {said}")

    def _by(self) -> tuple[str, ...]:
        return () if self._theirs else ("-S", str(self._control))

    def _check(self, by: tuple[str, ...]) -> bool:
        try:
            done = subprocess.run(
                [*self.target.ssh, *by, "-O", "check", "--", self.target.host],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=5.0,
            )
        except subprocess.TimeoutExpired:
            return False
        except OSError as error:
            raise self._no_ssh(error) from error
        return done.returncode == 0

    def _start(self, arguments: list[str], *, echo: bool) -> None:
        """Start ssh from the thread that then reads its words: the kernel ends it with that thread."""
        started = threading.Event()
        problem: list[OSError] = []

        def live() -> None:
            try:
                self._master = master = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", _TETHER, str(os.getpid()), *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                )
            except OSError as error:
                problem.append(error)
                return
            finally:
                started.set()
            self._listen(master, echo)

        self._reader = threading.Thread(target=live, name="ssh", daemon=True)
        self._reader.start()
        started.wait()
        if problem:
            raise self._no_ssh(problem[0]) from problem[0]

    def _listen(self, master: subprocess.Popen[bytes], echo: bool) -> None:
        """Keep ssh's words. While it may ask, the person sees those after which it goes on."""
        assert master.stderr is not None
        with master.stderr as lines:
            for raw in lines:
                line = self._keep(raw)
                if line and echo and not self._control.exists():
                    time.sleep(_ECHO_AFTER_S)
                    if master.poll() is None and not self._control.exists():
                        print(line, file=sys.stderr)

    def _keep(self, raw: bytes) -> str | None:
        """A line of ssh's, kept as it may be shown; None where it says nothing of use."""
        line = clean(raw.decode("utf-8", "replace").rstrip())
        if not line or line.startswith("Warning: Permanently added"):
            return None
        self._said.append(line)
        return line

    # ----------------------------------------------------------------- why not

    def _silent(self, timeout: float) -> EngineUnavailable:
        return EngineUnavailable(f"{self.target.host} has said nothing for {timeout:g} s")

    def _no_ssh(self, error: OSError) -> EngineUnavailable:
        return EngineUnavailable(
            f"{self.target.ssh[0]} cannot be run here ({error.strerror}); install OpenSSH's client, "
            "or set console.ssh_command"
        )

    def _refused(self, ask: bool) -> EngineUnavailable:
        host, said = self.target.host, "\n".join(self._said)
        last = self._said[-1] if self._said else "it said nothing"
        if "Could not resolve" in said:
            why = f"there is no machine {host}: {last}; check the name, or ~/.ssh/config"
        elif "IDENTIFICATION HAS CHANGED" in said:
            why = (
                f"the key of {host} is not the one that ssh knows: another machine, or somebody between; "
                f"if it was set up anew: ssh-keygen -R {host.rpartition('@')[2]}"
            )
        elif "Host key verification failed" in said:
            why = f"the key of {host} is not known or was not accepted; `ssh {host}` once, and look at it"
        elif "Permission denied" in said:
            more = "" if ask else "; nothing can be asked for now: leave, and start again"
            why = f"{host} does not let us in: {last}{more}"
        else:
            why = f"ssh does not reach {host}: {last}"
        if (self._master is None or self._master.returncode == 1) and not self._said:
            why = f"{self.target.ssh[0]} cannot be run here; install OpenSSH's client"
        return EngineUnavailable(why)
