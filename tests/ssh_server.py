"""A real sshd on a port of 127.0.0.1, with keys of its own and settings by which ssh reaches it as `box`."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
WHY_NOT = "there is no sshd here (openssh-server)"


class SshServer:
    """Whoever signs in there finds `home` as TURBOTUI_HOME."""

    def __init__(self, folder: Path, home: Path, *, streams: bool = True) -> None:
        self.folder = folder
        self.streams = streams
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        folder.mkdir(exist_ok=True)
        for name in ("host_key", "user_key"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True
            )
        shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
        variables = f'TURBOTUI_HOME="{home}" PYTHONPATH="{ROOT}" TURBOTUI_ENGINE_DEVICE=cpu'
        self._settings = f"""
Port {self.port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
SetEnv {variables}
"""
        (folder / "config").write_text(f"""
Host box
    HostName 127.0.0.1
    Port {self.port}
    User {getpass.getuser()}
    IdentityFile {folder}/user_key
    IdentitiesOnly yes
    StrictHostKeyChecking accept-new
    UserKnownHostsFile {folder}/known_hosts
""")
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def settings(self) -> dict[str, str]:
        """Variables by which a turbotui here finds it."""
        return {
            "TURBOTUI_HOST": "box",
            "TURBOTUI_CONSOLE_SSH_COMMAND": f"ssh -F {shlex.quote(str(self.folder / 'config'))}",
            "TURBOTUI_CONSOLE_REMOTE_COMMAND": f"{shlex.quote(sys.executable)} -P -m turbotui",
        }

    def start(self) -> None:
        assert SSHD is not None
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        file = self.folder / "sshd_config"
        refusal = "" if self.streams else "AllowStreamLocalForwarding no\n"
        file.write_text(self._settings + refusal)
        with (self.folder / "sshd.log").open("ab") as log:
            self.process = subprocess.Popen(
                [SSHD, "-D", "-e", "-f", str(file)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self.process.poll() is None, (self.folder / "sshd.log").read_text()
            time.sleep(0.05)
        raise AssertionError("sshd does not listen")

    def sessions(self) -> list[int]:
        """The processes of sshd that serve somebody."""
        assert self.process is not None
        told = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True
        )
        return [int(pid) for pid in told.stdout.split()]

    def stop(self) -> None:
        """End it, and the connections that it serves."""
        if self.process is None:
            return
        for pid in self.sessions():
            subprocess.run(["pkill", "-KILL", "-P", str(pid)])
            subprocess.run(["kill", "-KILL", str(pid)])
        self.process.kill()
        self.process.wait(timeout=5)
        self.process = None
