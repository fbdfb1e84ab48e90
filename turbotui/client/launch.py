"""Finds the engine of this user and host, or starts one.

The engine holds a lock in its state directory for its whole life and says there where its
socket is, so the lock decides whether one runs, not a socket or pid file that outlived it. Two
clients may start an engine at once: the lock lets one live, and both use that one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from engine.config import load_config
from engine.errors import EngineUnavailable, StorageUnusable
from engine.paths import Paths, private_dir, user_name
from engine.version import build_id
from engine.wire import WIRE_VERSION, Hello, LockHolder, StopRequest
from turbotui.client.http import HttpClient

START_TIMEOUT_S = 30.0
"""An engine answers within a second; a cold disk may take many."""
LOST_RACE_EXIT = EngineUnavailable.exit_code
"""What an engine exits with that finds the lock taken."""
STOP_TIMEOUT_S = 15.0
"""An engine ends within 2 s of being told; a host that swaps may take longer."""
JOB_TIMEOUT_S = 24 * 3600.0
MAX_STARTS = 3
"""Somebody's glance at the lock can look like an engine to the one that starts, so a lost race
after which nobody runs is tried again."""
LOG_LIMIT_BYTES = 2**20
"""engine.log takes what the engine prints before its own log is open; turned over at this size."""

_started: dict[int, subprocess.Popen[bytes]] = {}
"""Engines that this process has started, whose ends it can tell."""
_POLL_S = 0.02
_HELLO_TIMEOUT_S = 2.0
_HOLDER_LIMIT_BYTES = 4096


def find_engine(paths: Paths) -> LockHolder | None:
    """Who holds the engine's lock; None when nobody does or the holder is only now starting.

    Never waits.

    Raises:
        EngineUnavailable: the lock's file cannot be read.
    """
    with _open_lock(paths) as fd:
        if fd is None:
            return None
        holder = _decode_holder(os.pread(fd, _HOLDER_LIMIT_BYTES, 0))
        # An empty file needs no look at the lock, which could keep a starting engine from it.
        return None if holder is None or _take_shared(fd) else holder


def start_engine(paths: Paths) -> subprocess.Popen[bytes]:
    """Start an engine of its own session, whose life does not depend on ours; does not wait for it.

    Raises:
        EngineUnavailable: we run through sudo in somebody else's home, or it cannot be started.
    """
    refuse_borrowed_home(paths)
    try:
        private_dir(paths.state)
        log = _open_log(private_dir(paths.logs) / "engine.log")
        with open(log, "ab") as output:
            child = subprocess.Popen(
                engine_command(),
                cwd=paths.state,
                env={**os.environ, "PYTHONSAFEPATH": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except (OSError, StorageUnusable) as error:
        raise EngineUnavailable(f"the engine cannot be started: {error}") from error
    _started[child.pid] = child
    # Reaped whenever it ends, so that a console that lives on keeps no zombie.
    threading.Thread(target=child.wait, name="engine-reaper", daemon=True).start()
    return child


def engine_command() -> list[str]:
    """What runs the engine: never a module of the folder that we happen to be in."""
    return [sys.executable, "-P", "-m", "engine.daemon"]


def connect(
    paths: Paths,
    *,
    start: bool = True,
    timeout: float = START_TIMEOUT_S,
    on_start: Callable[[], None] | None = None,
) -> HttpClient:
    """A client of the engine that runs, or (with `start`) of one that is started now.

    `on_start` is called when one has to be started.

    Raises:
        EngineUnavailable: none runs and none may be started, it ended as it started (with the
            last lines that it printed), or it does not answer within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    child: subprocess.Popen[bytes] | None = None
    starts = printed = 0
    while True:
        # While ours starts, its own word is enough; asking for the lock could cost it the lock.
        holder = find_engine(paths) if child is None else _published(paths, child.pid)
        if holder is not None:
            client = HttpClient(holder.socket)
            with contextlib.suppress(EngineUnavailable):
                HttpClient(holder.socket, timeout=_HELLO_TIMEOUT_S).hello()
                return client
        elif not start:
            raise EngineUnavailable("no engine runs; start one with `turbotui engine start`")
        elif child is None and not (starts and _is_held(paths)):
            if starts == MAX_STARTS:
                raise _ended(paths, LOST_RACE_EXIT, printed)
            if starts == 0 and on_start is not None:
                on_start()
            printed = printed_bytes(paths)
            child = start_engine(paths)
            starts += 1
        if child is not None and (code := child.poll()) is not None:
            if code != LOST_RACE_EXIT:
                raise _ended(paths, code, printed)
            child = None
        if time.monotonic() >= deadline:
            raise _silent(paths, holder, timeout)
        time.sleep(_POLL_S)


def stop_engine(paths: Paths, holder: LockHolder, *, after_job: bool = False) -> None:
    """Tell the engine `holder` to end, and wait until it has let go of the lock.

    Raises:
        EngineUnavailable: it does not answer, or does not end within 15 s (with `after_job`
            within a day).
    """
    HttpClient(holder.socket).stop(StopRequest(after_job=after_job))
    timeout = JOB_TIMEOUT_S if after_job else STOP_TIMEOUT_S
    if not wait_until_gone(paths, holder.instance, timeout):
        raise EngineUnavailable(
            f"the engine (pid {holder.pid}) has not ended within {timeout:g} s; "
            f"end it with `kill {holder.pid}`, or at worst `kill -9 {holder.pid}`"
        )


def restart_engine(paths: Paths, *, after_job: bool = False) -> HttpClient:
    """End the engine, if one runs, and start one of this build.

    Raises:
        InvalidRequest: the settings are wrong, so that no engine could start; the one that runs goes on.
        EngineUnavailable: as `stop_engine` and `connect`.
    """
    load_config(paths.config_file, section="engine")
    holder = find_engine(paths)
    if holder is not None:
        stop_engine(paths, holder, after_job=after_job)
    return connect(paths)


def wait_until_gone(paths: Paths, instance: str, timeout: float) -> bool:
    """Whether the engine `instance` has let go of the lock within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while (holder := find_engine(paths)) is not None and holder.instance == instance:
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_S)
    return True


def version_notice(hello: Hello) -> str | None:
    """One sentence when the engine that answers is not of this build, else None."""
    ours = build_id()
    if hello.wire == WIRE_VERSION and hello.build == ours:
        return None
    both = f"the engine is build {hello.build} and this turbotui is {ours}"
    if hello.wire != WIRE_VERSION:
        both += f", and they speak different versions ({hello.wire} and {WIRE_VERSION})"
    return f"{both}; `turbotui engine restart --after-job` restarts it when the running job has ended"


def refuse_borrowed_home(paths: Paths) -> None:
    """Refuse to run as root in the home of the person who typed sudo.

    Files that root makes there would be closed to that person ever after. Root in a home of its
    own (rented machines, containers) is a user like any other.

    Raises:
        EngineUnavailable: that is the case.
    """
    borrowed = os.environ.get("SUDO_UID", "")
    if os.geteuid() != 0 or not borrowed.isdecimal() or int(borrowed) == 0:
        return
    home = next(place for place in (paths.state, *paths.state.parents) if place.exists())
    if home.stat().st_uid == int(borrowed):
        raise EngineUnavailable(
            f"this runs as root through sudo, but {home} belongs to {user_name(int(borrowed))}, whom root's "
            "files would lock out; run it without sudo, or set TURBOTUI_HOME to a folder of root's"
        )


def last_log_lines(paths: Paths, since: int = 0, count: int = 3) -> str:
    """The end of what the engine printed, on one line; `since` bytes are of engines before it."""
    try:
        with open(paths.logs / "engine.log", "rb") as log:
            size = log.seek(0, os.SEEK_END)
            # A log that is shorter by now was turned over.
            log.seek(max(since if since <= size else 0, size - 8192))
            lines = deque(
                (line for line in log.read().decode("utf-8", "replace").splitlines() if line), count
            )
    except OSError:
        return ""
    return " | ".join(line.strip() for line in lines)


def how_it_ended(pid: int, *, wait_s: float = 0.5) -> str:
    """`exit -9` of an engine that this process has started, `gone` of another; empty while it lives."""
    child, deadline = _started.get(pid), time.monotonic() + wait_s
    while True:
        # The stream breaks a moment before the process is gone.
        if child is not None and (code := child.poll()) is not None:
            return f"exit {code}"
        if child is None and not Path(f"/proc/{pid}").exists():
            return "gone"
        if time.monotonic() >= deadline:
            return ""
        time.sleep(_POLL_S)


def _is_held(paths: Paths) -> bool:
    """Whether somebody holds the lock, be it an engine that has not introduced itself yet."""
    with _open_lock(paths) as fd:
        return fd is not None and not _take_shared(fd)


@contextlib.contextmanager
def _open_lock(paths: Paths) -> Iterator[int | None]:
    """The lock's file, opened for reading; None where there is none."""
    try:
        fd = os.open(paths.lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        yield None
        return
    except OSError as error:
        raise EngineUnavailable(
            f"{paths.lock} cannot be read: {error.strerror}; set TURBOTUI_HOME to a folder of your own"
        ) from error
    try:
        yield fd
    finally:
        os.close(fd)


def _decode_holder(raw: bytes) -> LockHolder | None:
    try:
        return msgspec.json.decode(raw, type=LockHolder)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _take_shared(fd: int) -> bool:
    """Whether nobody holds the lock. Taken for a moment only: closing the file gives it back."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _published(paths: Paths, pid: int) -> LockHolder | None:
    """What the engine `pid` has written into the lock's file, without a look at the lock."""
    try:
        holder = _decode_holder(paths.lock.read_bytes()[:_HOLDER_LIMIT_BYTES])
    except OSError:
        return None
    return holder if holder is not None and holder.pid == pid else None


def _open_log(path: Path) -> int:
    """The log opened for appending, 0600, never through a link; its elder kept once."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > LOG_LIMIT_BYTES:
            path.replace(path.with_suffix(".log.1"))
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(path, flags, 0o600)


def printed_bytes(paths: Paths) -> int:
    """Bytes in the log that an engine started now would append to."""
    try:
        size = (paths.logs / "engine.log").stat().st_size
    except OSError:
        return 0
    return size if size <= LOG_LIMIT_BYTES else 0


def _ended(paths: Paths, code: int, since: int) -> EngineUnavailable:
    how = f"signal {-code}" if code < 0 else f"exit {code}"
    said = last_log_lines(paths, since) or "it printed nothing"
    return EngineUnavailable(
        f"the engine ended as it started ({how}): {said}; see {paths.logs / 'engine.log'}"
    )


def _silent(paths: Paths, holder: LockHolder | None, timeout: float) -> EngineUnavailable:
    if holder is None:
        return EngineUnavailable(
            f"the engine did not come up within {timeout:g} s; see {paths.logs / 'engine.log'}"
        )
    return EngineUnavailable(
        f"the engine (pid {holder.pid}) holds {paths.lock} but has not answered on {holder.socket} "
        f"within {timeout:g} s; look at it with `ps {holder.pid}`, or end it with `kill {holder.pid}`"
    )
