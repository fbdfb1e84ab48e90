"""Runs the person's command for each thing to tell, with JSON on its standard input.

One command at a time, in a thread of its own: starting a program can hang on a disk that does not
answer, and the engine must not. The program is started without a shell, its output goes nowhere, and
where it does not end in time it is ended, itself and nobody else.
"""

from __future__ import annotations

import queue
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from engine.config import NotifyConfig, NotifyKind

WAITING = 64
"""Notifications that wait for the command before them; what comes beyond is dropped, and said to be."""
GIVE_UP_S = 5.0
"""How long the end of a killed command is waited for: one that hangs in the kernel may not die."""
CLOSE_S = 0.5
"""What a command under way still gets when the engine ends."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Notification:
    """What the command reads as one JSON object."""

    event: NotifyKind
    text: str
    """One sentence, safe to show."""
    host: str
    user: str
    at: float
    """Wall clock."""
    job: dict[str, Any] | None = None
    """`id`, `model`, `status`, `prompt`, `output`, `error`, `error_code`, `elapsed_s`."""
    device: str | None = None
    bytes: int | None = None
    suppressed: int = 0
    """How many of its kind came before it and were not told, by the rate limit."""


class RateLimit:
    """Lets one of a kind through in an interval, and after it the newest of those that came meanwhile."""

    def __init__(self, interval_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval_s = interval_s
        self._clock = clock
        self._let: dict[str, float] = {}
        self._held: dict[str, Notification] = {}

    def admit(self, notification: Notification) -> Notification | None:
        """The notification, if it may go now; else it is held for `due`."""
        kind, now = notification.event, self._clock()
        if now - self._let.get(kind, float("-inf")) >= self._interval_s and kind not in self._held:
            self._let[kind] = now
            return notification
        held = self._held.get(kind)
        count = 0 if held is None else held.suppressed + 1
        self._held[kind] = replace(notification, suppressed=count)
        return None

    def due(self) -> list[Notification]:
        """Those held whose interval is over."""
        now = self._clock()
        ready = [kind for kind in self._held if now - self._let[kind] >= self._interval_s]
        self._let |= dict.fromkeys(ready, now)
        return [self._held.pop(kind) for kind in ready]


class CommandRunner:
    """Runs `argv` once for each `submit`, in order. Any thread may submit and close."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        cwd: str,
        environ: dict[str, str],
        on_failure: Callable[[str], None],
    ) -> None:
        """`on_failure` is called in the runner's thread, once until a run succeeds or fails otherwise."""
        self._argv = list(argv)
        self._timeout_s = timeout_s
        self._cwd = cwd
        self._environ = environ
        self._on_failure = on_failure
        self._waiting: queue.Queue[bytes | None] = queue.Queue(WAITING)
        self._thread: threading.Thread | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._unreaped: list[subprocess.Popen[bytes]] = []
        self._closed = False
        self._failure: str | None = None

    def submit(self, data: bytes) -> None:
        """Let the command have `data`; returns at once."""
        if self._closed:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="notify", daemon=True)
            self._thread.start()
        try:
            self._waiting.put_nowait(data)
        except queue.Full:
            self._tell(f"{WAITING} notifications wait for the command; newer ones are dropped")

    def close(self) -> None:
        """End: what waits is dropped, and what runs gets a moment and is ended then."""
        self._closed = True
        if self._thread is None:
            return
        while not self._waiting.empty():
            try:
                self._waiting.get_nowait()
            except queue.Empty:
                break
        self._waiting.put(None)
        self._thread.join(CLOSE_S)
        child = self._child
        if child is not None and self._thread.is_alive():
            child.kill()
            self._thread.join(CLOSE_S)

    def _run(self) -> None:
        while (data := self._waiting.get()) is not None:
            self._unreaped = [child for child in self._unreaped if child.poll() is None]
            failure = self._run_once(data)
            if failure is None:
                self._failure = None
            else:
                self._tell(failure)

    def _tell(self, failure: str) -> None:
        if failure != self._failure and not self._closed:
            self._failure = failure
            self._on_failure(failure)

    def _run_once(self, data: bytes) -> str | None:
        """Why it failed, or None."""
        name = self._argv[0]
        try:
            child = subprocess.Popen(
                self._argv,
                cwd=self._cwd,
                env=self._environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            return f"{name} cannot be run: {error}"
        self._child = child
        try:
            child.communicate(data, timeout=self._timeout_s)
        except subprocess.TimeoutExpired:
            child.kill()
            self._reap(child)
            return f"{name} had not ended after {self._timeout_s:g} s and was ended"
        except OSError as error:  # it closed its input in the middle of reading
            child.kill()
            self._reap(child)
            return f"{name} does not take its input: {error}"
        finally:
            self._child = None
            if child.stdin is not None:
                with suppress(OSError):  # nobody reads it any more
                    child.stdin.close()
        if child.returncode:
            how = f"signal {-child.returncode}" if child.returncode < 0 else f"exit code {child.returncode}"
            return f"{name} ended with {how}"
        return None

    def _reap(self, child: subprocess.Popen[bytes]) -> None:
        try:
            child.wait(GIVE_UP_S)
        except subprocess.TimeoutExpired:
            self._unreaped.append(child)


class Notifier:
    """Tells what the settings want told. Event loop's thread only."""

    def __init__(
        self,
        config: NotifyConfig,
        *,
        cwd: str,
        environ: dict[str, str],
        on_failure: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_failure` is called by `look`."""
        self._failures: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._on_failure = on_failure
        self._on = frozenset(config.on) if config.argv else frozenset()
        self._limit = RateLimit(config.min_interval_s, clock=clock)
        self._runner = CommandRunner(
            config.argv, timeout_s=config.timeout_s, cwd=cwd, environ=environ, on_failure=self._failures.put
        )
        self._encoder = msgspec.json.Encoder()

    def wants(self, kind: NotifyKind) -> bool:
        return kind in self._on

    def tell(self, notification: Notification) -> None:
        """Run the command for it, now or when the rate limit lets it."""
        if self.wants(notification.event) and (admitted := self._limit.admit(notification)) is not None:
            self._runner.submit(self._encoder.encode(admitted))

    def look(self) -> None:
        """Called once a second: tell what the rate limit has held back until now, and what failed."""
        while not self._failures.empty():
            self._on_failure(self._failures.get_nowait())
        for notification in self._limit.due():
            self._runner.submit(self._encoder.encode(notification))

    def close(self) -> None:
        self._runner.close()
