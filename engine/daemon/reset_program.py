"""The program that resets a GPU, as a child: found in fixed places, bounded in time and in words.

Its path can be set, so that tests and benchmarks never come near the real one. A set program is run
as this user and sees to its rights itself; the driver's own is run as root, or through the helper.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from engine.daemon.threads import in_thread
from engine.errors import Refused
from engine.telemetry.procfs import clean

PLACES: tuple[str, ...] = (
    "/usr/bin/nvidia-smi",
    "/usr/local/bin/nvidia-smi",
    "/usr/sbin/nvidia-smi",
    "/opt/bin/nvidia-smi",
    "/run/current-system/sw/bin/nvidia-smi",
    "/usr/lib/wsl/lib/nvidia-smi",
)
"""Where the driver's program lies. Never PATH, which whoever started the engine could point anywhere."""
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
QUERY_TIMEOUT_S = 10.0
"""A driver that is loaded answers within a second; one without persistence mode initialises each GPU."""
RESET_TIMEOUT_S = 90.0
"""A reset takes 3 to 10 s; beyond this it is said to hang."""
MAX_TEXT = 8000
LINE_CHARS = 400
UUID = re.compile(r"GPU-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
SUDO = "/usr/bin/sudo"


@dataclass(frozen=True, kw_only=True, slots=True)
class Ran:
    """One run of the program."""

    argv: tuple[str, ...]
    code: int | None
    """Exit code, minus the signal's number, or None where it had not ended in time."""
    text: str
    """What it printed on both streams, cleaned, at most `MAX_TEXT` characters, lines kept apart."""
    elapsed_s: float
    pid: int
    finish: Callable[[], Ran] | None = None
    """Of one that still runs and is left to itself: waits for its end, however long, and tells it."""


class ResetProgram:
    """Runs the program with exact arguments. `rights` and `command` say how; see there."""

    def __init__(self, setting: str | None, *, helper: Path, sudo: str | None = None, is_root: bool) -> None:
        self.path = find_program(setting)
        self.is_set = setting is not None
        """A person's own choice, which sees to its rights itself."""
        self.is_root = is_root
        self._helper = helper
        self._sudo = SUDO if sudo is None else sudo

    def command(self, verb: str, uuid: str) -> tuple[str, ...]:
        """The words that do `verb` (as the helper names it) to the GPU.

        Raises:
            Refused: `uuid` is none, or there is no such program.
        """
        if not UUID.fullmatch(uuid):
            raise Refused(f"{uuid!r} is no GPU's UUID; `nvidia-smi -L` lists them")
        if self.is_set or self.is_root:
            return (str(self._found()), *ARGUMENTS[verb], "-i", uuid)
        return (self._sudo, "-n", str(self._helper), verb, uuid)

    async def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        kill: bool,
        on_started: Callable[[int], None] = lambda pid: None,
    ) -> Ran:
        """Run `argv` to its end, or for `timeout_s`; with `kill` it is ended then.

        A reset is not: one that is cut off leaves the GPU in a state that nobody knows. `on_started`
        hears the pid, in another thread.

        Raises:
            Refused: it cannot be started.
        """
        call = partial(run_program, tuple(argv), timeout_s=timeout_s, kill=kill, on_started=on_started)
        return await in_thread(call, name="reset-program")

    async def query(self, fields: Sequence[str], uuid: str | None = None) -> list[dict[str, str | None]]:
        """These fields of the GPU, or of all; None for one that is not told.

        A driver that does not know one of the fields refuses them all, so they are asked one by one then.

        Raises:
            Refused: nothing can be asked, or nothing is answered, with the reason.
        """
        ran = await self._query(fields, uuid)
        if ran.code == 0:
            return _rows(ran.text, fields)
        if ran.code is None:
            raise Refused(f"{self.path} has not answered within {ran.elapsed_s:.0f} s: the driver hangs")
        if len(fields) == 1 or "not a valid field" not in ran.text.lower():
            said = ran.text.replace("\n", " ") or "nothing"
            raise Refused(f"{self.path} does not tell of the GPUs (exit code {ran.code}): {said}")
        columns = []
        for field in fields:
            one = await self._query((field,), uuid)
            columns.append(_rows(one.text, (field,)) if one.code == 0 else [])
        count = max(map(len, columns))
        return [
            {
                field: column[row][field] if row < len(column) else None
                for field, column in zip(fields, columns, strict=True)
            }
            for row in range(count)
        ]

    async def ask(self, *arguments: str) -> Ran:
        """Any other question that needs no rights."""
        return await self.run((str(self._found()), *arguments), timeout_s=QUERY_TIMEOUT_S, kill=True)

    async def _query(self, fields: Sequence[str], uuid: str | None) -> Ran:
        which = () if uuid is None else ("-i", uuid)
        return await self.ask(f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits", *which)

    def _found(self) -> Path:
        if self.path is None:
            raise Refused(
                "there is no nvidia-smi on this host, by which a GPU is reset; where it lies elsewhere, "
                "set engine.reset_program"
            )
        return self.path


ARGUMENTS: dict[str, tuple[str, ...]] = {
    "persistence-off": ("-pm", "0"),
    "persistence-on": ("-pm", "1"),
    "reset": ("--gpu-reset",),
}
"""By the verb that the helper knows each by."""


def find_program(setting: str | None, places: Sequence[str] | None = None) -> Path | None:
    """The program that is set, or the driver's in one of its places; None where there is none."""
    if setting is not None:
        return Path(setting)
    for place in PLACES if places is None else places:
        if os.access(place, os.X_OK) and Path(place).is_file():
            return Path(place)
    return None


def run_program(
    argv: tuple[str, ...], *, timeout_s: float, kill: bool, on_started: Callable[[int], None]
) -> Ran:
    """Blocks; see `ResetProgram.run`."""
    began = time.monotonic()
    said = _Said(bounded=kill)
    try:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=said.end,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=ENVIRONMENT,
            # The end of the engine, or a Ctrl-C, must not cut a reset off.
            start_new_session=True,
        )
    except OSError as error:
        said.close()
        raise Refused(f"{argv[0]} cannot be run: {error.strerror}") from error
    on_started(child.pid)
    said.begin(child)
    code: int | None
    try:
        code = child.wait(timeout_s)
    except subprocess.TimeoutExpired:
        code = None
        if kill:
            child.kill()
            with suppress(subprocess.TimeoutExpired):  # in a driver call that hangs even SIGKILL waits
                child.wait(1.0)

    def told(code: int | None, finish: Callable[[], Ran] | None = None) -> Ran:
        elapsed_s = time.monotonic() - began
        text = _cleaned(said.read(0.2 if code is None else 1.0))
        return Ran(argv=argv, code=code, text=text, elapsed_s=elapsed_s, pid=child.pid, finish=finish)

    def finish() -> Ran:
        ran = told(child.wait())
        said.close()
        return ran

    if child.returncode is None:
        return told(code, finish)
    ran = told(code)
    said.close()
    return ran


class _Said:
    """What a child prints, on both streams."""

    def __init__(self, *, bounded: bool) -> None:
        """A `bounded` one is read off a pipe. A reset's is a file in memory: with the engine a pipe would
        break, and whoever prints into it is ended.
        """
        self.end = subprocess.PIPE if bounded else os.memfd_create("reset", os.MFD_CLOEXEC)
        self._bounded = bounded
        self._said = bytearray()
        self._reader: threading.Thread | None = None

    def begin(self, child: subprocess.Popen[bytes]) -> None:
        if self._bounded:
            self._reader = threading.Thread(target=self._read, args=(child,), daemon=True)
            self._reader.start()

    def read(self, patience_s: float) -> bytes:
        """All of it so far; something that the child started may keep a pipe open for longer."""
        if self._reader is None:
            return os.pread(self.end, 4 * MAX_TEXT, 0)
        self._reader.join(patience_s)
        return bytes(self._said)

    def close(self) -> None:
        if not self._bounded:
            os.close(self.end)

    def _read(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stdout is not None
        with suppress(OSError, ValueError), child.stdout as pipe:
            while chunk := os.read(pipe.fileno(), 4096):
                self._said += chunk[: max(0, 4 * MAX_TEXT - len(self._said))]


def _cleaned(said: bytes) -> str:
    lines = (
        clean(line.strip().expandtabs(4), LINE_CHARS) for line in said.decode("utf-8", "replace").splitlines()
    )
    return "\n".join(line for line in lines if line.strip())[:MAX_TEXT]


def _rows(text: str, fields: Sequence[str]) -> list[dict[str, str | None]]:
    rows = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == len(fields):
            rows.append({field: _value(cell) for field, cell in zip(fields, cells, strict=True)})
    return rows


def _value(cell: str) -> str | None:
    return None if not cell or cell.startswith(("[", "N/A")) else cell
