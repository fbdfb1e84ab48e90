"""Stands in for ssh where no sshd is: the same options, the same sockets, and this machine as the other one.

The folder SSH_STAND_IN holds `environ.json`, what a shell there finds, and tells by the files that lie in
it how things are: `down` (nobody answers), `refuse` (sockets are not forwarded).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

FOLDER = Path(os.environ["SSH_STAND_IN"])
VALUED = {"-F", "-S", "-o", "-L", "-O", "-p", "-l", "-i", "-J"}


def main() -> int:
    options: dict[str, list[str]] = {}
    words = iter(sys.argv[1:])
    rest: list[str] = []
    for word in words:
        if word == "--":
            rest = list(words)
        elif word in VALUED:
            options.setdefault(word, []).append(next(words))
        else:
            options.setdefault(word, [])
    if "-G" in options:
        print("user somebody\nhostname 127.0.0.1")
        return 0
    control = options.get("-S", [""])[0]
    if "-O" in options:
        return ask_master(control, options["-O"][0], options.get("-L", [""])[0])
    if "unknown" in rest[0]:
        return fail(f"ssh: Could not resolve hostname {rest[0]}: Name or service not known")
    if (FOLDER / "down").exists():
        return fail(f"ssh: connect to host {rest[0]} port 22: Connection refused")
    if "-M" in options:
        return be_master(control)
    environ = json.loads((FOLDER / "environ.json").read_text())
    return subprocess.run(["sh", "-c", " ".join(rest[1:])], env=environ).returncode


def fail(why: str) -> int:
    print(why, file=sys.stderr, flush=True)
    return 255


def ask_master(control: str, verb: str, way: str) -> int:
    try:
        with socket.socket(socket.AF_UNIX) as master:
            master.connect(control or "/nobody")
            master.sendall(json.dumps([verb, way]).encode() + b"\n")
            return 0 if master.recv(2) == b"ok" else 255
    except OSError as error:
        return fail(f"Control socket connect({control}): {error.strerror}")


def be_master(control: str) -> int:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(control)
    listener.listen()

    def end(_number: int, _frame: object) -> None:
        os.unlink(control)
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    while True:
        asker, _nobody = listener.accept()
        with asker:
            verb, way = json.loads(asker.makefile().readline() or '["", ""]')
            if verb == "forward":
                here, _, there = way.partition(":")
                forwarded = socket.socket(socket.AF_UNIX)
                forwarded.bind(here)
                forwarded.listen()
                threading.Thread(target=forward, args=(forwarded, there), daemon=True).start()
            asker.sendall(b"ok")


def forward(listener: socket.socket, there: str) -> None:
    while True:
        near, _nobody = listener.accept()
        far = socket.socket(socket.AF_UNIX)
        try:
            if (FOLDER / "refuse").exists():
                raise PermissionError(1, "administratively prohibited")
            far.connect(there)
        except OSError as error:
            fail(f"channel 1: open failed: {error.strerror}: open failed")
            near.close()
            continue
        for one, other in ((near, far), (far, near)):
            threading.Thread(target=pump, args=(one, other), daemon=True).start()


def pump(one: socket.socket, other: socket.socket) -> None:
    try:
        while data := one.recv(65536):
            other.sendall(data)
        other.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


if __name__ == "__main__":
    sys.exit(main())
