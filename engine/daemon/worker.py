"""A worker process as the daemon sees it: its pipe, its identity, its end.

One thread for each worker reads the pipe until it ends and then waits for the process, so
everything that a worker said is handled before its death is. It hands over to the event loop
and touches nothing else.
"""

from __future__ import annotations

import asyncio
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import msgspec

from engine.daemon.last_words import last_words, size_of
from engine.daemon.nursery import Nursery
from engine.daemon.threads import in_thread
from engine.errors import WorkerDied
from engine.jobs.liveness import read_start_time
from engine.worker.channel import Channel, FromWorker, Stop, ToWorker, WorkerSettings
from engine.worker.entry import run_forked

NURSERY_PATIENCE_S = 180.0
"""Imports that take longer hang, on a network disk for instance; a worker then starts the slow way."""
FORK_PATIENCE_S = 5.0
"""A nursery that is ready forks in 20 ms, on a host that swaps in a second; beyond this it hangs."""
OUTBOX = 256
"""Messages that may wait for a worker; a healthy one reads each at once."""
WORDS_S = 0.5
"""For the disk that has what a worker printed."""
STOP_GRACE_S = 0.3
"""What an idle worker gets to end by itself before SIGKILL."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerExit:
    """How a worker ended."""

    pid: int
    code: int
    """Exit code, or minus the signal's number."""
    reason: str | None = None
    """Why we ended it; None when it ended by itself or somebody else did it."""
    last_words: str | None = None
    """The last lines that it printed."""

    def told(self) -> str:
        """Its sentence with its last words; of one that was not meant to end."""
        if self.last_words is None:
            return self.sentence()
        return f"{self.sentence()}; its last words: {self.last_words}"

    def sentence(self) -> str:
        if self.reason is not None:
            return f"worker {self.pid} was ended: {self.reason}"
        if self.code < 0:
            name = signal.Signals(-self.code).name if -self.code in set(signal.Signals) else str(-self.code)
            hint = "; the kernel does that when host memory runs out" if self.code == -signal.SIGKILL else ""
            return f"worker {self.pid} was ended by {name}{hint}"
        return f"worker {self.pid} exited with code {self.code}"


class WorkerProcess:
    """A live worker, or one whose `exit` says how it ended."""

    def __init__(
        self,
        *,
        pid: int,
        device_id: str,
        forked: bool,
        channel: Channel[ToWorker, FromWorker],
        wait: Callable[[], int],
        words: Callable[[], str | None],
        asked_at: float,
        on_message: Callable[[WorkerProcess, FromWorker], None],
        on_exit: Callable[[WorkerProcess, WorkerExit], None],
    ) -> None:
        self.pid = pid
        self.start_time = read_start_time(pid)
        self.device_id = device_id
        self.forked = forked
        self.asked_at = asked_at
        self.started_at = time.time()
        self.exit: WorkerExit | None = None
        self._kill_reason: str | None = None
        self._channel = channel
        self._outbox: queue.Queue[ToWorker | None] = queue.Queue(maxsize=OUTBOX)
        self._wait = wait
        self._words = words
        self._loop = asyncio.get_running_loop()
        self._on_message = on_message
        self._on_exit = on_exit
        try:
            # Opened while the process is surely ours and unreaped: signals cannot go astray.
            self._pidfd: int | None = os.pidfd_open(pid)
        except OSError:
            self._pidfd = None
        for target in (self._listen, self._speak):
            threading.Thread(target=target, name=f"worker-{pid}", daemon=True).start()

    def send(self, message: ToWorker) -> None:
        """Hand `message` over without ever waiting; lost when the worker is dying, whose end says so.

        A worker that does not even empty its pipe would otherwise stop the whole engine.
        """
        try:
            self._outbox.put_nowait(message)
        except queue.Full:
            self.kill(f"it has not taken {OUTBOX} messages")

    def kill(self, reason: str) -> None:
        """SIGKILL, the one certain way to give back all of its memory."""
        if self.exit is None:
            self._kill_reason = self._kill_reason or reason
            self._signal(signal.SIGKILL)

    def freeze(self) -> None:
        """SIGSTOP: it does nothing more and keeps what it has, until it is killed."""
        if self.exit is None:
            self._signal(signal.SIGSTOP)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            if self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd, number)
            elif read_start_time(self.pid) == self.start_time:
                os.kill(self.pid, number)

    async def stop(self, reason: str, *, grace_s: float = STOP_GRACE_S) -> None:
        """Ask it to end, then make it; returns when it is gone, or after 5 s in which it would not die."""
        self.send(Stop())
        for deadline in (grace_s, 5.0):
            end = time.monotonic() + deadline
            while self.exit is None and time.monotonic() < end:
                await asyncio.sleep(0.005)
            if self.exit is None:
                self.kill(reason)

    async def wait_gone(self, timeout_s: float = 5.0) -> bool:
        """Until it has ended; False where it has not within `timeout_s`."""
        end = time.monotonic() + timeout_s
        while self.exit is None and time.monotonic() < end:
            await asyncio.sleep(0.001)
        return self.exit is not None

    def _listen(self) -> None:
        try:
            while True:
                self._post(self._on_message, self._channel.receive())
        except (EOFError, OSError):
            pass
        except msgspec.ValidationError:
            self.kill("it said what no worker of this build says")
        code = self._wait()
        self._outbox.put(None)
        exit_ = WorkerExit(pid=self.pid, code=code, reason=self._kill_reason, last_words=self._words())
        self._post(self._ended, exit_)

    def _speak(self) -> None:
        while (message := self._outbox.get()) is not None:
            with suppress(OSError):
                self._channel.send(message)
        self._channel.close()

    def _ended(self, _worker: WorkerProcess, exit_: WorkerExit) -> None:
        self.exit = exit_
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        self._on_exit(self, exit_)

    def _post(self, callback: Callable[[WorkerProcess, Any], None], value: object) -> None:
        with suppress(RuntimeError):  # the loop is closed: the daemon is at its end
            self._loop.call_soon_threadsafe(callback, self, value)


async def start_worker(
    device_id: str,
    nursery: Nursery,
    settings: WorkerSettings,
    *,
    needs_fresh_import: bool = False,
    log_path: Path,
    on_message: Callable[[WorkerProcess, FromWorker], None],
    on_exit: Callable[[WorkerProcess, WorkerExit], None],
) -> WorkerProcess:
    """A worker for `device_id`: out of the nursery, or the slow way where there is none.

    While the nursery warms up this waits for it: its imports have a head start on any that a
    worker of its own would have to begin now. With `needs_fresh_import` it imports torch itself
    all the same, since some of its settings are read only then.

    Raises:
        WorkerDied: it could not be started at all, or the nursery did not answer.
    """
    asked_at = time.monotonic()
    words = await _words_from_now_on(log_path)
    wait: Callable[[], int]
    ours, theirs = Pipe()
    channel: Channel[ToWorker, FromWorker] = Channel(ours, FromWorker)
    try:
        told = msgspec.json.encode(settings).decode()
        if not needs_fresh_import and await nursery.wait_settled(NURSERY_PATIENCE_S) == "ready":
            process = await nursery.fork(
                run_forked,
                theirs,
                nursery.pid,
                device_id,
                str(log_path),
                told,
                patience_s=FORK_PATIENCE_S,
            )
            pid, forked, wait = process.pid, True, lambda: _join(process)
        else:
            child = _start_slowly(theirs.fileno(), device_id, log_path, settings, told)
            pid, forked, wait = child.pid, False, child.wait
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    assert pid is not None, "a started process has a pid"
    try:
        return WorkerProcess(
            pid=pid,
            device_id=device_id,
            forked=forked,
            channel=channel,
            wait=wait,
            words=words,
            asked_at=asked_at,
            on_message=on_message,
            on_exit=on_exit,
        )
    except RuntimeError as error:  # no thread can be started, as where a limit is met
        with suppress(ProcessLookupError):  # its nursery waits for it, where it has met the limit as well
            os.kill(pid, signal.SIGKILL)
        wait()  # it has just begun: nothing of it is in a driver's call yet
        ours.close()
        raise WorkerDied(f"no worker can be started: {error}") from error


async def _words_from_now_on(log_path: Path) -> Callable[[], str | None]:
    """What reads the last words of a process that starts now; a disk that hangs holds up nothing."""
    try:
        async with asyncio.timeout(WORDS_S):
            since = await in_thread(partial(size_of, log_path), name="worker-log")
    except (TimeoutError, RuntimeError):  # or no thread can be started, which what comes next says
        return lambda: None

    def read() -> str | None:
        found: list[str | None] = []
        reading = threading.Thread(
            target=lambda: found.append(last_words(log_path, since)), name="worker-log", daemon=True
        )
        try:
            reading.start()
        except RuntimeError:  # no thread can be started
            return None
        reading.join(WORDS_S)
        return found[0] if found else None

    return read


def _join(process: Any) -> int:
    process.join()
    return int(process.exitcode)


def _start_slowly(
    fd: int, device_id: str, log_path: Path, settings: WorkerSettings, told: str
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "engine.worker.entry"]
    command += ["--fd", str(fd), "--device", device_id, "--parent", str(os.getpid()), "--log", str(log_path)]
    command += ["--settings", told]
    try:
        # Where its imports fail, it has not opened the file that it prints to by itself.
        with open(log_path, "ab", opener=partial(os.open, mode=0o600)) as log:
            return subprocess.Popen(
                command,
                pass_fds=[fd],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=log_path.parent,
                env={**os.environ, "PYTHONSAFEPATH": "1", "PYTORCH_ALLOC_CONF": settings.allocator},
            )
    except OSError as error:
        raise WorkerDied(f"no worker can be started: {error}") from error
