"""The nursery as the daemon sees it: started once, asked for forks, replaced when it dies.

It is the standard library's forkserver with `engine.worker.preload` imported, so a worker is
forked in about 20 ms instead of importing torch and diffusers for 12 to 20 s. Two facts decide
how it is handled. The kernel ties it to the *thread* that starts it (`engine.tether`), so
`start` belongs on the main thread; launching it does not block. Asking it for a process blocks
until its imports are done, so that happens in a thread.

A wrong name in a preload list fails silently, so it counts as ready only when a child has
reported the modules found in its own `sys.modules`.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import msgspec

from engine.daemon.silence import Silence
from engine.daemon.threads import in_thread
from engine.errors import WorkerDied
from engine.whole_file import write_whole
from engine.wire import NurseryState, NurseryStatus
from engine.worker.entry import NurseryReport, report_imports

PRELOAD = "engine.worker.preload"
PROVEN_S = 600.0
"""One that lived so long was sound; its death does not count towards giving up."""
MAX_STARTS = 3
"""A nursery that dies this often is given up; workers then start the slow way."""
RESTS = "the nursery was ended for as long as something has the GPU to itself"

ENVIRONMENT = {
    # No device is visible while torch and diffusers are imported, so that no driver file is
    # open and no CUDA state exists in what workers are forked from.
    "CUDA_VISIBLE_DEVICES": "",
    # diffusers asks for the device count at import; through NVML that leaves no CUDA state.
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    # Idle OpenMP threads must sleep, not spin: on a busy host that cost a test 21 s instead of 1.2.
    "OMP_WAIT_POLICY": "PASSIVE",
    # A thread of a BLAS pool would not survive the fork; numpy's product is never hot here.
    "OPENBLAS_NUM_THREADS": "1",
    # Where pyarrow is installed, diffusers imports it, and its allocator starts a thread.
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "TOKENIZERS_PARALLELISM": "false",
    # Models are read from local folders; nothing may wait for a network at run time.
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


class _WarmTime(msgspec.Struct):
    warm_s: float


class Nursery:
    """One forkserver and what is known of it. Methods belong to the event loop's thread."""

    def __init__(
        self, memo: Path, *, on_change: Callable[[], None], on_log: Callable[[str, str], None]
    ) -> None:
        self._memo = memo
        self._on_change = on_change
        self._on_log = on_log
        self._context = multiprocessing.get_context("forkserver")
        # One thread: the forkserver's client side is not made for several at once.
        self._asking = ThreadPoolExecutor(max_workers=1, thread_name_prefix="nursery")
        self._state: NurseryState = "cold"
        self._starts = 0
        self._generation = 0
        self._started = 0.0
        self._warm_s: float | None = None
        self._pid: int | None = None
        self._report: NurseryReport | None = None
        self._detail: str | None = None
        self._settled = asyncio.Event()
        self._stopping = False
        self._resting = False

    @property
    def state(self) -> NurseryState:
        return self._state

    @property
    def pid(self) -> int | None:
        return self._pid

    def status(self) -> NurseryStatus:
        report = self._report
        elapsed = time.monotonic() - self._started if self._state == "warming" else self._warm_s
        return NurseryStatus(
            state=self._state,
            elapsed_s=None if elapsed is None else round(elapsed, 2),
            expected_s=self._expected_s(),
            pid=self._pid,
            threads=report.threads if report else None,
            rss_bytes=report.rss_bytes if report else None,
            device_files=tuple(report.device_files) if report else (),
            detail=self._detail,
        )

    def start(self) -> None:
        """Launch it and return at once; `wait_settled` tells when it is of use. Main thread only."""
        assert threading.current_thread() is threading.main_thread(), "its life is tied to this thread"
        self._resting = False
        self._starts += 1
        self._generation += 1
        self._started = time.monotonic()
        self._state, self._detail, self._report = "warming", None, None
        self._settled.clear()
        os.environ["_TURBOTUI_PARENT"] = str(os.getpid())
        self._context.set_forkserver_preload([PRELOAD])
        try:
            forkserver.ensure_running()
        except OSError as error:
            self._settle("failed", f"the nursery cannot be started: {error}")
            return
        self._pid = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]  # no public way
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._await_death, args=(loop, self._pid), daemon=True).start()
        task = loop.create_task(self._prove_ready(self._generation))
        task.add_done_callback(lambda done: done.exception())
        self._on_change()

    async def wait_settled(self, timeout_s: float | None = None) -> NurseryState:
        """Wait until it is ready or failed, or for `timeout_s`; the state then.

        Raises:
            WorkerDied: it rests: nothing may start in its place the slow way either.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not self._resting and not self._settled.is_set():
                    await self._settled.wait()
        if self._resting:
            raise WorkerDied(RESTS)
        return self._state

    async def fork(
        self, target: Callable[..., None], *args: object, patience_s: float | None = None
    ) -> ForkServerProcess:
        """A new process that runs `target(*args)`; both must be importable without torch.

        With `patience_s` a nursery that has not forked by then counts as dead: it is killed, and with
        it whatever was forked from it, and replaced as one that died by itself.

        Raises:
            WorkerDied: the nursery died before it could fork, or did not answer.
        """
        if self._resting:
            raise WorkerDied(RESTS)
        process = self._context.Process(target=target, args=args, daemon=True)
        loop, pid, silence = asyncio.get_running_loop(), self._pid, Silence()
        forking = loop.run_in_executor(self._asking, process.start)
        try:
            while not forking.done():
                await asyncio.wait({forking}, timeout=1.0)
                if patience_s is not None and not forking.done() and silence.look() >= patience_s:
                    self._give_up(pid)
                    raise WorkerDied(
                        f"the nursery (pid {pid}) did not fork a worker within {patience_s:.0f} s and is "
                        "replaced; ask again, which waits for the new one"
                    )
            await forking
        except (OSError, EOFError) as error:
            raise WorkerDied(f"the nursery died before it could fork a worker: {error!r}") from error
        finally:
            if not forking.done():
                forking.add_done_callback(lambda done: _end_unwanted(process, done))
        return process

    def _give_up(self, pid: int | None) -> None:
        """Kill the nursery that was asked; `_died` sees to the next one."""
        if pid is not None and pid == self._pid:
            self._on_log("nursery", f"the nursery (pid {pid}) does not answer and is ended")
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def rest(self) -> None:
        """End it until `start` is called again; workers forked from it end with it. Not waited for."""
        self._resting = True
        self._starts = 0  # that it dies now says nothing about it
        self._settled.set()  # who waits for it learns that it rests
        if self._pid is not None:
            with suppress(
                ProcessLookupError
            ):  # not reaped: the forkserver module does that at its next start
                os.kill(self._pid, signal.SIGKILL)

    def stop(self) -> None:
        """End it now; workers forked from it end with it."""
        self._stopping = True
        if self._pid is not None:
            _kill_child(self._pid)
        address = forkserver._forkserver._forkserver_address  # type: ignore[attr-defined]  # no public way
        if isinstance(address, str) and Path(address).parent.name.startswith("pymp-"):
            shutil.rmtree(Path(address).parent, ignore_errors=True)

    async def _prove_ready(self, generation: int) -> None:
        receiving, sending = self._context.Pipe(duplex=False)
        try:
            process = await self.fork(report_imports, sending)
            sending.close()
            report = await asyncio.to_thread(_receive_report, receiving)
            await asyncio.to_thread(process.join)
        except (WorkerDied, EOFError, OSError) as error:
            if not self._stopping and not self._resting and generation == self._generation:
                self._settle("failed", f"the nursery did not answer: {error}")
            return
        finally:
            receiving.close()
        if generation != self._generation:
            return  # it died and another one is starting
        self._report = report
        if report.missing:
            why = f" ({report.fault})" if report.fault else ""
            self._settle("failed", f"the nursery could not import {', '.join(report.missing)}{why}")
            return
        self._warm_s = time.monotonic() - self._started
        self._settle("ready", None)
        self._on_log("nursery", f"nursery ready in {self._warm_s:.1f} s, pid {self._pid}")
        await self._remember(self._warm_s)

    def _settle(self, state: NurseryState, detail: str | None) -> None:
        self._state, self._detail = state, detail
        self._settled.set()
        if detail:
            self._on_log("nursery", detail)
        self._on_change()

    def _await_death(self, loop: asyncio.AbstractEventLoop, pid: int) -> None:
        # WNOWAIT leaves the zombie to the forkserver module, which reaps it when it restarts.
        with suppress(ChildProcessError):  # reaped by `stop` meanwhile
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        if not self._stopping:
            loop.call_soon_threadsafe(self._died, pid)

    def _died(self, pid: int) -> None:
        if self._stopping or pid != self._pid:
            return
        self._pid = None
        if self._resting:
            self._settle("cold", None)
            return
        self._on_log("nursery", f"the nursery (pid {pid}) died")
        if self._warm_s is not None and time.monotonic() - self._started > PROVEN_S:
            self._starts = 0
        if self._starts < MAX_STARTS:
            self.start()
        else:
            self._settle("failed", f"the nursery died {self._starts} times; workers start the slow way")

    def _expected_s(self) -> float | None:
        if self._warm_s is not None:
            return round(self._warm_s, 2)
        try:
            return msgspec.json.decode(self._memo.read_bytes(), type=_WarmTime).warm_s
        except (OSError, msgspec.DecodeError):
            return None

    async def _remember(self, warm_s: float) -> None:
        data = msgspec.json.encode(_WarmTime(warm_s=round(warm_s, 2)))
        try:
            await in_thread(lambda: write_whole(self._memo, data), name="nursery-memo")
        except OSError as error:
            self._on_log("nursery", f"{self._memo} cannot be written: {error.strerror}")


def _receive_report(connection: Connection[Any, Any]) -> NurseryReport:
    return msgspec.json.decode(connection.recv_bytes(), type=NurseryReport)


def _end_unwanted(process: ForkServerProcess, forking: asyncio.Future[None]) -> None:
    """End what was forked after nobody waited for it any more."""
    if not forking.cancelled() and forking.exception() is None:
        process.kill()


def _kill_child(pid: int) -> None:
    """SIGKILL an unreaped child of ours: its pid cannot have been given to anybody else."""
    try:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass
