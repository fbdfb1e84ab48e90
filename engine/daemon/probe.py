"""The probe process as the daemon sees it: readings in, questions out, replaced when it hangs.

NVML can hang in the kernel, where no signal reaches; such a probe is abandoned and another one
tried, less and less often. The engine goes on without readings and says how old the last are.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path

import msgspec

from engine.daemon.cards import introduction
from engine.daemon.silence import Silence
from engine.telemetry.samples import (
    DeviceNews,
    DeviceReading,
    FromProbe,
    Pace,
    ProbeFault,
    ReadNow,
    ToProbe,
    Trace,
    Traced,
    Watch,
)

SILENT_S = 5.0
"""A probe that says nothing for so long hangs: it speaks 10 times a second."""
RETRY_S = (0.5, 1, 2, 5, 10, 30)


class Probe:
    """Keeps one probe process running and answers `trace`. Event loop's thread only."""

    def __init__(
        self,
        *,
        log_path: Path,
        environ: dict[str, str],
        on_reading: Callable[[FromProbe], None],
        on_log: Callable[..., None],
        on_start: Callable[[], None],
    ) -> None:
        """`on_start` is called whenever a new process is there, to tell it what to watch."""
        self._on_start = on_start
        self._log_path = log_path
        self._environ = environ
        self._on_reading = on_reading
        self._on_log = on_log
        self._decoder: msgspec.json.Decoder[FromProbe] = msgspec.json.Decoder(FromProbe)
        self._process: asyncio.subprocess.Process | None = None
        self._traces: dict[int, asyncio.Future[Traced]] = {}
        self._trace_ids = count(1)
        self._heard_at: float | None = None
        self._introduced: set[str] = set()
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def age_s(self) -> float | None:
        """Seconds since it last said anything."""
        return None if self._heard_at is None else time.monotonic() - self._heard_at

    def start(self) -> None:
        self._keeper = asyncio.get_running_loop().create_task(self._keep_running())

    async def stop(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
        self._kill()

    def watch(self, pids: dict[str, int]) -> None:
        """Read these processes of ours with every sample."""
        self._send(Watch(pids=pids))

    def read_soon(self, after_s: float) -> None:
        """One more reading of the GPUs beside the ten a second."""
        asyncio.get_running_loop().call_later(after_s, self._send, ReadNow())

    def pace(self, *, period_s: float, for_s: float) -> None:
        """Read at another rate for a while; a probe that is replaced meanwhile reads as usual."""
        self._send(Pace(period_s=period_s, for_s=for_s))

    async def trace(self, pid: int, device_id: str, *, until_bytes: int, timeout_s: float) -> Traced | None:
        """Follow one process's bytes at 1 kHz; None when no probe answers."""
        trace_id = next(self._trace_ids)
        answer: asyncio.Future[Traced] = asyncio.get_running_loop().create_future()
        self._traces[trace_id] = answer
        self._send(
            Trace(
                trace_id=trace_id, pid=pid, device_id=device_id, until_bytes=until_bytes, timeout_s=timeout_s
            )
        )
        try:
            async with asyncio.timeout(timeout_s + 1.0):
                return await answer
        except TimeoutError:
            return None
        finally:
            self._traces.pop(trace_id, None)

    def _send(self, question: ToProbe) -> None:
        if self._process is None or self._process.stdin is None or self._process.stdin.is_closing():
            return
        with suppress(OSError, RuntimeError):
            self._process.stdin.write(msgspec.json.encode(question) + b"\n")

    async def _keep_running(self) -> None:
        failures = 0
        while True:
            started = time.monotonic()
            try:
                why = await self._run_once()
            except OSError as error:
                why = f"it cannot be started: {error}"
            failures = 0 if time.monotonic() - started > 60 else failures + 1
            pause = RETRY_S[min(failures, len(RETRY_S)) - 1] if failures else RETRY_S[0]
            self._on_log("probe", f"the probe ended ({why}); another starts in {pause} s")
            await asyncio.sleep(pause)

    async def _run_once(self) -> str:
        """Run one probe to its end and say why it ended."""
        with self._log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "engine.telemetry.probe",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=self._log_path.parent,
                limit=2**20,
                env={**self._environ, "PYTHONSAFEPATH": "1", "_TURBOTUI_PARENT": str(os.getpid())},
            )
        process = self._process
        assert process.stdout is not None
        self._on_start()
        try:
            while True:
                line = await _next_line(process.stdout)
                if not line:
                    return f"exit code {await process.wait()}"
                message = self._decoder.decode(line)
                try:
                    self._heard(message)
                except Exception as error:  # a bug of ours must not cost the readings
                    self._on_log("bug", f"a reading could not be taken in: {type(error).__name__}: {error}")
        except TimeoutError:
            # In a driver call that hangs even SIGKILL waits; it is left behind, not waited for.
            return f"silent for {SILENT_S:.0f} s, abandoned as pid {process.pid}"
        except (ValueError, msgspec.MsgspecError) as error:
            return f"it said something that is no reading: {error}"
        finally:
            self._kill()

    def _heard(self, message: FromProbe) -> None:
        self._heard_at = time.monotonic()
        if isinstance(message, Traced):
            answer = self._traces.get(message.trace_id)
            if answer is not None and not answer.done():
                answer.set_result(message)
            return
        if isinstance(message, ProbeFault):
            self._on_log("probe", f"{message.kind}: {message.detail}")
        elif isinstance(message, DeviceNews):
            level = "info" if message.kind == "back" else "warning"
            self._on_log("gpu", f"{message.device_id}: {message.detail}", level=level, memory=True)
        elif isinstance(message, DeviceReading) and message.device_id not in self._introduced:
            self._introduced.add(message.device_id)
            self._on_log("gpu", introduction(message))
        self._on_reading(message)

    def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()
        self._process = None


async def _next_line(stdout: asyncio.StreamReader) -> bytes:
    """The next line, empty at the end.

    A single timeout would also fire where this loop was held up and the line is there, unread.

    Raises:
        TimeoutError: none came for `SILENT_S`.
    """
    silence = Silence()
    while True:
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                return await stdout.readline()
        if silence.look() >= SILENT_S:
            raise TimeoutError
